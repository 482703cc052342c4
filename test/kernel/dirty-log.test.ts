// SPDX-License-Identifier: MIT
/** Which pages a device has written, in the three ways of the kernel. The bytes are those of its headers (see fake-vfio.c). */
import { FakeKernel, testWithKernel } from './fake-kernel';

/** A 64-bit word as the kernel reads it, in hexadecimal. */
const word = (value: number): string => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes.toString('hex');
};
const KIB64 = 0x1_0000;

/** Memory at 1 MiB and behind it, mapped as two ranges of 64 KiB, and another at 4 MiB after the log was begun. */
const LOG = (through: string): string => `
  const { DmaContainer } = load('dma/container');
  const dma = new DmaContainer();
  const memory = createSharedMemory(0x40000);
  const device = await open({ through: '${through}', dma });
  const map = (iova, offset) => dma.map({ fd: memory, fdOffset: offset, iova, size: 0x10000 });
  await map(0x100000, 0);
  await map(0x110000, 0x10000);
  say(await device.dirtyLog.supported());
  say(await device.dirtyLog.start());
  await failure(device.dirtyLog.start());
  await map(0x400000, 0x20000);
  const report = async (iova, length) => say([...await device.dirtyLog.report(iova, length)].map((page) => '0x' + page.toString(16)));
  await report(0x100000, 0x10000);
  await report(0x400000, 0x4000);
  await device.dirtyLog.stop();
  await failure(device.dirtyLog.report(0x100000, 0x1000));
  await device.dirtyLog.start();
  await device.close();
  dma.close();`;

const TWICE = {
  code: 'ERR_INVALID_ARG_VALUE',
  message: '0000:01:00.0 logs dirty pages already; stop that before it is started again',
};
const NOT_STARTED = {
  code: 'ERR_INVALID_ARG_VALUE',
  message: '0000:01:00.0 does not log dirty pages; start that first',
};
const about = (asked: readonly string[], names: RegExp): string[] => asked.filter((line) => names.test(line));

testWithKernel.each(['group', 'iommufd'])('as the device itself logs, opened through its %s', (through) => {
  using kernel = new FakeKernel();
  const { said, asked } = kernel.run(LOG(through), { lacks: through === 'group' ? 'IOMMU_LOGGING' : '' });
  expect(said).toEqual([
    true,
    // It was asked for pages of 4 KiB, and chose others.
    8192,
    TWICE,
    ['0x102000', '0x10e000'],
    // Nobody has logged what was mapped later: it counts as written.
    ['0x400000', '0x402000'],
    NOT_STARTED,
  ]);
  // struct vfio_device_feature and vfio_device_feature_dma_logging_control: argsz 32, SET of feature 6, pages of 4096 bytes.
  const start = (ranges: number): string =>
    `DMA_LOGGING_START 2000000006000200${word(4096)}${word(ranges)}[pointer]`;
  const report = (iova: number): string =>
    `DMA_LOGGING_REPORT 2800000008000100${word(iova)}${word(KIB64)}${word(8192)}[pointer]`;
  expect(about(asked, /^(DMA_LOGGING|ranges|DIRTY|HWPT)/)).toEqual([
    start(1),
    `ranges ${word(0x100000)}${word(2 * KIB64)}`,
    report(0x100000),
    'DMA_LOGGING_STOP 0800000007000200',
    start(2),
    `ranges ${word(0x100000)}${word(2 * KIB64)}${word(0x400000)}${word(KIB64)}`,
  ]);
});

testWithKernel('ranges that are named are logged, and no others reported', () => {
  using kernel = new FakeKernel();
  const { said, asked } = kernel.run(`
    const { DmaContainer } = load('dma/container');
    const dma = new DmaContainer();
    const device = await open({ through: 'group', dma });
    await failure(device.dirtyLog.start());
    const memory = createSharedMemory(0x20000);
    await dma.map({ fd: memory, iova: 0x100000, size: 0x20000 });
    await device.dirtyLog.start({ pageSize: 65536, ranges: [{ iova: 0x110000, length: 0x80000 }] });
    say([...await device.dirtyLog.report(0x100000, 0x20000)]);
    await device.close();
    dma.close();`);
  expect(said).toEqual([
    { code: 'ERR_VFIO_USER_DMA', message: expect.stringMatching(/^nothing is mapped for 0000:01:00.0/) },
    ['0x110000'],
  ]);
  expect(asked).toContain(`ranges ${word(0x110000)}${word(0x80000)}`);
  expect(asked).toContain(
    `DMA_LOGGING_REPORT 2800000008000100${word(0x110000)}${word(KIB64)}${word(KIB64)}[pointer]`,
  );
});

testWithKernel('as the container of its group logs, by its smallest page', () => {
  using kernel = new FakeKernel();
  const { said, asked } = kernel.run(LOG('group'), { lacks: 'LOGGING' });
  expect(said).toEqual([true, 4096, TWICE, ['0x101000', '0x10f000'], ['0x401000'], NOT_STARTED]);
  const report = (iova: number): string =>
    `DIRTY_PAGES 3000000004000000${word(iova)}${word(KIB64)}${word(4096)}${word(8)}[pointer]`;
  const [start, stop] = ['DIRTY_PAGES 0800000001000000', 'DIRTY_PAGES 0800000002000000'];
  expect(about(asked, /^(DMA_LOGGING|DIRTY|HWPT)/)).toEqual([
    start,
    report(0x100000),
    report(0x400000),
    stop,
    start,
    // The device is closed while it logs.
    stop,
  ]);
});

testWithKernel('the log of a container is for one of its devices', () => {
  using kernel = new FakeKernel();
  const { said } = kernel.run(
    `const { DmaContainer } = load('dma/container');
     const dma = new DmaContainer();
     const first = await open({ through: 'group', dma });
     const second = await open({ through: 'group', dma });
     const memory = createSharedMemory(0x10000);
     await dma.map({ fd: memory, iova: 0x100000, size: 0x10000 });
     await first.dirtyLog.start();
     await failure(second.dirtyLog.start());
     await first.close();
     say(await second.dirtyLog.start());
     await second.close();
     dma.close();`,
    { lacks: 'LOGGING' },
  );
  expect(said).toEqual([
    { code: 'ERR_VFIO_USER_UNSUPPORTED', message: expect.stringMatching(/^the container has one log/) },
    4096,
  ]);
});

testWithKernel('as the IOMMU of an iommufd logs, in a page table of the device’s own', () => {
  using kernel = new FakeKernel();
  const { said, asked } = kernel.run(LOG('iommufd'), { lacks: 'LOGGING' });
  expect(said).toEqual([true, 4096, TWICE, ['0x101000', '0x10f000'], ['0x401000'], NOT_STARTED]);
  const report = (iova: number): string =>
    `HWPT_GET_DIRTY_BITMAP 30000000070000000000000000000000${word(iova)}${word(KIB64)}${word(4096)}[pointer]`;
  // struct iommu_hwpt_alloc: size 40, DIRTY_TRACKING, device 1, space 2.
  const begin = [
    `HWPT_ALLOC 28000000020000000100000002000000${'00'.repeat(24)}`,
    'ATTACH 0c0000000000000007000000',
    'HWPT_SET_DIRTY_TRACKING 10000000010000000700000000000000',
  ];
  expect(about(asked, /^(GET_HW|ATTACH|DMA_LOGGING|DIRTY|HWPT|IOMMU_DESTROY)/)).toEqual([
    'ATTACH 0c0000000000000002000000',
    `GET_HW_INFO 280000000000000001000000${'00'.repeat(28)}`,
    ...begin,
    report(0x100000),
    report(0x400000),
    'ATTACH 0c0000000000000002000000',
    'IOMMU_DESTROY 0800000007000000',
    ...begin,
    'IOMMU_DESTROY 0800000007000000',
  ]);
});

testWithKernel.each([
  ['group', {}],
  ['iommufd', {}],
  // Linux before 6.7 does not know the question.
  ['iommufd', { fail: 'GET_HW_INFO=25' }],
])('where nobody logs, it is told: %s %j', (through, faults) => {
  using kernel = new FakeKernel();
  const { said } = kernel.run(
    `const device = await open({ through: '${through}' });
     say(await device.dirtyLog.supported());
     await failure(device.dirtyLog.start());
     await device.close();`,
    { lacks: 'LOGGING IOMMU_LOGGING', ...faults },
  );
  expect(said).toEqual([
    false,
    {
      code: 'ERR_VFIO_USER_UNSUPPORTED',
      message: 'neither 0000:01:00.0 nor its IOMMU logs the pages that it writes; take all pages for dirty',
    },
  ]);
});

testWithKernel('a page table that is refused leaves all as it was', () => {
  using kernel = new FakeKernel();
  const { said, asked } = kernel.run(
    `const device = await open({ through: 'iommufd' });
     await device.dma.allocate(4096);
     await failure(device.dirtyLog.start());
     await failure(device.dirtyLog.report(0, 4096));
     await device.close();`,
    { lacks: 'LOGGING', fail: 'HWPT_ALLOC=95' },
  );
  expect(said).toEqual([
    { code: 'ERR_VFIO_USER_SYSTEM', message: expect.stringMatching(/^IOMMU_HWPT_ALLOC .*ENOTSUP/) },
    NOT_STARTED,
  ]);
  expect(about(asked, /^(ATTACH|HWPT_SET|IOMMU_DESTROY)/)).toHaveLength(1);
});
