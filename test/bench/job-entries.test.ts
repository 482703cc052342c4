// SPDX-License-Identifier: MIT
/** Data pointers in the submission entries of a job. */
import { dataShift } from '../../lib/bench/data-pointers';
import { BASE, DATA, LISTS, finish, world } from './fake-device';

/** PSDT and words 6 to 9 of the entry of each command id. */
function pointers(blockSize: number, sgl: boolean, depth = 3) {
  const { run, device } = world({ blockSize, sgl, depth, ioBlocks: depth, workload: 'write', verify: true });
  finish(run);
  expect(run.result).toMatchObject({ errors: 0, verified: depth, mismatches: 0 });
  const byCid = new Map(device.log.map(({ cid, psdt, pointer }) => [cid, [psdt, ...pointer]]));
  const words = (offset: number, count: number): number[] => [
    ...new Uint32Array(device.memory, offset, count),
  ];
  return { entries: Array.from({ length: depth }, (_, cid) => byCid.get(cid)), words };
}

test('the memory is where the golden words below have it', () => {
  expect([BASE, DATA, LISTS]).toEqual([0x2_0000_0000, 0x4_0000, 0x1_0000]);
});

test('more than two pages, to a controller that takes SGLs: an SGL Data Block descriptor each, no list', () => {
  // NVMe base 2.0, 4.1.2.1: address in words 0 and 1, length in word 2, SGL identifier 00h in the last byte. PSDT 01b.
  const { entries, words } = pointers(131072, true);
  expect(entries).toEqual([
    [1, 0x0004_0000, 2, 0x0002_0000, 0],
    [1, 0x0006_0000, 2, 0x0002_0000, 0],
    [1, 0x0008_0000, 2, 0x0002_0000, 0],
  ]);
  expect(words(LISTS, 3 * 1024).every((word) => word === 0)).toBe(true);
  expect(pointers(12288, true).entries).toEqual([
    [1, 0x0004_0000, 2, 0x3000, 0],
    [1, 0x0004_3000, 2, 0x3000, 0],
    [1, 0x0004_6000, 2, 0x3000, 0],
  ]);
});

test('one page and two, to a controller that takes SGLs: the same', () => {
  expect(pointers(512, true).entries).toEqual([
    [1, 0x0004_0000, 2, 0x200, 0],
    [1, 0x0004_0200, 2, 0x200, 0],
    [1, 0x0004_0400, 2, 0x200, 0],
  ]);
  expect(pointers(8192, true).entries).toEqual([
    [1, 0x0004_0000, 2, 0x2000, 0],
    [1, 0x0004_2000, 2, 0x2000, 0],
    [1, 0x0004_4000, 2, 0x2000, 0],
  ]);
});

test('one page and two, to a controller that takes none: PRPs', () => {
  // NVMe base 2.0, 4.1.1: PRP2 is 0 for one page, the second page for two.
  expect(pointers(4096, false).entries).toEqual([
    [0, 0x0004_0000, 2, 0, 0],
    [0, 0x0004_1000, 2, 0, 0],
    [0, 0x0004_2000, 2, 0, 0],
  ]);
  expect(pointers(8192, false).entries).toEqual([
    [0, 0x0004_0000, 2, 0x0004_1000, 2],
    [0, 0x0004_2000, 2, 0x0004_3000, 2],
    [0, 0x0004_4000, 2, 0x0004_5000, 2],
  ]);
  expect(pointers(512, false).entries).toEqual([
    [0, 0x0004_0000, 2, 0, 0],
    [0, 0x0004_0200, 2, 0, 0],
    [0, 0x0004_0400, 2, 0, 0],
  ]);
});

test('more than two pages, to a controller that takes none: PRP lists, a page apart', () => {
  const { entries, words } = pointers(12288, false, 2);
  expect(entries).toEqual([
    [0, 0x0004_0000, 2, 0x0001_0000, 2],
    [0, 0x0004_3000, 2, 0x0001_1000, 2],
  ]);
  expect(words(LISTS, 6)).toEqual([0x0004_1000, 2, 0x0004_2000, 2, 0, 0]);
  expect(words(LISTS + 4096, 6)).toEqual([0x0004_4000, 2, 0x0004_5000, 2, 0, 0]);
});

test.each([true, false])(
  'blocks of 7 KiB, which begin inside pages: data is where it belongs (SGLs: %s)',
  (sgl) => {
    pointers(7168, sgl, 8);
  },
);

test('data begins in the middle of a page where a copy of it is that of two pages at most, and SGLs describe it', () => {
  expect([512, 4096, 8192, 12288, 131072].map((size) => dataShift(size, true))).toEqual([
    2048, 2048, 2048, 0, 0,
  ]);
  expect(dataShift(4096, false)).toBe(0);
  const { run, device } = world({
    dataOffset: DATA + 2048,
    sgl: true,
    depth: 2,
    ioBlocks: 2,
    workload: 'write',
    verify: true,
  });
  finish(run);
  expect(run.result).toMatchObject({ errors: 0, verified: 2, mismatches: 0 });
  expect([...new Map(device.log.map(({ cid, pointer }) => [cid, pointer])).values()].sort()).toEqual([
    [0x0004_0800, 2, 0x1000, 0],
    [0x0004_1800, 2, 0x1000, 0],
  ]);
});
