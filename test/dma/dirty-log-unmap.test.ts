// SPDX-License-Identifier: MIT
import { DmaContainer } from '../../lib/dma/container';
import { Feature, encodeDmaLoggingControl } from '../../lib/protocol';
import { type ClientRange } from '../../lib/server';
import { MigratingModel } from '../server/migration-model';
import {
  DMA_MAP,
  DMA_UNMAP,
  DMA_WRITE,
  VERSION,
  atEnd,
  bare,
  failure,
  fakeDevice,
  hex,
  join,
  servedDevice,
  sharedMemory,
  u32,
  u64,
  version,
  type Answer,
  type Handlers,
  type Heard,
} from '../client/support';

const DEVICE_FEATURE = 16;
const PAGE = 4096;
const [EBUSY, EINVAL, ENOENT] = [16, 22, 2];

/** A device that stores once more when it is told to let go of a range. */
class LateWriter extends MigratingModel {
  last: number | undefined;

  override async unmapping(range: ClientRange): Promise<void> {
    await super.unmapping(range);
    if (this.last !== undefined) await this.client?.memory.write(this.last, hex('55'));
  }
}

/** A reply as libvfio-user's: the 40 bytes of the request, then the bitmap. */
const bitmapReply = ({ payload }: Heard, bitmap: Uint8Array): Uint8Array =>
  payload.length === 40 ? join(payload, bitmap) : payload;

/** A device that logs pages of this size, and answers a DMA_UNMAP that asks for a bitmap so. */
const logging = (answer: (heard: Heard) => Answer, pageSize = PAGE): Handlers => ({
  [DEVICE_FEATURE]: ({ payload }) => join(payload.subarray(0, 8), u64(pageSize), u32(0, 0)),
  [DMA_UNMAP]: (heard) => (heard.payload[4] === 1 ? answer(heard) : heard.payload),
});

describe.each([true, false])('against a device of ours, with direct DMA %p', (directDma) => {
  test('what it wrote, until it let go', async () => {
    const model = new LateWriter();
    const device = await servedDevice(model, { dma: { directDma } });
    const memory = await device.dma.allocate(4 * PAGE);
    await device.dirtyLog.start();
    await model.client?.memory.write(memory.iova + PAGE, hex('11'));
    model.last = memory.iova + 3 * PAGE;
    const dirty = await device.dma.unmapAndReport(memory.iova, memory.size);
    expect([...dirty]).toEqual([BigInt(memory.iova + PAGE), BigInt(memory.iova + 3 * PAGE)]);
    expect([dirty.iova, dirty.length, dirty.pageSize]).toEqual([BigInt(memory.iova), memory.size, PAGE]);
    expect([device.dma.ranges, model.ranges, memory.buffer.byteLength]).toEqual([[], [], 0]);
    await memory.close();
    // The same address is clean when it is mapped anew.
    model.last = undefined;
    await device.dma.map({ iova: memory.iova, size: memory.size, fd: sharedMemory(memory.size).fd });
    expect((await device.dma.unmapAndReport(memory.iova, memory.size)).count).toBe(0);
  });
});

test('a device of ours that does not log refuses, and the range stays', async () => {
  const model = new MigratingModel();
  const device = await servedDevice(model);
  const memory = await device.dma.allocate(PAGE);
  await device.dirtyLog.start();
  // Behind the back of our log, which asks nothing while it is stopped itself.
  await device.feature.set(Feature.dmaLoggingStop, encodeDmaLoggingControl({ pageSize: PAGE, ranges: [] }));
  await expect(device.dma.unmapAndReport(memory.iova, PAGE)).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_REMOTE',
    errnoName: 'ENOTSUP',
  });
  expect(model.ranges.length).toBe(1);
  await memory.close();
});

test('what is sent, and the merge with what came by message', async () => {
  const { device, server } = await fakeDevice(
    logging((heard) => bitmapReply(heard, hex('0200000000000000'))),
  );
  const memory = await device.dma.allocate(4 * PAGE);
  await device.dirtyLog.start();
  await server.ask(DMA_WRITE, join(u64(memory.iova + 3 * PAGE, 2), hex('1122')));
  const dirty = await device.dma.unmapAndReport(memory.iova, memory.size);
  expect([...dirty.pages()]).toEqual([1, 3]);
  // libvfio-user include/vfio-user.h, struct vfio_user_dma_unmap: u32 argsz (40 and the bitmap), u32 flags (bit 0,
  // VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP), u64 addr, u64 size; struct vfio_user_bitmap: u64 pgsize, u64 size.
  expect(server.payloads(DMA_UNMAP)).toEqual([
    bare('30000000 01000000 0000000001000000 0040000000000000 0010000000000000 0800000000000000'),
  ]);
});

test('a range that the device cannot map is taken without a bitmap', async () => {
  const { device, server } = await fakeDevice(logging(() => EINVAL));
  await device.dma.map({ iova: 0x8000, size: 2 * PAGE, fd: sharedMemory(2 * PAGE).fd, direct: false });
  await device.dirtyLog.start();
  await server.ask(DMA_WRITE, join(u64(0x9000, 1), hex('11')));
  expect([...(await device.dma.unmapAndReport(0x8000, 2 * PAGE))]).toEqual([0x9000n]);
  expect(server.payloads(DMA_UNMAP)).toEqual([bare('18000000 00000000 0080000000000000 0020000000000000')]);
});

test('the device is asked at the granularity of its log, the caller is told at the one that he wants', async () => {
  const { device, server } = await fakeDevice(
    logging((heard) => bitmapReply(heard, hex('0200000000000000')), 0x10000),
  );
  const options = { iova: 0, size: 0x20000, fd: sharedMemory(0x20000).fd };
  await device.dma.map(options);
  await device.dirtyLog.start();
  expect((await device.dma.unmapAndReport(0, 0x20000)).pageSize).toBe(0x10000);
  await device.dma.map(options);
  const dirty = await device.dma.unmapAndReport(0, 0x20000, 0x8000);
  expect([...dirty]).toEqual([0x10000n, 0x18000n]);
  expect(server.payloads(DMA_UNMAP).map((text) => text.slice(48, 64))).toEqual(
    Array.from({ length: 2 }, () => '0000010000000000'),
  );
});

describe('nothing is sent', () => {
  test('for what makes no sense', async () => {
    const { device, server } = await fakeDevice(logging(() => EINVAL));
    const { iova } = await device.dma.allocate(2 * PAGE);
    await expect(device.dma.unmapAndReport(iova, 2 * PAGE)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
      message: expect.stringContaining('does not log dirty pages'),
    });
    await device.dirtyLog.start();
    for (const pageSize of [0, 3, -PAGE, NaN])
      await expect(device.dma.unmapAndReport(iova, 2 * PAGE, pageSize)).rejects.toMatchObject({
        code: 'ERR_INVALID_ARG_VALUE',
      });
    await expect(device.dma.unmapAndReport(iova, PAGE)).rejects.toMatchObject(
      failure('ERR_VFIO_USER_DMA', 'is not mapped'),
    );
    await device.dirtyLog.stop();
    await expect(device.dma.unmapAndReport(iova, 2 * PAGE)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
    });
    expect([server.count(DMA_UNMAP), device.dma.ranges.length]).toEqual([0, 1]);
  });

  test('for a bitmap that the server cannot send', async () => {
    const { device, server } = await fakeDevice({
      ...logging((heard) => bitmapReply(heard, new Uint8Array(24))),
      // 40 bytes and bitmaps of up to 192 pages.
      [VERSION]: version('{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":64}}'),
    });
    const [fits, over] = [192 * PAGE, 193 * PAGE];
    for (const [iova, size] of [
      [0, fits],
      [fits, over],
    ] as const)
      await device.dma.map({ iova, size, fd: sharedMemory(size).fd });
    await device.dirtyLog.start();
    await expect(device.dma.unmapAndReport(fits, over)).rejects.toMatchObject(
      failure('ERR_VFIO_USER_DMA', 'dirty bitmap of 32 bytes'),
    );
    expect(server.count(DMA_UNMAP)).toBe(0);
    expect((await device.dma.unmapAndReport(0, fits)).count).toBe(0);
  });

  test('when one of two devices does not log', async () => {
    const dma = new DmaContainer();
    atEnd(() => {
      dma.close();
    });
    const [first, second] = [
      await fakeDevice(
        logging(() => EINVAL),
        { dma },
      ),
      await fakeDevice({}, { dma }),
    ];
    const { iova } = await dma.allocate(PAGE);
    await first.device.dirtyLog.start();
    await expect(dma.unmapAndReport(iova, PAGE)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
    expect([first.server.count(DMA_UNMAP), second.server.count(DMA_UNMAP)]).toEqual([0, 0]);
  });
});

test('a container without devices', async () => {
  const dma = new DmaContainer();
  const { iova } = await dma.allocate(PAGE);
  expect(await dma.unmapAndReport(iova, PAGE)).toMatchObject({ count: 0, pageSize: PAGE });
  expect(dma.ranges).toEqual([]);
  dma.close();
});

test.each([EINVAL, EBUSY, 95])(
  'errno %p to the flag: the range stays, and so does the log',
  async (errno) => {
    const { device, server } = await fakeDevice(logging(() => errno));
    const memory = await device.dma.allocate(2 * PAGE);
    await device.dirtyLog.start();
    await server.ask(DMA_WRITE, join(u64(memory.iova + PAGE, 1), hex('77')));
    await expect(device.dma.unmapAndReport(memory.iova, memory.size)).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_REMOTE',
      errno,
    });
    expect(new Uint8Array(memory.buffer)[PAGE]).toBe(0x77);
    await memory.close();
    expect((await device.dirtyLog.report(memory.iova, memory.size)).count).toBe(1);
  },
);

test.each<[string, (heard: Heard) => Uint8Array, string]>([
  ['nothing', () => new Uint8Array(0), 'without the dirty bitmap'],
  ['no bitmap', ({ payload }) => payload, 'without the dirty bitmap'],
  ['the entry alone', ({ payload }) => join(u32(24), payload.subarray(4, 24)), 'at least 40'],
  ['half an entry', ({ payload }) => payload.subarray(0, 12), 'at least 24'],
  ['a bitmap that is cut', (heard) => join(u32(44), bitmapReply(heard, u32(0)).subarray(4)), 'at least 48'],
  [
    'a bitmap of 12 bytes',
    ({ payload }) => join(u32(52), payload.subarray(4, 32), u64(12, 0), u32(0)),
    'at most 48',
  ],
  [
    'a size that is no number of words',
    ({ payload }) => join(payload.subarray(0, 32), u64(4, 0)),
    'bitmap of 4 bytes, 8',
  ],
  [
    'a size beyond reason',
    ({ payload }) => join(payload.subarray(0, 32), u64(2n ** 60n, 0)),
    /bitmap size/.source,
  ],
  ['another page size', ({ payload }) => join(payload.subarray(0, 24), u64(8192, 8, 0)), 'were asked for'],
  [
    'another range',
    ({ payload }) => join(payload.subarray(0, 8), u64(0x1000, PAGE, PAGE, 8, 0)),
    'were asked for',
  ],
  ['more than that', (heard) => bitmapReply(heard, u64(1, 1)), 'at most 48'],
])('a hostile reply, %s: the range stays until another unmap tells', async (_, answer, text) => {
  const { device, server } = await fakeDevice({
    ...logging(() => 0),
    [DMA_UNMAP]: (heard) => (heard.payload[4] === 1 ? answer(heard) : ENOENT),
  });
  const memory = await device.dma.allocate(PAGE);
  await device.dirtyLog.start();
  await expect(device.dma.unmapAndReport(memory.iova, PAGE)).rejects.toMatchObject(
    failure('ERR_VFIO_USER_PROTOCOL', new RegExp(text)),
  );
  expect([device.dma.ranges.length, memory.buffer.byteLength]).toEqual([1, PAGE]);
  await expect(device.dma.unmap(memory.iova, PAGE)).rejects.toMatchObject({ errnoName: 'ENOENT' });
  expect([device.dma.ranges.length, memory.buffer.byteLength, server.count(DMA_UNMAP)]).toEqual([0, 0, 2]);
});

test('bits beyond the range are no pages', async () => {
  const { device } = await fakeDevice(logging((heard) => bitmapReply(heard, new Uint8Array(8).fill(0xff))));
  const memory = await device.dma.allocate(3 * PAGE);
  await device.dirtyLog.start();
  expect((await device.dma.unmapAndReport(memory.iova, memory.size)).count).toBe(3);
});

test('a server that goes away: an error, and the memory is free', async () => {
  const { device } = await fakeDevice(logging(() => 'close'));
  const memory = await device.dma.allocate(PAGE);
  await device.dirtyLog.start();
  await expect(device.dma.unmapAndReport(memory.iova, PAGE)).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_DISCONNECTED',
  });
  expect([device.dma.ranges.length, memory.buffer.byteLength]).toEqual([0, 0]);
  await expect(device.dma.unmapAndReport(memory.iova, PAGE)).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_DMA',
  });
});

test('a device that has gone before is no clean one', async () => {
  const { device, server } = await fakeDevice(logging(() => EINVAL));
  const memory = await device.dma.allocate(PAGE);
  await device.dirtyLog.start();
  const closed = new Promise((resolve) => device.once('close', resolve));
  server.close();
  await closed;
  await expect(device.dma.unmapAndReport(memory.iova, PAGE)).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_DISCONNECTED',
  });
});

describe('two devices with one container', () => {
  test('both tell', async () => {
    const dma = new DmaContainer();
    atEnd(() => {
      dma.close();
    });
    const [coarse, fine] = [
      await fakeDevice(
        logging((heard) => bitmapReply(heard, hex('0100000000000000')), 8192),
        { dma },
      ),
      await fakeDevice(
        logging((heard) => bitmapReply(heard, hex('0800000000000000'))),
        { dma },
      ),
    ];
    const { iova, size } = await dma.allocate(6 * PAGE);
    for (const { device } of [coarse, fine]) await device.dirtyLog.start();
    const dirty = await dma.unmapAndReport(iova, size);
    expect([dirty.pageSize, ...dirty.pages()]).toEqual([PAGE, 0, 1, 3]);
  });

  test('what one told is not lost when the other refuses', async () => {
    const dma = new DmaContainer();
    atEnd(() => {
      dma.close();
    });
    const told = await fakeDevice(
      logging((heard) => bitmapReply(heard, hex('0100000000000000'))),
      { dma },
    );
    const refuses = await fakeDevice(
      logging(() => EBUSY),
      { dma },
    );
    const { iova } = await dma.allocate(PAGE);
    for (const { device } of [told, refuses]) await device.dirtyLog.start();
    await expect(dma.unmapAndReport(iova, PAGE)).rejects.toMatchObject({ errnoName: 'EBUSY' });
    expect(dma.ranges.length).toBe(1);
    await dma.unmap(iova, PAGE);
    expect((await told.device.dirtyLog.report(iova, PAGE)).count).toBe(1);
  });
});

test('two at once: the second unmap waits for the first, and reports nothing of its own', async () => {
  const { device, server } = await fakeDevice(
    logging((heard) => bitmapReply(heard, hex('0100000000000000'))),
  );
  const { iova } = await device.dma.allocate(PAGE);
  await device.dirtyLog.start();
  const [first, second, third] = await Promise.allSettled([
    device.dma.unmapAndReport(iova, PAGE),
    device.dma.unmapAndReport(iova, PAGE),
    device.dma.unmap(iova, PAGE),
  ]);
  expect(first).toMatchObject({ status: 'fulfilled', value: { count: 1 } });
  expect(second).toMatchObject({ status: 'rejected', reason: { code: 'ERR_VFIO_USER_DMA' } });
  expect(third).toMatchObject({ status: 'fulfilled' });
  expect([server.count(DMA_UNMAP), server.count(DMA_MAP)]).toEqual([1, 1]);
});
