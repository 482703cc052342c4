// SPDX-License-Identifier: MIT
import { MigratingModel } from '../server/migration-model';
import {
  bare,
  failure,
  fakeDevice,
  hex,
  join,
  servedDevice,
  sharedMemory,
  u32,
  u64,
  type Handlers,
} from './support';

const DMA_WRITE = 12;
const DEVICE_FEATURE = 16;
/** `VFIO_DEVICE_FEATURE_SET` with DMA_LOGGING_START and _STOP, `_GET` with _REPORT. */
const [START, STOP, REPORT] = [0x20006, 0x20007, 0x10008];

/** A device that answers a report with these bitmap bytes, and START with this page size. */
function logging(bitmap: Uint8Array, pageSize = 4096): Handlers {
  return {
    [DEVICE_FEATURE]: ({ payload }) => {
      const flags = Buffer.from(payload).readUInt32LE(4);
      if (flags === START) return join(u32(24, flags), u64(pageSize), u32(0, 0));
      return flags === REPORT ? join(u32(32 + bitmap.length, flags), payload.subarray(8), bitmap) : payload;
    },
  };
}

test.each([true, false])('what a device of ours writes, with direct DMA %p', async (directDma) => {
  const model = new MigratingModel();
  const device = await servedDevice(model, { dma: { directDma } });
  const [first, second] = [await device.dma.allocate(0x4000), await device.dma.allocate(0x2000)];
  expect(await device.dirtyLog.supported()).toBe(true);
  expect(await device.dirtyLog.start()).toBe(4096);
  await model.client?.memory.write(first.iova + 0x1000, hex('11'));
  await model.client?.memory.write(first.iova + 0x3fff, hex('2233'));
  expect([...(await device.dirtyLog.report(first.iova + 0x1000, 0x1000))]).toEqual([
    BigInt(first.iova + 0x1000),
  ]);
  expect([...(await device.dirtyLog.report(first.iova, 0x6000))]).toEqual([
    BigInt(first.iova + 0x3000),
    BigInt(second.iova),
  ]);
  expect((await device.dirtyLog.report(first.iova, 0x6000)).count).toBe(0);
  await model.client?.memory.write(first.iova + 0x2000, hex('11'));
  const coarse = await device.dirtyLog.report(first.iova, 0x4000, 0x2000);
  expect([coarse.pageSize, ...coarse]).toEqual([0x2000, BigInt(first.iova + 0x2000)]);
  await device.dirtyLog.stop();
  await expect(device.dirtyLog.report(first.iova, 0x1000)).rejects.toMatchObject({
    code: 'ERR_INVALID_ARG_VALUE',
  });
});

test('what is sent, and the merge with what came by message', async () => {
  const { device, server } = await fakeDevice(logging(hex('0200000000000000')));
  await device.dma.map({ iova: 0x8000, size: 0x3000 });
  const memory = await device.dma.allocate(0x3000);
  expect(await device.dirtyLog.start({ ranges: [{ iova: 0x1000, length: 0x2000 }] })).toBe(4096);
  await server.ask(DMA_WRITE, join(u64(memory.iova + 0x2ffe, 2), hex('1122')));
  const told = await device.dirtyLog.report(memory.iova, 0x3000);
  expect([...told]).toEqual([BigInt(memory.iova + 0x1000), BigInt(memory.iova + 0x2000)]);
  // A range without a descriptor is written by message only; the device, which cannot know it, is not asked.
  expect((await device.dirtyLog.report(0x8000, 0x3000)).count).toBe(0);
  await device.dirtyLog.stop();
  expect(server.payloads(DEVICE_FEATURE)).toEqual(
    [
      '28000000 06000200 0010000000000000 01000000 00000000 0010000000000000 0020000000000000',
      '28000000 08000100 0000000001000000 0030000000000000 0010000000000000',
      '18000000 07000200 0010000000000000 00000000 00000000',
    ].map(bare),
  );
});

test('the page size that the device chose is the one that is asked for', async () => {
  const { device, server } = await fakeDevice(logging(hex('0100000000000000'), 0x10000));
  const memory = await device.dma.allocate(0x2000);
  expect(await device.dirtyLog.start()).toBe(0x10000);
  expect([...(await device.dirtyLog.report(memory.iova, 0x2000, 0x1000))]).toEqual([
    BigInt(memory.iova),
    BigInt(memory.iova + 0x1000),
  ]);
  expect(server.payloads(DEVICE_FEATURE).at(-1)?.slice(-16)).toBe('0000010000000000');
});

test.each([0, 512, 4097])('a device that chooses pages of %i bytes is refused', async (pageSize) => {
  const { device } = await fakeDevice(logging(hex(''), pageSize));
  await expect(device.dirtyLog.start()).rejects.toMatchObject(
    failure('ERR_VFIO_USER_PROTOCOL', `logs pages of ${pageSize} bytes`),
  );
});

test('a device that chooses pages of petabytes costs no more than its memory', async () => {
  const { device } = await fakeDevice(logging(hex('0100000000000000'), 2 ** 52));
  const memory = await device.dma.allocate(0x2000);
  expect(await device.dirtyLog.start()).toBe(2 ** 52);
  expect((await device.dirtyLog.report(memory.iova, 0x2000, 4096)).count).toBe(2);
});

test('a range that needs more than one message', async () => {
  const sizes: number[] = [];
  const { device } = await fakeDevice({
    // max_data_xfer_size of 64 bytes: bitmaps of 512 pages.
    1: join(hex('00000100'), Buffer.from('{"capabilities":{"max_data_xfer_size":64}}\0')),
    [DEVICE_FEATURE]: ({ payload }) => {
      const flags = Buffer.from(payload).readUInt32LE(4);
      if (flags !== REPORT) return payload;
      const length = Number(Buffer.from(payload).readBigUInt64LE(16));
      sizes.push(length);
      const bitmap = new Uint8Array(Math.ceil(length / 4096 / 64) * 8).fill(0);
      bitmap[0] = 1;
      return join(u32(32 + bitmap.length, flags), payload.subarray(8), bitmap);
    },
  });
  const [iova, size] = [0x100_0000, 600 * 4096];
  await device.dma.map({ iova, size, fd: sharedMemory(size).fd });
  await device.dirtyLog.start();
  const told = await device.dirtyLog.report(iova, size);
  expect([...told]).toEqual([BigInt(iova), BigInt(iova + 512 * 4096)]);
  expect(sizes).toEqual([512 * 4096, 88 * 4096]);
});

test.each<[string, Uint8Array, string]>([
  ['another range', join(u32(40, REPORT), u64(0, 0x1000, 4096, 1)), 'does not repeat what was asked for'],
  [
    'a bitmap that is cut',
    join(u32(36, REPORT), u64(2 ** 32, 0x1000, 4096), u32(1)),
    '28 bytes, at least 32',
  ],
  ['nothing', new Uint8Array(0), '0 bytes, at least 8'],
  [
    'more than was asked for',
    join(u32(48, REPORT), u64(2 ** 32, 0x1000, 4096, 1, 1)),
    'at most 40 were asked for',
  ],
])('a hostile report: %s', async (_, answer, text) => {
  const { device } = await fakeDevice({
    [DEVICE_FEATURE]: ({ payload }) => (Buffer.from(payload).readUInt32LE(4) === REPORT ? answer : payload),
  });
  const memory = await device.dma.allocate(0x1000);
  expect(memory.iova).toBe(2 ** 32);
  await device.dirtyLog.start();
  await expect(device.dirtyLog.report(memory.iova, 0x1000)).rejects.toMatchObject(
    failure('ERR_VFIO_USER_PROTOCOL', text),
  );
});

test('a device that logs pages of no size, or not at all', async () => {
  const { device } = await fakeDevice(logging(hex(''), 3));
  await expect(device.dirtyLog.start()).rejects.toMatchObject(
    failure('ERR_VFIO_USER_PROTOCOL', 'pages of 3 bytes'),
  );
  const { device: other } = await fakeDevice({ [DEVICE_FEATURE]: 22 });
  expect(await other.dirtyLog.supported()).toBe(false);
  await expect(other.dirtyLog.start()).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_REMOTE',
    errnoName: 'EINVAL',
  });
  await other.dirtyLog.stop();
});

test('misuse', async () => {
  const { device, server } = await fakeDevice(logging(hex('')));
  for (const pageSize of [0, 512, 5000, -4096, NaN])
    await expect(device.dirtyLog.start({ pageSize })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
    });
  await expect(device.dirtyLog.report(0, 4096)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
  expect(server.count(DEVICE_FEATURE)).toBe(0);
  await device.dirtyLog.start();
  await expect(device.dirtyLog.start()).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
  await expect(device.dirtyLog.report(-1, 4096)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
  await expect(device.dirtyLog.report(0, 0)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
  await expect(device.dirtyLog.report(0, 4096, 3)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
  await device.dirtyLog.stop();
  const flags = server.payloads(DEVICE_FEATURE).map((text) => Buffer.from(text, 'hex').readUInt32LE(4));
  expect(flags).toEqual([START, STOP]);
});
