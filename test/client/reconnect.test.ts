// SPDX-License-Identifier: MIT
import { connect, type ReconnectOptions } from '../../lib/client';
import { EventFd } from '../../lib/native';
import { Events, FakeEndpoint, QUICK, comingBack, describedDevice, endingAfter } from './reconnect-support';
import {
  DMA_MAP,
  GET_INFO,
  REGION_READ,
  SET_IRQS,
  VERSION,
  atEnd,
  bare,
  failure,
  fakeServer,
  message,
  PLAIN_VERSION,
  mappings,
  openFds,
  sharedMemory,
  until,
  u32,
  join,
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
