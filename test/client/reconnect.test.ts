// SPDX-License-Identifier: MIT
import { connect, type ReconnectOptions } from '../../lib/client';
import { DmaContainer } from '../../lib/dma/container';
import { VfioUserError } from '../../lib/errors';
import { EventFd } from '../../lib/native';
import {
  Events,
  FakeEndpoint,
  QUICK,
  comingBack,
  describedDevice,
  endingAfter,
  muted,
} from './reconnect-support';
import {
  DMA_MAP,
  DMA_READ,
  DMA_UNMAP,
  GET_INFO,
  GET_REGION_INFO,
  REGION_READ,
  REGION_WRITE,
  RESET,
  SET_IRQS,
  VERSION,
  atEnd,
  bare,
  failure,
  fakeServer,
  like,
  message,
  PLAIN_VERSION,
  mappings,
  openFds,
  sharedMemory,
  turns,
  u64,
  until,
  u32,
  join,
  version,
  warmUp,
} from './support';

const PAGE = 4096;
const GONE = failure('ERR_VFIO_USER_DISCONNECTED');

describe('options', () => {
  test.each<[string, unknown]>([
    ['unknown key "retries"', { retries: 3 }],
    ['firstDelay is 0', { firstDelay: 0 }],
    ['longestDelay is NaN', { longestDelay: NaN }],
    ['longestDelay is Infinity', { longestDelay: Infinity }],
    ['deadline is -1', { deadline: -1 }],
    ['deadline is 5s', { deadline: '5s' }],
    ['longestDelay is 10, and firstDelay 20 is longer', { firstDelay: 20, longestDelay: 10 }],
    ['null is no object', null],
  ])('%s', async (text, reconnect) => {
    await expect(connect('/no/such', { reconnect: reconnect as ReconnectOptions })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.stringContaining(text),
    });
  });

  test('a descriptor cannot be reconnected', async () => {
    const { endpoint } = fakeServer();
    await expect(connect(endpoint, { reconnect: true })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.stringContaining('give the path of the socket'),
    });
  });

  test('without the option a device closes, and says so', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const device = await connect(endpoint.path, { reconnect: false });
    atEnd(() => device.close());
    const events = new Events(device);
    expect(device.reconnects).toBe(false);
    expect(endpoint.now.count(GET_INFO)).toBe(0);
    endpoint.now.close();
    await events.next('close');
    expect(events.names).toEqual(['close']);
    expect(device.state).toBe('closed');
  });

  test.each([undefined, QUICK])(
    'a server that ends the connection with its first answer, reconnect: %o',
    async (reconnect) => {
      const endpoint: FakeEndpoint = new FakeEndpoint(() => ({
        [VERSION]: ({ id }) => {
          endpoint.now.send(message(VERSION, PLAIN_VERSION, { id, flags: 1 }));
          return 'close';
        },
      }));
      await expect(connect(endpoint.path, { ...(reconnect && { reconnect }) })).rejects.toMatchObject(GONE);
      expect(endpoint.servers.length).toBe(1);
    },
  );

  test('connect itself is not repeated', async () => {
    const endpoint = new FakeEndpoint(() => endingAfter(5, describedDevice()));
    await expect(connect(endpoint.path, { reconnect: QUICK })).rejects.toMatchObject(GONE);
    expect(endpoint.servers.length).toBe(1);
  });
});

describe('a server that comes back', () => {
  test('the events, what they tell, and the state', async () => {
    const { fd } = sharedMemory(0x4000);
    const endpoint = new FakeEndpoint(() => describedDevice({ barFds: () => [fd] }));
    const { device, events } = await comingBack(endpoint.path);
    expect(device.reconnects).toBe(true);
    const bar = await device.region(0);
    bar.map(0x1000, PAGE);
    bar.map(0x3000, PAGE).close();
    await device.dma.map({ iova: 0, size: PAGE });
    await device.dma.map({ iova: PAGE, size: PAGE });
    await (await device.irq('msix')).enable(3);
    const { messagesSent } = device.statistics;

    endpoint.stop();
    const [error, lost] = await events.next('disconnect');
    expect(error).toMatchObject(GONE);
    expect(lost).toEqual({ requests: 0, mappings: 1, subRegions: 0, dirtyLog: false, migration: false });
    expect([device.state, device.closed]).toEqual(['reconnecting', false]);
    await events.next('reconnecting', 3);
    endpoint.listen();

    const [renewed] = await events.next('reconnect');
    expect(device.state).toBe('connected');
    const attempts = events.of('reconnecting').map(([attempt]) => attempt);
    expect(attempts.map(({ attempt }) => attempt)).toEqual(attempts.map((_, index) => index + 1));
    expect(attempts[0]!.error).toBe(error);
    expect(attempts[1]!.error).toMatchObject({ code: 'ERR_VFIO_USER_CONNECT' });
    expect(renewed).toEqual({
      gap: expect.any(Number),
      attempts: attempts.length,
      dmaRanges: 2,
      vectors: 3,
    });
    expect(events.names).toEqual(['disconnect', 'reconnect']);
    expect(device.statistics.messagesSent).toBeGreaterThan(messagesSent);

    await device.close();
    expect(events.names).toEqual(['disconnect', 'reconnect', 'close']);
    expect(events.of('close')).toEqual([[null]]);
  });

  test('waits grow up to the longest, and are never shorter than a half', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { events } = await comingBack(endpoint.path, {
      reconnect: { firstDelay: 1, longestDelay: 6, deadline: 60_000 },
    });
    endpoint.stop();
    await events.next('reconnecting', 8);
    const whole = [1, 2, 4, 6, 6, 6, 6, 6];
    for (const [index, [{ delay }]] of events.of('reconnecting').slice(0, 8).entries()) {
      expect(delay).toBeGreaterThanOrEqual(whole[index]! / 2);
      expect(delay).toBeLessThanOrEqual(whole[index]!);
    }
  });

  test('is told everything in order: version, what the device is, DMA, interrupts', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    const { fd } = sharedMemory(2 * PAGE);
    await device.dma.map({ iova: 0x1000, size: PAGE, fd, access: 'read' });
    const gone = await device.dma.map({ iova: 0x2000, size: PAGE });
    await device.dma.map({ iova: 0x10000, size: PAGE, fd, offset: PAGE });
    await gone.close();
    const irq = await device.irq('msix');
    const given = EventFd.create();
    const bound = EventFd.create();
    atEnd(() => {
      given.close();
      bound.close();
    });
    const got: number[] = [];
    await irq.enable([given, null, (signals: number) => void got.push(signals), given]);
    await irq.mask({ start: 1, count: 2 });
    await irq.vector(2).unmask();
    await irq.vector(3).bind('unmask', bound);
    await irq.vector(0).bind('mask', bound);
    await irq.vector(0).bind('mask', null);

    let fds: number[] = [];
    const first = endpoint.now;
    first.close();
    await events.next('reconnect');
    const told = endpoint.now.heard;
    expect(
      told.map(({ command }) => command).filter((command) => command < 4 || command === SET_IRQS),
    ).toEqual([VERSION, DMA_MAP, DMA_MAP, SET_IRQS, SET_IRQS, SET_IRQS, SET_IRQS]);
    const commands = told.map(({ command }) => command);
    expect(commands.indexOf(DMA_MAP)).toBeGreaterThan(commands.lastIndexOf(REGION_READ));
    expect(endpoint.now.payloads(DMA_MAP)).toEqual([
      bare('20000000 01000000 0000000000000000 0010000000000000 0010000000000000'),
      bare('20000000 03000000 0010000000000000 0000010000000000 0010000000000000'),
    ]);
    // struct vfio_irq_set: argsz, flags, index, start, count. DATA_EVENTFD and TRIGGER, DATA_NONE and MASK, DATA_EVENTFD and UNMASK.
    expect(endpoint.now.payloads(SET_IRQS)).toEqual([
      bare('14000000 24000000 02000000 00000000 01000000'),
      bare('14000000 24000000 02000000 02000000 02000000'),
      bare('14000000 09000000 02000000 01000000 01000000'),
      bare('14000000 14000000 02000000 03000000 01000000'),
    ]);
    fds = told.map((heard) => heard.fds.length);
    expect(fds.filter((count) => count > 0)).toEqual([1, 1, 1, 2, 1]);
  });

  test('vectors go on: the handler, the loop and the eventfd of before get the signals of the new server', async () => {
    const taken: EventFd[] = [];
    atEnd(() => {
      for (const one of taken) one.close();
    });
    const endpoint = new FakeEndpoint(() =>
      describedDevice(
        {},
        {
          [SET_IRQS]: ({ fds }) => {
            for (let index = 0; index < fds.length; index++) taken.push(EventFd.fromFd(fds.take(index)!));
            return new Uint8Array(0);
          },
        },
      ),
    );
    const { device, events } = await comingBack(endpoint.path);
    const irq = await device.irq('msix');
    const got: number[] = [];
    await irq.enable([(signals: number) => void got.push(signals), () => undefined]);
    const fd = irq.fd(0);
    const loop = irq.vector(1).signals();
    const next = loop.next();
    endpoint.now.close();
    await events.next('reconnect');
    expect(taken.length).toBe(4);
    taken[2]!.signal();
    taken[3]!.signal();
    await until(() => got.length === 1);
    expect(await next).toEqual({ done: false, value: 1 });
    expect(irq.fd(0)).toBe(fd);
    // It ends when the device is closed for good.
    const last = loop.next();
    await device.close();
    expect((await last).done).toBe(true);
  });

  test('INTx is unmasked anew, in case the server waits for the end of an interrupt', async () => {
    const endpoint = new FakeEndpoint(() =>
      describedDevice({}, { [7]: ({ payload }) => join(u32(16, 1), payload.subarray(8, 12), u32(1)) }),
    );
    const { device, events } = await comingBack(endpoint.path);
    await (await device.irq('intx')).enable([() => undefined]);
    endpoint.now.close();
    await events.next('reconnect');
    expect(endpoint.now.payloads(SET_IRQS).at(-1)).toBe(bare('14000000 11000000 00000000 00000000 01000000'));
  });
});

describe('requests', () => {
  test('those in flight: what asks is sent again, what acts fails', async () => {
    let silent = false;
    const endpoint = new FakeEndpoint((client) => {
      return client === 0 ? muted(describedDevice(), () => silent) : describedDevice();
    });
    const { device, events } = await comingBack(endpoint.path);
    const bar = await device.region(0);
    silent = true;
    const region = device.region(7);
    const info = device.info();
    const failing = [bar.read32(0), bar.readBytes(0, 100), device.flush()].map((one) =>
      expect(one).rejects.toMatchObject(
        failure('ERR_VFIO_USER_DISCONNECTED', 'may or may not have been carried out'),
      ),
    );
    await until(() => endpoint.now.heard.length >= 17 + 1 + 5);
    endpoint.now.close();
    await Promise.all(failing);
    const [, { requests }] = await events.next('disconnect');
    expect(requests).toBe(3);
    expect((await region).size).toBe(256);
    expect((await info).regionCount).toBe(8);
    expect(device.state).toBe('connected');
  });

  test('while there is no connection: what acts fails at once, what asks waits', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    const bar = await device.region(0);
    const irq = await device.irq('msix');
    bar.posted = true;
    endpoint.stop();
    await events.next('disconnect');

    const waiting = failure('ERR_VFIO_USER_DISCONNECTED', 'is being waited for');
    await expect(bar.read32(0)).rejects.toMatchObject({ ...waiting, command: 'REGION_READ' });
    await expect(bar.write32(0, 1)).rejects.toMatchObject({ ...waiting, command: 'REGION_WRITE' });
    await expect(bar.write32(0, 1, { posted: false })).rejects.toMatchObject(waiting);
    await expect(device.flush()).rejects.toMatchObject(waiting);
    await expect(device.feature.set(1, new Uint8Array(4))).rejects.toMatchObject(waiting);
    await expect(irq.trigger()).rejects.toMatchObject(waiting);
    expect(() => bar.read32Sync(0)).toThrow(like(waiting));
    expect(() => {
      bar.write32Sync(0, 1);
    }).toThrow(like(waiting));
    expect(() => {
      device.flushSync();
    }).toThrow(like(waiting));
    expect(() => bar.map(0x1000, PAGE)).toThrow(like(waiting));

    const region = device.region(1);
    const enabled = irq.enable(2);
    await turns();
    endpoint.listen();
    expect((await region).size).toBe(0);
    await enabled;
    expect(endpoint.now.payloads(SET_IRQS)).toContain(bare('14000000 24000000 02000000 00000000 02000000'));
    expect(bar.posted).toBe(true);
  });

  test('a reset is not repeated, and not done on a server that came since', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice({}, { [RESET]: 'silence' }));
    const { device, events } = await comingBack(endpoint.path);
    const reset = device.reset();
    await until(() => endpoint.now.count(RESET) === 1);
    endpoint.now.close();
    await expect(reset).rejects.toMatchObject({ ...GONE, command: 'DEVICE_RESET' });
    await events.next('reconnect');
    expect(endpoint.now.count(RESET)).toBe(0);
  });

  test('a question that ends each connection is given up', async () => {
    let poisoned = false;
    const endpoint = new FakeEndpoint(() =>
      describedDevice({}, { 16: () => (poisoned ? 'close' : new Uint8Array(0)) }),
    );
    const { device, events } = await comingBack(endpoint.path);
    poisoned = true;
    await expect(device.feature.get(1)).rejects.toMatchObject(GONE);
    await events.next('reconnect', 6);
    expect(events.of('disconnect').length).toBe(6);
  });

  test('a write that was collected for one message does not reach the next server', async () => {
    const endpoint = new FakeEndpoint(() =>
      describedDevice({}, { [VERSION]: version('{"capabilities":{"max_msg_fds":8,"write_multiple":true}}') }),
    );
    const { device, events } = await comingBack(endpoint.path);
    const bar = await device.region(0);
    // More than the socket takes, in one turn, so that the small write after it is collected.
    const flood = (value: number): void => {
      for (let count = 0; count < 500; count++)
        bar.writeBytes(0, new Uint8Array(0x1000), { posted: true }).catch(() => undefined);
      bar.write32(4, value, { posted: true }).catch(() => undefined);
    };
    flood(0xdead);
    endpoint.now.close();
    await events.next('reconnect');
    flood(0x600d);
    await device.info();
    const small = endpoint.now.payloads(REGION_WRITE).filter((payload) => payload.length < 100);
    expect(small).toEqual([bare('0400000000000000 00000000 04000000 0d600000')]);
    expect(endpoint.now.count(15)).toBe(0);
  });
});

describe('DMA', () => {
  test('memory stays, with its content and its addresses', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    const memory = await device.dma.allocate(2 * PAGE);
    const bytes = new Uint8Array(memory.buffer);
    bytes.fill(0x5a);
    endpoint.now.close();
    await events.next('reconnect');
    expect(bytes.length).toBe(2 * PAGE);
    const { address } = { address: memory.iova };
    const reply = await endpoint.now.ask(DMA_READ, u64(address, 4));
    expect(reply.payload.slice(16)).toEqual(Uint8Array.of(0x5a, 0x5a, 0x5a, 0x5a));
    await memory.close();
    expect(endpoint.now.count(DMA_UNMAP)).toBe(1);
  });

  test('unmapped while disconnected: done at once, and not mapped again', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    const memory = await device.dma.allocate(PAGE);
    const kept = await device.dma.allocate(PAGE);
    endpoint.stop();
    await events.next('disconnect');
    await memory.close();
    expect(memory.buffer.byteLength).toBe(0);
    endpoint.listen();
    const [{ dmaRanges }] = await events.next('reconnect');
    expect(dmaRanges).toBe(1);
    expect(endpoint.now.count(DMA_MAP)).toBe(1);
    expect(endpoint.now.count(DMA_UNMAP)).toBe(0);
    expect(device.dma.ranges.map(({ iova }) => Number(iova))).toEqual([kept.iova]);
  });

  test('unmapped as the connection ends: done', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice({}, { [DMA_UNMAP]: 'silence' }));
    const { device, events } = await comingBack(endpoint.path);
    await device.dma.map({ iova: 0, size: PAGE });
    await device.dma.map({ iova: PAGE, size: PAGE });
    const left = device.dma.unmap(0, PAGE);
    await until(() => endpoint.now.count(DMA_UNMAP) === 1);
    endpoint.now.close();
    await left;
    await events.next('reconnect');
    expect(endpoint.now.payloads(DMA_MAP)).toEqual([
      bare('20000000 03000000 0000000000000000 0010000000000000 0010000000000000'),
    ]);
    const emptied = device.dma.unmapAll();
    endpoint.stop();
    await emptied;
    expect(device.dma.ranges).toEqual([]);
  });

  test('mapped while disconnected, alone and in a batch: is there afterwards', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    await device.dma.map({ iova: 0, size: PAGE });
    endpoint.stop();
    await events.next('disconnect');
    const mapped = device.dma.map({ iova: PAGE, size: PAGE });
    await turns();
    endpoint.listen();
    await mapped;
    endpoint.stop();
    await events.next('disconnect', 2);
    const batch = device.dma.batch();
    batch
      .unmap(0, PAGE)
      .map({ iova: 0, size: (4 * PAGE) / 4 })
      .map({ iova: 0x10000, size: PAGE });
    const committed = batch.commit();
    await turns();
    endpoint.listen();
    await committed;
    await events.next('reconnect', 2);
    const mapsOf = (payload: string): string => payload.slice(32, 48);
    expect(endpoint.now.payloads(DMA_MAP).map(mapsOf).sort()).toEqual(
      ['0000000000000000', '0010000000000000', '0000010000000000'].sort(),
    );
    expect(device.dma.ranges.length).toBe(3);
  });

  test('mapped as the connection ends: the new server has it once; its refusal is that of the map', async () => {
    const endpoint = new FakeEndpoint((client) => {
      const number = client;
      return describedDevice(
        {},
        {
          [DMA_MAP]: ({ payload }) => {
            const at = new DataView(payload.buffer, payload.byteOffset).getUint32(16, true);
            if (number === 0 && at > 0) return 'silence';
            return number === 1 && at === 2 * PAGE ? 12 : new Uint8Array(0);
          },
        },
      );
    });
    const { device, events } = await comingBack(endpoint.path);
    await device.dma.map({ iova: 0, size: PAGE });
    const taken = device.dma.map({ iova: PAGE, size: PAGE });
    const refused = device.dma.map({ iova: 2 * PAGE, size: PAGE });
    const wrong = expect(refused).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_REMOTE',
      errnoName: 'ENOMEM',
    });
    await until(() => endpoint.now.count(DMA_MAP) === 3);
    endpoint.now.close();
    await taken;
    await wrong;
    await events.next('reconnect');
    expect(endpoint.now.count(DMA_MAP)).toBe(3);
    expect(device.dma.ranges.map(({ iova }) => iova)).toEqual([0n, BigInt(PAGE)]);
    // And what was refused is not given to the one after it.
    endpoint.now.close();
    expect(await events.next('reconnect', 2)).toMatchObject([{ dmaRanges: 2 }]);
  });

  test('a server that refuses what the one before took is tried again', async () => {
    const endpoint = new FakeEndpoint((client) => describedDevice({}, client === 1 ? { [DMA_MAP]: 12 } : {}));
    const { device, events } = await comingBack(endpoint.path);
    await device.dma.map({ iova: 0, size: PAGE });
    endpoint.now.close();
    expect(await events.next('reconnect')).toMatchObject([{ attempts: 2, dmaRanges: 1 }]);
    expect(events.of('reconnecting')[1]![0].error).toMatchObject({ errnoName: 'ENOMEM' });
  });

  test('a container of two devices, of which one comes back', async () => {
    const one = new FakeEndpoint(() => describedDevice());
    const other = new FakeEndpoint(() => describedDevice());
    const dma = new DmaContainer();
    atEnd(() => {
      dma.close();
    });
    const first = await comingBack(one.path, { dma });
    await comingBack(other.path, { dma });
    await dma.map({ iova: 0, size: PAGE });
    one.stop();
    await first.events.next('disconnect');
    const mapped = dma.map({ iova: PAGE, size: PAGE });
    await dma.unmap(0, PAGE);
    await until(() => other.now.count(DMA_MAP) === 2);
    expect(other.now.count(DMA_UNMAP)).toBe(1);
    one.listen();
    await mapped;
    await first.events.next('reconnect');
    expect(one.now.payloads(DMA_MAP)).toEqual(other.now.payloads(DMA_MAP).slice(1));
    expect(one.now.count(DMA_UNMAP)).toBe(0);
    await dma.unmap(PAGE, PAGE);
    expect([one.now.count(DMA_UNMAP), other.now.count(DMA_UNMAP)]).toEqual([1, 2]);
  });

  test('a server is not served memory before it is known to be the same device', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 0 ? {} : { [GET_INFO]: 'silence' }),
    );
    const { device, events } = await comingBack(endpoint.path);
    const memory = await device.dma.allocate(PAGE);
    expect((await endpoint.now.ask(DMA_READ, u64(memory.iova, 4))).errno).toBe(0);
    endpoint.now.close();
    await events.next('disconnect');
    await until(() => endpoint.servers.length === 2 && endpoint.now.count(GET_INFO) === 1);
    expect(await endpoint.now.ask(DMA_READ, u64(memory.iova, 4))).toMatchObject({ errno: 14 });
  });
});

describe('mapped areas', () => {
  test('are detached before anybody is told, and region.map gives those of the new server', async () => {
    const memories = [sharedMemory(0x4000), sharedMemory(0x4000)];
    const endpoint = new FakeEndpoint((client) => {
      const { fd } = memories[client]!;
      return describedDevice({ barFds: () => [fd] });
    });
    const { device, events } = await comingBack(endpoint.path);
    const bar = await device.region(0);
    const area = bar.map(0x1000, PAGE);
    const words = new Uint32Array(area.buffer);
    words[0] = 1;
    expect(memories[0]!.bytes[0x1000]).toBe(1);
    const lengths: number[] = [];
    device.once('disconnect', () => lengths.push(words.length, area.buffer.byteLength));
    device.once('reconnect', () => (new Uint32Array(bar.map(0x1000, PAGE).buffer)[0] = 2));
    endpoint.now.close();
    await events.next('reconnect');
    expect(lengths).toEqual([0, 0]);
    words[0] = 3;
    expect(memories.map(({ bytes }) => bytes[0x1000])).toEqual([1, 2]);
    area.close();
    expect(await device.region(0)).toBe(bar);
  });
});

describe('another device is not taken for the one that was lost', () => {
  test.each([
    ['other ids', { ids: 0x1234_8086 }, /configuration space: ids 0x56781234.* before, ids 0x12348086.* now/],
    ['fewer interrupts', { vectors: 2 }, /interrupt index 2: 4 vectors.* before, 2 vectors.* now/],
    ['a smaller region', { barSize: 0x3000 + 0x1000 * 2 }, /region 0: 16384 bytes.* before, 20480 bytes/],
    ['a region that cannot be written', { flags: 0xd }, /region 0: .*flags 0xf.* before, .*flags 0xd.* now/],
  ] as const)('%s', async (_what, now, text) => {
    const endpoint = new FakeEndpoint((client) => describedDevice(client === 0 ? {} : now));
    const { device, events } = await comingBack(endpoint.path);
    await device.dma.map({ iova: 0, size: PAGE });
    const irq = await device.irq('msix');
    await irq.enable(1);
    const waiting = irq.vector(0).signals().next();
    endpoint.now.close();
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_VFIO_USER_IDENTITY' });
    const [error] = await events.next('close');
    expect(error).toMatchObject(failure('ERR_VFIO_USER_IDENTITY', text));
    expect(endpoint.servers.length).toBe(2);
    expect(endpoint.now.count(DMA_MAP) + endpoint.now.count(SET_IRQS)).toBe(0);
    await expect(device.info()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_IDENTITY' });
    await until(() => endpoint.now.closed);
    expect(events.names).toEqual(['disconnect', 'close']);
  });

  test('more regions', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 0 ? {} : { [GET_INFO]: u32(16, 3, 9, 3) }),
    );
    const { events } = await comingBack(endpoint.path);
    endpoint.now.close();
    const [error] = await events.next('close');
    expect(error).toMatchObject(failure('ERR_VFIO_USER_IDENTITY', 'number of regions: 8 before, 9 now'));
  });

  test('a server that takes less', async () => {
    const less = version('{"capabilities":{"max_msg_fds":4,"max_data_xfer_size":65536}}');
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 0 ? {} : { [VERSION]: less }),
    );
    const { events } = await comingBack(endpoint.path);
    endpoint.now.close();
    const [error] = await events.next('close');
    expect(error).toMatchObject(
      failure(
        'ERR_VFIO_USER_IDENTITY',
        'max_msg_fds: 8 before, 4 now; max_data_xfer_size: 1048576 before, 65536 now',
      ),
    );
  });

  test('another version of the protocol', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 0 ? {} : { [VERSION]: version('{}', 1, 0) }),
    );
    const { events } = await comingBack(endpoint.path);
    endpoint.now.close();
    const [error] = await events.next('close');
    expect(error).toMatchObject(failure('ERR_VFIO_USER_VERSION', 'speaks vfio-user 1.0'));
    expect(endpoint.servers.length).toBe(2);
  });
});

describe('attempts that fail', () => {
  /** VERSION, 16 messages that ask what the device is, two maps, three SET_IRQS. */
  const MESSAGES = 1 + 16 + 2 + 3;

  test.each(Array.from({ length: MESSAGES }, (_, count) => count))(
    'the server ends the connection after message %d of the set-up',
    async (count) => {
      warmUp();
      const { fd } = sharedMemory(0x4000);
      const answers = (): ReturnType<typeof describedDevice> => describedDevice({ barFds: () => [fd] });
      const endpoint = new FakeEndpoint((client) =>
        client === 1 ? endingAfter(count, answers()) : answers(),
      );
      const { device, events } = await comingBack(endpoint.path);
      await device.dma.map({ iova: 0, size: PAGE });
      await device.dma.map({ iova: PAGE, size: PAGE });
      const irq = await device.irq('msix');
      await irq.enable(2);
      await irq.mask({ start: 0, count: 2 });
      const bar = await device.region(0);
      const before = [openFds(), mappings()];
      endpoint.now.close();
      await events.next('reconnect');
      expect(endpoint.servers[1]!.heard.length).toBeGreaterThanOrEqual(Math.min(count + 1, MESSAGES));
      expect(events.of('reconnect')).toMatchObject([[{ attempts: 2, dmaRanges: 2, vectors: 2 }]]);
      expect(events.names).toEqual(['disconnect', 'reconnect']);
      expect(endpoint.now.count(DMA_MAP)).toBe(2);
      expect(endpoint.now.count(SET_IRQS)).toBe(3);
      expect([openFds(), mappings()]).toEqual(before);
      bar.map(0x1000, PAGE);
    },
  );

  test('a server that is busy at first', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 1 ? { [VERSION]: 'silence' } : {}),
    );
    const { events } = await comingBack(endpoint.path, { connectTimeout: 500 });
    endpoint.now.close();
    await events.next('reconnect');
    expect(events.of('reconnecting')[1]![0].error).toMatchObject({ code: 'ERR_VFIO_USER_BUSY' });
    await until(() => endpoint.servers[1]!.closed);
  });

  test('a server that falls silent during the set-up', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 1 ? { [GET_INFO]: 'silence' } : {}),
    );
    const { events } = await comingBack(endpoint.path, { messageTimeout: 500 });
    endpoint.now.close();
    await events.next('reconnect');
    expect(events.of('reconnecting')[1]![0].error).toMatchObject({ code: 'ERR_VFIO_USER_TIMEOUT' });
  });

  test('a server that does not answer has not gone', async () => {
    let silent = false;
    const endpoint = new FakeEndpoint(() =>
      describedDevice({}, { 16: () => (silent ? 'silence' : new Uint8Array(0)) }),
    );
    const { device, events } = await comingBack(endpoint.path, { messageTimeout: 300 });
    silent = true;
    await expect(device.feature.get(1)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_TIMEOUT' });
    expect(events.all).toEqual([]);
    expect(device.state).toBe('connected');
  });

  test('a server that breaks the protocol is not tried again', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { events } = await comingBack(endpoint.path);
    endpoint.now.send(u32(0x0004_0001, 8, 1, 0));
    const [error] = await events.next('close');
    expect(error).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
    expect(events.names).toEqual(['close']);
  });
});

describe('giving up', () => {
  test('at the deadline, with the last error; what waited fails', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const reconnect = { firstDelay: 1, longestDelay: 5, deadline: 500 };
    const { device, events } = await comingBack(endpoint.path, { reconnect });
    const memory = await device.dma.allocate(PAGE);
    endpoint.stop();
    await events.next('disconnect');
    const text = /did not come back within 500 ms .*no such path/;
    const waiting = [device.region(1), device.irq(1)].map((one) =>
      expect(one).rejects.toMatchObject(failure('ERR_VFIO_USER_DISCONNECTED', text)),
    );
    const mapped = expect(device.dma.allocate(PAGE)).rejects.toMatchObject(GONE);
    const [error] = await events.next('close');
    expect(error).toBeInstanceOf(VfioUserError);
    expect(error).toMatchObject(failure('ERR_VFIO_USER_DISCONNECTED', text));
    await Promise.all([...waiting, mapped]);
    expect(device.closed).toBe(true);
    // Nobody asks any more, and what was ours stays until close.
    endpoint.listen();
    const attempts = events.of('reconnecting').length;
    await turns();
    expect(events.of('reconnecting').length).toBe(attempts);
    expect(endpoint.servers.length).toBe(1);
    expect(memory.buffer.byteLength).toBe(PAGE);
    expect(device.dma.ranges.length).toBe(1);
  });

  test('at the deadline in the middle of an attempt', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client > 0 ? { [VERSION]: 'silence' } : {}),
    );
    const { events } = await comingBack(endpoint.path, { reconnect: { ...QUICK, deadline: 500 } });
    endpoint.now.close();
    const [error] = await events.next('close');
    expect(error).toMatchObject(failure('ERR_VFIO_USER_DISCONNECTED', 'within 500 ms'));
    await until(() => endpoint.now.closed);
  });

  const stages = [
    ['before an attempt', undefined],
    ['while VERSION is not answered', VERSION],
    ['while it asks what the device is', GET_REGION_INFO],
    ['while it maps', DMA_MAP],
    ['while it enables interrupts', SET_IRQS],
  ] as const;

  /** A device that is coming back, and has got as far as this. */
  async function stuck(
    stage: number | undefined,
    signal?: AbortSignal,
  ): Promise<Awaited<ReturnType<typeof comingBack>> & { endpoint: FakeEndpoint }> {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client > 0 && stage !== undefined ? { [stage]: 'silence' } : {}),
    );
    const reconnect = stage === undefined ? { ...QUICK, firstDelay: 30_000, longestDelay: 30_000 } : QUICK;
    const made = await comingBack(endpoint.path, { reconnect, ...(signal !== undefined && { signal }) });
    await made.device.dma.map({ iova: 0, size: PAGE });
    await (await made.device.irq('msix')).enable(1);
    endpoint.now.close();
    await made.events.next('reconnecting');
    if (stage !== undefined)
      await until(() => endpoint.servers.length === 2 && endpoint.now.count(stage) > 0);
    return { ...made, endpoint };
  }

  test.each(stages)('by close(), %s', async (_when, stage) => {
    const { device, events, endpoint } = await stuck(stage);
    const closed = failure('ERR_VFIO_USER_CLOSED');
    const mapped = device.dma.map({ iova: PAGE, size: PAGE });
    // A server that is being set up has taken the map before it falls silent.
    const waiting = (stage === SET_IRQS ? [device.region(1)] : [device.region(1), mapped]).map((one) =>
      expect(one).rejects.toMatchObject(closed),
    );
    await turns(2);
    await device.close();
    await Promise.all(waiting);
    expect(events.of('close')).toEqual([[null]]);
    expect(device.state).toBe('closed');
    await until(() => endpoint.now.closed);
    const attempts = events.of('reconnecting').length;
    await turns();
    expect(events.of('reconnecting').length).toBe(attempts);
  });

  test.each(stages)('by the signal of connect, %s', async (_when, stage) => {
    const controller = new AbortController();
    const { device, events, endpoint } = await stuck(stage, controller.signal);
    const reason = new Error('enough');
    controller.abort(reason);
    const [error] = await events.next('close');
    expect(error).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED', cause: reason });
    expect(device.closed).toBe(true);
    await until(() => endpoint.now.closed);
  });

  test('by a signal that was aborted while all was well', async () => {
    const controller = new AbortController();
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path, { signal: controller.signal });
    controller.abort();
    await device.info();
    endpoint.now.close();
    const [error] = await events.next('close');
    expect(error).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    expect(events.of('reconnecting')).toEqual([]);
  });

  test('by a listener that closes the device when it is told', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    device.once('disconnect', () => void device.close());
    endpoint.now.close();
    await events.next('close');
    expect(events.names).toEqual(['disconnect', 'close']);
    await turns();
    expect(events.of('reconnecting')).toEqual([]);
  });
});

test('a hundred times, and no descriptor or mapping more', async () => {
  warmUp();
  const { fd } = sharedMemory(0x4000);
  const endpoint = new FakeEndpoint(() => describedDevice({ barFds: () => [fd] }));
  const { device, events } = await comingBack(endpoint.path);
  const memory = await device.dma.allocate(PAGE);
  await (await device.irq('msix')).enable([() => undefined, () => undefined]);
  const bar = await device.region(0);
  bar.map(0x1000, PAGE);
  const counts = (): number[] => [openFds(), mappings()];
  const before = counts();
  for (let round = 1; round <= 100; round++) {
    endpoint.now.close();
    await events.next('reconnect', round);
    bar.map(0x1000, PAGE);
  }
  expect(counts()).toEqual(before);
  expect(new Uint8Array(memory.buffer).length).toBe(PAGE);
  await device.close();
});
