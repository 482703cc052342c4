// SPDX-License-Identifier: MIT
import { closeSync, openSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { connect } from '../../lib/client';
import { EventFd, Mapping, closeFd, createSharedMemory } from '../../lib/native';
import { PciIrq, PciRegion } from '../../lib/pci';
import { ProxyModel } from '../../lib/proxy';
import { CommandError, Errno, type PciDeviceModel } from '../../lib/server';
import { like } from '../support/errors';
import { mappings, openFds } from '../support/resources';
import { turns, until } from '../support/wait';
import { EduDevice } from '../server/edu-device';
import { MigratingModel, pattern } from '../server/migration-model';
import {
  BAR_SIZE,
  RawClient,
  TestModel,
  access,
  dmaMap,
  dmaUnmap,
  message,
  setIrqs,
} from '../server/support';
import { useChains } from './fixture';

const PAGE = 0x1000;
const COMMAND = 4;
const chain = useChains();

describe('what a client is told', () => {
  test('regions, their sizes, flags, types and areas are those of the device', async () => {
    const model = new TestModel();
    model.regions.set(9, { size: 100, type: { type: 0x8000_8086, subtype: 7 }, read: () => undefined });
    const { socket, device } = await chain(model);
    await using client = await connect(socket);
    expect(await client.info()).toEqual(await device.info());
    const { regionCount } = await client.info();
    for (let index = 0; index < regionCount; index++) {
      const [own, proxied] = [await device.region(index), await client.region(index)];
      const { size, flags, type, subtype, areas } = own;
      expect(proxied).toMatchObject({ size, type, subtype, areas });
      expect(proxied.flags).toBe(flags);
    }
  });

  test('configuration space is the device’s own, byte for byte, and takes writes', async () => {
    const { socket, device, upstream } = await chain(new TestModel());
    await using client = await connect(socket);
    expect(upstream.client).not.toBeNull();
    const own = await device.config.readBytes(0, 256);
    expect(await client.config.readBytes(0, 256)).toEqual(own);
    await client.config.write32(0x10 + 4 * 4, 0xffff_ffff);
    expect(await client.config.read32(0x10 + 4 * 4)).toBe(0xffff_e000);
    expect((await client.pci.capability('msix'))?.offset).toBe((await device.pci.capability('msix'))?.offset);
  });

  test('interrupts have the device’s counts and flags', async () => {
    const { socket, device } = await chain(new TestModel());
    await using client = await connect(socket);
    for (const name of ['intx', 'msi', 'msix', 'err', 'req'] as const) {
      const { index, count, flags } = await device.irq(name);
      expect(await client.irq(name)).toMatchObject({ index, count, flags });
    }
  });
});

describe('registers', () => {
  test('are accessed as wide as the client does, and refused as the device does', async () => {
    const widths: number[] = [];
    const model = new TestModel();
    model.regions.set(PciRegion.bar5, {
      size: 64,
      read: (_, data) => void widths.push(data.length),
      write: (offset, data) => {
        widths.push(-data.length);
        if (offset === 32) throw new CommandError(Errno.EPERM, 'not this one');
      },
    });
    const { socket } = await chain(model);
    const raw = await RawClient.connect(socket);
    for (const count of [1, 2, 3, 4, 8, 17]) expect(await raw.errnoOf(9, access(5, 0, count))).toBe(0);
    expect(widths).toEqual([1, 2, 3, 4, 8, 17]);
    const write = new Uint8Array([...access(5, 32, 4), 1, 2, 3, 4]);
    expect(await raw.errnoOf(10, write)).toBe(Errno.EPERM);
    expect(widths.at(-1)).toBe(-4);
    // Region 2 cannot be written, 3 cannot be read, and what lies behind a region is not there.
    expect(await raw.errnoOf(10, new Uint8Array([...access(2, 0, 1), 0]))).toBe(Errno.EINVAL);
    expect(await raw.errnoOf(9, access(3, 0, 1))).toBe(Errno.EINVAL);
    expect(await raw.errnoOf(9, access(5, 60, 8))).toBe(Errno.EINVAL);
    raw.close();
  });

  test('are mapped by the device’s own file: a store is seen by the device without a message', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const area = (await client.region('bar0')).map(0x1000, PAGE);
    new Uint8Array(area.buffer)[5] = 0x77;
    expect(model.bar0[0x1005]).toBe(0x77);
  });

  test('are not mapped with trap, nor when their file is a device node, which would be the whole device', async () => {
    const model = new TestModel();
    const { socket } = await chain(model, { proxy: { trap: true } });
    await using client = await connect(socket);
    expect(await client.region('bar0')).toMatchObject({ size: BAR_SIZE, areas: [] });

    const node = openSync('/dev/zero', 'r+');
    try {
      const other = new TestModel();
      const areas = [{ offset: 0, size: PAGE }];
      other.regions.set(PciRegion.bar5, {
        size: PAGE,
        shared: { fd: node, offset: 0, areas },
        read: () => undefined,
      });
      const chained = await chain(other);
      expect((await chained.device.region('bar5')).areas).toHaveLength(1);
      await using second = await connect(chained.socket);
      expect((await second.region('bar5')).areas).toEqual([]);
      expect((await second.region('bar0')).areas).toHaveLength(1);
    } finally {
      closeSync(node);
    }
  });
});

describe('memory', () => {
  test('is mapped for the device at the same address, by the client’s own file', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const fd = createSharedMemory(4 * PAGE);
    try {
      await client.dma.map({ iova: 0xabc000n, size: 2 * PAGE, fd, offset: PAGE, access: 'read' });
      const mapping = Mapping.map(fd, 0, 4 * PAGE);
      new Uint8Array(mapping.buffer)[PAGE + 3] = 9;
      const [range] = model.ranges;
      expect(range).toMatchObject({ iova: 0xabc000n, size: 2 * PAGE, readable: true, writable: false });
      expect(new Uint8Array(range?.buffer as ArrayBuffer)[3]).toBe(9);
      mapping.close();
      await client.dma.unmap(0xabc000n, 2 * PAGE);
      expect(model.ranges).toEqual([]);
    } finally {
      closeFd(fd);
    }
  });

  test('without a file is reached by messages that the proxy asks the client in turn', async () => {
    const { socket } = await chain(new EduDevice());
    await using client = await connect(socket, { dma: { directDma: false } });
    const bar0 = await client.region('bar0');
    const memory = await client.dma.allocate(PAGE);
    const bytes = new Uint8Array(memory.buffer);
    bytes.set([1, 2, 3, 4]);
    const [SOURCE, DESTINATION, COUNT, START] = [0x80, 0x88, 0x90, 0x98];
    await bar0.write64(SOURCE, BigInt(memory.iova));
    await bar0.write64(DESTINATION, 0x4_0000n);
    await bar0.write64(COUNT, 4n);
    await bar0.write64(START, 1n);
    await bar0.write64(SOURCE, 0x4_0000n);
    await bar0.write64(DESTINATION, BigInt(memory.iova) + 0x800n);
    await bar0.write64(START, 3n);
    expect([...bytes.subarray(0x800, 0x804)]).toEqual([1, 2, 3, 4]);
  });

  test('what overlaps is refused, and so is what the device does not take; the reason is told here', async () => {
    const model = new TestModel();
    const { socket, errors } = await chain(model, { serve: { capabilities: { maxDmaMaps: 2 } } });
    const raw = await RawClient.connect(socket);
    expect(await raw.errnoOf(2, dmaMap(0, PAGE))).toBe(0);
    expect(await raw.errnoOf(2, dmaMap(0, PAGE))).toBe(Errno.EEXIST);
    expect(await raw.errnoOf(2, dmaMap(0x800, PAGE))).toBe(Errno.EINVAL);
    expect(await raw.errnoOf(2, dmaMap(PAGE, PAGE, 0))).toBe(Errno.EINVAL); // Neither read nor write.
    expect(await raw.errnoOf(2, dmaMap(PAGE, PAGE))).toBe(0);
    expect(await raw.errnoOf(2, dmaMap(2 * PAGE, PAGE))).toBe(Errno.ENOSPC);
    expect(model.ranges.map(({ iova }) => iova)).toEqual([0n, 0x1000n]);
    expect(errors.join('\n')).toMatch(/EEXIST: .*overlaps[^]*EINVAL: [^]*ENOSPC: /);
    raw.close();
  });

  test('a range that the device refuses is the client’s no more, and one that it does not let go of is', async () => {
    const model = new TestModel();
    let refuse = true;
    const mapped = model.mapped.bind(model);
    model.mapped = (range) => {
      if (refuse) throw new CommandError(Errno.ENOMEM, 'no place');
      mapped(range);
    };
    const { socket, device } = await chain(model);
    const raw = await RawClient.connect(socket);
    const fd = createSharedMemory(PAGE);
    expect(await raw.errnoOf(2, dmaMap(0, PAGE), [fd])).toBe(Errno.ENOMEM);
    expect(device.dma.ranges).toEqual([]);
    refuse = false;
    expect(await raw.errnoOf(2, dmaMap(0, PAGE), [fd])).toBe(0);
    model.failure = new CommandError(Errno.EBUSY, 'in use');
    expect(await raw.errnoOf(3, dmaUnmap(0, PAGE))).toBe(Errno.EBUSY);
    expect(await raw.errnoOf(2, dmaMap(0, PAGE), [fd])).toBe(Errno.EEXIST);
    expect(await raw.errnoOf(3, dmaUnmap(0, PAGE))).toBe(0);
    expect(await raw.errnoOf(2, dmaMap(0, PAGE), [fd])).toBe(0);
    raw.close();
    closeFd(fd);
  });

  test('all of it is unmapped with one message, and when the client goes', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    const client = await connect(socket);
    for (let index = 0; index < 5; index++) await client.dma.allocate(PAGE);
    expect(model.ranges).toHaveLength(5);
    await client.dma.unmapAll();
    expect(model.ranges).toEqual([]);
    for (let index = 0; index < 5; index++) await client.dma.allocate(PAGE);
    await client.close();
    await until(() => model.ranges.length === 0, 'the device has no range any more');
  });
});

describe('interrupts', () => {
  test('are signalled by the device to the client’s eventfds; the proxy keeps no descriptor for them', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const before = openFds();
    const irq = await client.irq('msix');
    await irq.enable(3);
    // One of the client's and one of the device's server, for each of three vectors.
    expect(openFds()).toBe(before + 6);
    model.client?.setInterrupt(true, 1);
    expect([0, 1, 2].map((vector) => irq.vector(vector).poll())).toEqual([0, 1, 0]);
    await irq.disable();
    expect(openFds()).toBe(before);
    expect(model.client?.setInterrupt(true, 1)).toBe(false);
  });

  test('vectors are added and taken away one by one, and the others go on', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    const raw = await RawClient.connect(socket);
    const eventFds = [EventFd.create(), EventFd.create()];
    const TRIGGER_BY_EVENTFD = 0x24;
    const set = (vector: number, fds: number[]): Promise<number> =>
      raw.errnoOf(8, setIrqs(TRIGGER_BY_EVENTFD, PciIrq.msix, vector, 1), fds);
    expect(await set(0, [eventFds[0]!.fd])).toBe(0);
    expect(await set(3, [eventFds[1]!.fd])).toBe(0);
    for (const vector of [0, 1, 3]) model.client?.setInterrupt(true, vector);
    expect(eventFds.map((eventFd) => eventFd.read())).toEqual([1, 1]);
    expect(await set(0, [])).toBe(0);
    for (const vector of [0, 1, 3]) model.client?.setInterrupt(true, vector);
    expect(eventFds.map((eventFd) => eventFd.read())).toEqual([0, 1]);
    expect(await set(4, [eventFds[0]!.fd])).toBe(Errno.EINVAL);
    expect(await raw.errnoOf(8, setIrqs(TRIGGER_BY_EVENTFD, PciIrq.msi, 0, 1), [eventFds[0]!.fd])).toBe(
      Errno.EINVAL,
    );
    for (const eventFd of eventFds) eventFd.close();
    raw.close();
  });

  test('INTx is masked and unmasked, by message and by eventfd', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const irq = await client.irq('intx');
    const eventFd = EventFd.create();
    await irq.enable([eventFd]);
    model.client?.setInterrupt(true);
    expect(eventFd.read()).toBe(1);
    // The line is high still, so the end of the interrupt brings the next.
    await irq.vector(0).unmask();
    expect(eventFd.read()).toBe(1);
    const end = EventFd.create();
    await irq.vector(0).bind('unmask', end);
    end.signal();
    await until(() => eventFd.read() === 1, 'it is signalled anew');
    model.client?.setInterrupt(false);
    await irq.mask();
    await irq.unmask();
    expect(eventFd.read()).toBe(0);
    eventFd.close();
    end.close();
  });

  test('ERR is the device’s; a vector is triggered by the client', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const irq = await client.irq('err');
    const eventFd = EventFd.create();
    await irq.enable([eventFd]);
    expect(model.client?.trigger(PciIrq.err)).toBe(true);
    expect(eventFd.read()).toBe(1);
    await irq.trigger();
    await irq.trigger([false]);
    expect(eventFd.read()).toBe(1);
    eventFd.close();
  });

  test('REQ is handed on; when the client does not take it, the device is given back at once', async () => {
    for (const takes of [true, false]) {
      const model = new TestModel();
      model.irqs.set(PciIrq.req, 1);
      const { socket, device, proxy } = await chain(model);
      const client = await connect(socket);
      let asked = 0;
      const irq = await client.irq('req');
      if (takes) {
        await irq.enable([() => asked++]);
        await irq.trigger();
        await until(() => asked === 1, 'the client triggers its own');
      }
      model.client?.trigger(PciIrq.req);
      if (takes) {
        await until(() => asked === 2, 'the client is asked');
        expect(device.closed).toBe(false);
        await client.close();
      }
      expect((await proxy.gone).message).toMatch(/was asked back/);
      expect(device.closed).toBe(true);
      await client.close();
    }
  });
});

describe('a client that goes', () => {
  test('leaves a device that is quiet and reset, for the next one', async () => {
    const model = new TestModel();
    const { socket, device, server } = await chain(model);
    const first = await connect(socket);
    await first.config.write16(COMMAND, 6);
    await (await first.irq('msix')).enable(4);
    await first.dma.allocate(PAGE);
    model.log.length = 0;
    await first.close();
    await using second = await connect(socket);
    expect(server.client?.name).toMatch(/client 2/);
    expect(model.log.slice(0, 3)).toEqual(['command', 'reset', expect.stringMatching('unmapping')]);
    expect(await second.config.read16(COMMAND)).toBe(0);
    expect(model.client?.setInterrupt(true, 0)).toBe(false);
    expect(device.dma.ranges).toEqual([]);
    await second.dma.allocate(PAGE);
  });

  test('is waited for while the device lets go, and what it does not let go of is told', async () => {
    const model = new TestModel();
    const { socket, errors } = await chain(model);
    const first = await connect(socket);
    await first.dma.allocate(PAGE);
    let open = (): void => undefined;
    model.gate = new Promise((resolve) => {
      open = resolve;
    });
    await first.close();
    let served = false;
    const second = connect(socket).then((client) => {
      served = true;
      return client;
    });
    await until(() => model.log.at(-1) === 'reset', 'the device is being reset');
    await turns();
    expect(served).toBe(false);
    model.failure = new CommandError(Errno.EIO, 'stuck');
    open();
    await (await second).close();
    expect(errors).toEqual([
      expect.stringMatching(/did not let go of all that its client had given it: .*EIO/),
    ]);
  });

  test('leaves no descriptor and no mapping, a hundred times', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    const visit = async (): Promise<void> => {
      const client = await connect(socket);
      await (await client.irq('msix')).enable(3);
      (await client.region('bar0')).map(0x1000, PAGE);
      await client.dma.allocate(PAGE);
      await client.close();
      await until(() => model.ranges.length === 0, 'the device has let go');
    };
    await visit();
    const before = [openFds(), mappings()];
    for (let index = 0; index < 100; index++) await visit();
    await until(() => openFds() <= (before[0] ?? 0), 'all descriptors are closed');
    expect([openFds(), mappings()]).toEqual(before);
  });
});

describe('a device that goes', () => {
  test('takes its client with it; the next one is refused', async () => {
    const { socket, upstream, proxy } = await chain(new TestModel());
    await using client = await connect(socket);
    await client.dma.allocate(PAGE);
    const closed = new Promise<Error | null>((resolve) => client.once('close', resolve));
    await upstream.close();
    expect(await closed).toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
    expect(await proxy.gone).toMatchObject({
      code: 'ERR_VFIO_USER_DISCONNECTED',
      message: expect.stringMatching(/the device is gone: .*\.device closed the connection/),
    });
    await expect(connect(socket)).rejects.toThrow(
      like({ code: 'ERR_VFIO_USER_REMOTE', errnoName: 'ENODEV' }),
    );
  });

  test('one that does not answer is an error for the client, which stays', async () => {
    const model = new TestModel();
    let open = (): void => undefined;
    const stuck = new Promise<void>((resolve) => {
      open = resolve;
    });
    model.regions.set(PciRegion.bar5, { size: 16, read: () => stuck });
    const { socket } = await chain(model, { connect: { messageTimeout: 50 } });
    const raw = await RawClient.connect(socket);
    expect(await raw.errnoOf(9, access(5, 0, 4))).toBe(Errno.ETIMEDOUT);
    expect(await raw.errnoOf(9, access(0, 0, 4))).toBe(0);
    open();
    raw.close();
  });
});

describe('state', () => {
  test('is reset by the client, and migrates to another device through two proxies', async () => {
    const data = pattern(100_000);
    const source = new MigratingModel(data);
    source.early = pattern(3000);
    const destination = new MigratingModel();
    await using from = await connect((await chain(source)).socket);
    await using to = await connect((await chain(destination)).socket);
    expect(await from.migration.supported()).toMatchObject({ stopCopy: true, preCopy: true });
    await pipeline(from.migration.createReadStream({ preCopy: true }), to.migration.createWriteStream());
    expect(destination.data).toEqual(new Uint8Array([...source.early, ...data]));
    expect(await to.migration.state()).toBe('running');
    await to.reset();
    expect(destination.log.at(-1)).toBe('reset');
  });

  test('a client that stops the device leaves it running', async () => {
    const model = new MigratingModel(pattern(10));
    const { socket } = await chain(model);
    const first = await connect(socket);
    await first.migration.setState('stop');
    await first.close();
    await using second = await connect(socket);
    expect(await second.migration.state()).toBe('running');
  });

  test('pages that the device writes are told by the device', async () => {
    const model = new MigratingModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const memory = await client.dma.allocate(4 * PAGE);
    expect(await client.dirtyLog.supported()).toBe(true);
    await client.dirtyLog.start();
    model.client?.memory.markDirty(memory.iova + 2 * PAGE, 1);
    const dirty = await client.dirtyLog.report(memory.iova, 4 * PAGE);
    expect([...dirty]).toEqual([BigInt(memory.iova + 2 * PAGE)]);
    await client.dirtyLog.stop();
  });

  test('a device without migration does not offer it, nor a reset that it does not have', async () => {
    const model: PciDeviceModel = { name: 'plain', pci: { vendorId: 1, deviceId: 2, classCode: 0xff0000 } };
    const { socket } = await chain(model);
    await using client = await connect(socket);
    expect(await client.migration.supported()).toEqual({ stopCopy: false, preCopy: false, p2p: false });
    await expect(client.reset()).rejects.toThrow(like({ code: 'ERR_VFIO_USER_UNSUPPORTED' }));
    await expect(client.migration.readData(4)).rejects.toThrow(like({ code: 'ERR_VFIO_USER_REMOTE' }));
  });

  test('features of a device that no socket leads to are refused: their structures have addresses of this process', async () => {
    const { device } = await chain(new MigratingModel());
    // As the kernel's device: it has features, and nothing was negotiated.
    const other = await ProxyModel.of(
      new Proxy(device, {
        get: (target, key) => {
          const value: unknown = key === 'negotiated' ? undefined : Reflect.get(target, key);
          return typeof value === 'function' ? value.bind(target) : value;
        },
      }),
    );
    const request = { feature: 1, get: true, set: false, probe: false, argsz: 16, data: new Uint8Array(0) };
    await expect(other.passthrough.feature(request)).rejects.toMatchObject({ errno: Errno.ENOTSUP });
    await expect(other.passthrough.readMigrationData(1)).rejects.toMatchObject({ errno: Errno.ENOTSUP });
    await expect(other.passthrough.writeMigrationData(request.data)).rejects.toMatchObject({
      errno: Errno.ENOTSUP,
    });
  });
});

describe('whoever watches', () => {
  test('sees each access, range and interrupt, and why one was refused', async () => {
    const seen: string[] = [];
    const model = new TestModel();
    const { socket } = await chain(model, {
      proxy: {
        trap: true,
        observer: (step, error) =>
          void seen.push(
            step.kind +
              ('region' in step ? ` ${step.region}` : '') +
              (error === null ? '' : ` ${error.errno}`),
          ),
      },
    });
    const client = await connect(socket);
    await (await client.region('bar0')).write32(0, 0x01020304);
    await (await client.region('bar0')).read32(0);
    const memory = await client.dma.allocate(PAGE);
    let signals = 0;
    const irq = await client.irq('msix');
    await irq.enable([() => undefined, () => signals++]);
    model.client?.setInterrupt(true, 1);
    await until(() => signals === 1, 'the client is signalled');
    await irq.disable();
    await memory.close();
    model.failure = new CommandError(Errno.EBUSY, 'busy');
    await expect(client.reset()).rejects.toThrow(like({ errnoName: 'EBUSY' }));
    await client.close();
    await until(() => seen.at(-1) === 'reset', 'the device is reset');
    expect(seen).toEqual([
      ...['attach', 'write 0', 'read 0', 'map', 'set-irqs', 'signal', 'set-irqs', 'unmap'],
      ...['reset', `reset ${Errno.EBUSY}`, 'detach', 'reset'],
    ]);
  });
});

test('a client that sends nonsense is refused or disconnected, and the next one is served', async () => {
  const model = new TestModel();
  const { socket } = await chain(model);
  const raw = await RawClient.connect(socket);
  const fd = createSharedMemory(PAGE);
  expect(await raw.errnoOf(8, setIrqs(0x24, PciIrq.msix, 0, 1), [fd])).toBe(Errno.EINVAL); // No eventfd.
  expect(await raw.errnoOf(8, setIrqs(0x24, 77, 0, 1))).toBe(Errno.EINVAL);
  expect(await raw.errnoOf(8, setIrqs(0x24, PciIrq.req, 0, 1))).toBe(Errno.EINVAL); // This device has none.
  expect(await raw.errnoOf(2, dmaMap(0, PAGE), [fd, fd])).toBe(Errno.EINVAL);
  expect(await raw.errnoOf(16, new Uint8Array(3))).toBe(Errno.EINVAL);
  expect(await raw.errnoOf(9, access(200, 0, 4))).toBe(Errno.EINVAL);
  raw.send(message(99, new Uint8Array(40)).subarray(0, 20));
  raw.close();
  closeFd(fd);
  await using client = await connect(socket);
  expect(await (await client.region('bar0')).read32(0)).toBe(0);
});
