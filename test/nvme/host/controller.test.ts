// SPDX-License-Identifier: MIT
import { connect } from '../../../lib/client';
import { IoQueue, NvmeController, NvmeNamespace } from '../../../lib/nvme/host';
import { serve } from '../../../lib/server';
import { atEnd, failure, like, mappings, openFds, until, warmUp } from '../../client/support';
import { TestModel } from '../../server/support';
import { NAMESPACE_BYTES, attached, onRead, served, writesOf } from './support';

const CC = 0x14;
const CSTS = 0x1c;

test('attach identifies the controller and its namespaces', async () => {
  const { nvme } = await attached({ serial: 'S/N 1', model: 'A model', blockSize: 4096 });
  expect(nvme.identify).toMatchObject({ sn: 'S/N 1', mn: 'A model', mdts: 5 });
  expect(nvme.version).toMatch(/^\d\.\d/);
  expect(nvme.maxTransferSize).toBe(131072);
  expect(nvme.mappedDoorbells).toBe(true);
  expect(nvme.namespaces).toHaveLength(1);
  expect(nvme.namespace(1)).toMatchObject({
    id: 1,
    blockSize: 4096,
    blocks: NAMESPACE_BYTES / 4096,
    size: NAMESPACE_BYTES,
  });
  expect(() => nvme.namespace(2)).toThrow(
    like({
      code: 'ERR_OUT_OF_RANGE',
      message: expect.stringContaining('it has 1') as string,
    }),
  );
});

test('what bring-up and shutdown write to CC', async () => {
  const { model, device } = await served();
  const cc = writesOf(model, CC);
  const nvme = await NvmeController.attach(device);
  await nvme.close();
  await nvme.close();
  // NVMe base 2.0, 3.1.3.5: EN, IOSQES 6, IOCQES 4; SHN normal in bits 15:14; then all 0.
  expect(cc).toEqual([0x0046_0001, 0x0046_4001, 0]);
});

test('11 messages are sent from connect to the first I/O that is done', async () => {
  // VERSION, configuration space, Command, info of BAR 0, CAP, DMA_MAP, AQA, ASQ, ACQ, CC, CSTS.
  const { device, nvme } = await attached();
  await nvme.namespace(1).read(nvme.arena.allocate(512), { lba: 0, blocks: 1 });
  expect(device.statistics.messagesSent).toBe(11);
});

test('configuration space is set up whatever the client before left', async () => {
  const { device } = await served();
  const config = await device.region('config');
  let offset = await config.read8(0x34);
  while ((await config.read8(offset)) !== 0x11) offset = await config.read8(offset + 1);
  await config.write16(4, 0);
  await config.write16(offset + 2, 0xc000); // MSI-X Enable and Function Mask.
  const polled = await NvmeController.attach(device);
  expect(await config.read16(4)).toBe(0x0406); // Memory, bus master, INTx disabled.
  expect((await config.read16(offset + 2)) & 0xc000).toBe(0);
  await polled.close();

  await config.write16(offset + 2, 0x4000);
  const interrupted = await NvmeController.attach(device, { vectors: 2 });
  expect((await config.read16(offset + 2)) & 0xc000).toBe(0x8000);
  await interrupted.close();
});

test('a controller that was left enabled is disabled first', async () => {
  const { model, device } = await served();
  const first = await NvmeController.attach(device);
  const cc = writesOf(model, CC);
  const second = await NvmeController.attach(device);
  expect(cc).toEqual([0x0046_0000, 0x0046_0001]);
  expect(second.namespaces).toHaveLength(1);
  await second.close();
  await first.close();
});

test('close gives back all memory; the device stays open, and can be attached again', async () => {
  warmUp();
  const { model, device } = await served();
  await device.region('bar0');
  const before = [openFds(), mappings()];
  for (let round = 0; round < 3; round++) {
    const nvme = await NvmeController.attach(device, { vectors: 3 });
    await nvme.createIoQueue();
    await nvme.close();
  }
  expect([openFds(), mappings()]).toEqual(before);
  expect(device.dma.ranges).toEqual([]);
  expect(device.closed).toBe(false);
  expect(model.fault).toBeNull();
});

// Node warns of more than ten listeners of one event.
test('many controllers in one process have one listener for its end', async () => {
  const listeners = process.listenerCount('exit');
  for (let index = 0; index < 12; index++) await attached();
  expect(process.listenerCount('exit')).toBe(listeners + 1);
});

describe('what cannot be attached', () => {
  test('a device of another class', async () => {
    const model = new TestModel();
    const path = `@vfio-user-nvme-class-${process.pid}`;
    const server = await serve(path, model);
    const device = await connect(path);
    await expect(NvmeController.attach(device)).rejects.toMatchObject(
      failure('ERR_VFIO_USER_PCI', '0xff0000'),
    );
    await device.close();
    await server.close();
    model.close();
  });

  /** Attaching fails like this, and leaves nothing behind. */
  async function refused(
    change: (offset: number, data: DataView) => void,
    text: string | RegExp,
  ): Promise<void> {
    const { model, device } = await served();
    await device.region('bar0');
    onRead(model, change);
    const before = [openFds(), mappings()];
    await expect(NvmeController.attach(device)).rejects.toMatchObject(
      failure('ERR_VFIO_USER_NVME_CONTROLLER', text),
    );
    expect([openFds(), mappings()]).toEqual(before);
    expect(device.dma.ranges).toEqual([]);
  }

  test('a controller without the NVM command set', () =>
    refused((offset, data) => {
      if (offset === 0) data.setUint32(4, 0, true);
    }, 'offers no NVM command set'));

  test('a controller whose pages are too large', () =>
    refused((offset, data) => {
      if (offset === 0) data.setUint32(4, data.getUint32(4, true) | (1 << 16), true);
    }, 'pages of 4096 bytes'));

  test('one with a fatal error, at once', () =>
    refused((offset, data) => {
      if (offset === CSTS) data.setUint32(0, 3, true);
    }, /fatal error \(CSTS 0x3\).*become ready/));

  test('one that never becomes ready, after the time that it asks for', () =>
    refused((offset, data) => {
      if (offset === 0) data.setUint8(3, 0);
      if (offset === CSTS) data.setUint32(0, 0, true);
    }, 'did not become ready within 2000 ms'));

  test('one that fails while it is identified', async () => {
    const { model, device } = await served();
    const before = mappings();
    onRead(model, (offset, data) => {
      // CSTS is read last before Identify. Without queues, nothing is completed any more.
      if (offset === CSTS && data.getUint32(0, true) === 1) void model.reset();
    });
    await expect(NvmeController.attach(device, { adminTimeout: 20 })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_TIMEOUT',
    });
    expect(device.dma.ranges).toEqual([]);
    // The mapping of the doorbells and the model's own are as before; the region keeps its descriptor only.
    expect(mappings()).toBe(before);
  });

  test.each([1, 4097, 1.5])('an admin queue of %s entries', async (adminEntries) => {
    const { device } = await served();
    await expect(NvmeController.attach(device, { adminEntries })).rejects.toMatchObject({
      code: 'ERR_OUT_OF_RANGE',
    });
  });

  test('more vectors than there are', async () => {
    const { device } = await served({ queuePairs: 2 });
    await expect(NvmeController.attach(device, { vectors: 4 })).rejects.toMatchObject({
      code: 'ERR_OUT_OF_RANGE',
      message: expect.stringContaining('4 MSI-X vectors') as string,
    });
    expect(device.dma.ranges).toEqual([]);
  });

  test('a server that has gone', async () => {
    const { device, hangUp } = await served();
    await hangUp();
    await expect(NvmeController.attach(device)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
  });
});

test('close of a controller with a fatal error does not wait for its shutdown', async () => {
  const { model, device, nvme } = await attached();
  onRead(model, (offset, data) => {
    if (offset === CSTS) data.setUint32(0, 3, true);
  });
  await nvme.close();
  expect(device.dma.ranges).toEqual([]);
});

describe('I/O queue pairs', () => {
  test('as many as are granted, by the lowest free id', async () => {
    const { nvme } = await attached({ queuePairs: 3 });
    expect(await nvme.ioQueueLimit()).toBe(3);
    const pairs = [
      await nvme.createQueuePair(8),
      await nvme.createQueuePair(8),
      await nvme.createQueuePair(8),
    ];
    expect(pairs.map((pair) => pair.queue.id)).toEqual([1, 2, 3]);
    await expect(nvme.createQueuePair(8)).rejects.toMatchObject({
      code: 'ERR_OUT_OF_RANGE',
      message: expect.stringContaining('3 I/O queue pairs') as string,
    });
    await pairs[1]!.delete();
    await pairs[1]!.delete();
    expect((await nvme.createQueuePair(8)).queue.id).toBe(2);
  });

  test('not more than the mapped doorbells reach', async () => {
    const { model, device } = await served({ queuePairs: 64, dstrd: 4 });
    // 65 queue pairs with 64 bytes between doorbells need three pages; the server lets one be mapped: 32 queue pairs.
    const { shared } = model.pci.bars![0]!;
    Object.assign(shared!.areas[0]!, { size: 4096 });
    const nvme = await NvmeController.attach(device);
    atEnd(() => nvme.close());
    expect(await nvme.ioQueueLimit()).toBe(31);
  });

  test.each([1, 65, 2.5])('of %s entries', async (entries) => {
    const { nvme } = await attached({ maxQueueEntries: 64 });
    await expect(nvme.createQueuePair(entries)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
  });

  test('that find no memory do not use up ids', async () => {
    const { nvme } = await attached({}, { arenaSize: 128 << 10 });
    await expect(nvme.createQueuePair(1024)).resolves.toMatchObject({ queue: { id: 1 } });
    await expect(nvme.createQueuePair(1024)).rejects.toMatchObject(failure('ERR_VFIO_USER_DMA', 'arenaSize'));
    expect((await nvme.createQueuePair(2)).queue.id).toBe(2);
  });

  test('that the controller refuses give their memory and id back', async () => {
    const { nvme } = await attached({}, { arenaSize: 256 << 10 });
    expect(await nvme.ioQueueLimit()).toBe(64);
    // A completion queue 1 exists already: invalid queue identifier, 01/01.
    const prp1 = nvme.arena.allocate(4096).iova;
    await nvme.admin.command({ opcode: 0x05, prp1, cdw10: 0x0003_0001, cdw11: 1 });
    for (let round = 0; round < 10; round++) {
      await expect(nvme.createQueuePair(1000)).rejects.toMatchObject({ sct: 1, sc: 1 });
    }
    await nvme.admin.command({ opcode: 0x04, cdw10: 1 });
    for (let round = 0; round < 10; round++) {
      const created = await nvme.createQueuePair(1000);
      expect(created.queue.id).toBe(1);
      await created.delete();
    }
  });

  test('an I/O queue that finds no memory for its lists is deleted again', async () => {
    const { nvme } = await attached({}, { arenaSize: 64 << 10 });
    await expect(nvme.createIoQueue(100)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DMA' });
    expect((await nvme.createQueuePair(4)).queue.id).toBe(1);
  });

  test('queues that were closed are forgotten', async () => {
    const { nvme } = await attached();
    const failed = jest.spyOn(IoQueue.prototype, 'fail');
    atEnd(() => {
      failed.mockRestore();
    });
    for (let round = 0; round < 5; round++) await (await nvme.createIoQueue(4)).close();
    const open = await nvme.createIoQueue(4);
    failed.mockClear();
    await nvme.close();
    expect(failed.mock.contexts).toEqual([open]);
  });

  test('a default queue that was closed is replaced', async () => {
    const { nvme, device } = await attached();
    const memory = await device.dma.allocate(4096);
    const first = await nvme.defaultQueue();
    await first.close();
    await nvme.namespace(1).read(memory, { lba: 0, blocks: 1 });
    expect(await nvme.defaultQueue()).not.toBe(first);
  });

  test('a default queue that could not be created is tried again', async () => {
    const { nvme } = await attached({}, { arenaSize: 128 << 10 });
    const chunk = nvme.arena.allocate(80 << 10);
    await expect(nvme.defaultQueue()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DMA' });
    nvme.arena.release(chunk);
    expect(await nvme.defaultQueue()).toBe(await nvme.defaultQueue());
  });
});

describe('namespaces that cannot be transferred', () => {
  const format = { ms: 0, ds: 9, rp: 0 };

  test.each([
    ['metadata', { ...format, ms: 8 }, '8 bytes of metadata'],
    ['blocks above the largest transfer', { ...format, ds: 20 }, '1048576 bytes, more than'],
  ])('%s', async (_what, lbaFormat, text) => {
    const { nvme, model } = await attached();
    const identify = { ...nvme.namespace(1).identify, flbas: 0, lbafs: [lbaFormat] };
    const namespace = new NvmeNamespace(nvme, 1, identify);
    const buffer = { iova: nvme.arena.memory.iova, size: 1 << 30 };
    await expect(namespace.read(buffer, { lba: 0, blocks: 1 })).rejects.toMatchObject(
      failure('ERR_VFIO_USER_UNSUPPORTED', text),
    );
    expect(model.statistics.readCommands).toBe(0);
  });
});

test('interrupts: completions come by MSI-X', async () => {
  const { model, nvme, device } = await attached({}, { vectors: 3 });
  const memory = await device.dma.allocate(4096);
  const queues = [await nvme.createIoQueue(8), await nvme.createIoQueue(8)];
  await Promise.all(
    queues.map((queue, index) =>
      nvme.namespace(1).read(memory, { lba: index, blocks: 1, offset: index * 512, queue }),
    ),
  );
  await until(() => model.statistics.interrupts >= 2);
  await expect(nvme.createIoQueue(8)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
  await queues[0]!.close();
  const again = await nvme.createIoQueue(8);
  await nvme.namespace(1).read(memory, { lba: 0, blocks: 1, queue: again });
});
