// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { DirtyBitmap, DirtyPages } from '../../lib/protocol';
import { hex, toHex } from './support';

// vfio-user, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: an array of u64s, one bit a page, the first page the lowest bit.
test('a bitmap', () => {
  const bitmap = new DirtyBitmap(0x10_0000, 66 * 4096, 4096, hex('0180000000000000 02ffffffffffffff'));
  expect([...bitmap]).toEqual([0x10_0000n, 0x10_f000n, 0x14_1000n]);
  expect(bitmap.count).toBe(3);
  expect(bitmap.has(0x10_0fff)).toBe(true);
  expect(bitmap.has(0x10_1000n)).toBe(false);
  expect(bitmap.has(0xf_ffff)).toBe(false);
  expect(bitmap.has(0x14_2000)).toBe(false);
});

test('marks end with the range', () => {
  const bitmap = new DirtyBitmap(0, 3 * 4096, 4096);
  bitmap.mark(-10, 5);
  bitmap.mark(3 * 4096, 1);
  expect(bitmap.count).toBe(0);
  bitmap.mark(-4096, 4097);
  bitmap.mark(8192, 1 << 20);
  expect(toHex(bitmap.bytes)).toBe('0500000000000000');
});

test('pages are taken once', () => {
  const pages = new DirtyPages(4096);
  pages.mark(0x1fff, 2);
  pages.mark(0xffff_ffff_ffff_ffffn, 1);
  pages.mark(0x5000, 0);
  expect(toHex(pages.take(0, 0x8000, 4096).bytes)).toBe('0600000000000000');
  expect(pages.take(0, 0x8000, 4096).count).toBe(0);
  expect([...pages.take(0xffff_ffff_ffff_0000n, 0x1_0000, 4096)]).toEqual([0xffff_ffff_ffff_f000n]);
  expect([...pages.take(0xffff_ffff_ffff_0000n, 0x1_0000, 4096)]).toEqual([]);
});

test('a page that is asked for in part stays dirty', () => {
  const pages = new DirtyPages(0x10000);
  pages.mark(0x1_8000, 1);
  expect([...pages.take(0x1_2000, 0x3000, 0x1000)]).toEqual([0x1_2000n, 0x1_3000n, 0x1_4000n]);
  expect([...pages.take(0x1_0000, 0x10000, 0x10000)]).toEqual([0x1_0000n]);
  expect([...pages.take(0x1_0000, 0x10000, 0x10000)]).toEqual([]);
});

test('a bit for more than a page', () => {
  const pages = new DirtyPages(4096);
  pages.mark(0x3000, 1);
  pages.mark(0x7fff, 1);
  expect([...pages.take(0x1000, 0x8000, 0x4000)]).toEqual([0x1000n, 0x5000n]);
});

test('small pages are kept as pages of 4 KiB', () => {
  const pages = new DirtyPages(512);
  expect(pages.pageSize).toBe(4096);
});

test('what is cleared and what is merged', () => {
  const pages = new DirtyPages(4096);
  pages.mark(0, 0x4000);
  pages.clear(0x1000, 0x1001);
  pages.clear(0x3000, 0);
  expect([...pages.take(0, 0x4000, 4096)]).toEqual([0n, 0x3000n]);
  pages.merge(new DirtyBitmap(0x100_0000, 0x2000, 0x1000, hex('0200000000000000')));
  expect([...pages.take(0x100_0000, 0x2000, 0x1000)]).toEqual([0x100_1000n]);
});

test('a huge range costs no more than what is dirty', () => {
  const pages = new DirtyPages(4096);
  pages.mark(0x8000_0000_0000, 1);
  const bitmap = pages.take(0, 2 ** 53 - 1, 2 ** 50);
  expect([...bitmap]).toEqual([0n]);
});

test('a range of whole bytes of bits, across blocks, leaves the pages beside it dirty', () => {
  const pages = new DirtyPages(4096);
  const block = 32768 * 4096;
  const eight = 8 * 4096;
  for (const at of [block - eight - 4096, block - eight, block - 4096, block + 4096, block + eight])
    pages.mark(at, 1);
  const told = pages.take(block - eight, 2 * eight, 4096);
  expect([...told]).toEqual([block - eight, block - 4096, block + 4096].map(BigInt));
  expect(pages.take(block - eight, 2 * eight, 4096).count).toBe(0);
  expect([...pages.take(0, 2 * block, 4096)]).toEqual([BigInt(block - eight - 4096), BigInt(block + eight)]);
});

test('when more blocks are dirty than may be, all pages are, and nothing is kept of them', () => {
  const pages = new DirtyPages(4096, 2);
  const block = 32768 * 4096;
  pages.mark(0, 1);
  pages.mark(5 * block, 1);
  pages.mark(5 * block + 8192, 1);
  expect(pages.take(0, 0x4000, 4096).count).toBe(1);
  // Nothing of the first block is dirty any more, so there is room for another.
  pages.mark(7 * block, 1);
  expect([...pages.take(5 * block, 0x4000, 4096)]).toEqual([BigInt(5 * block), BigInt(5 * block + 8192)]);
  for (const at of [1, 2, 3]) pages.mark(at * block, 1);
  pages.clear(0, 10 * block);
  for (let round = 0; round < 2; round++)
    expect(toHex(pages.take(9 * block, 3 * 4096, 4096).bytes)).toBe('0700000000000000');
});

test('every byte that was written is on a page that is told', () => {
  const write = fc.record({ at: fc.nat(1 << 18), length: fc.integer({ min: 1, max: 1 << 15 }) });
  fc.assert(
    fc.property(
      fc.array(write, { maxLength: 20 }),
      fc.constantFrom(4096, 8192, 65536),
      fc.bigInt(0n, 1n << 51n),
      (writes, unit, base) => {
        const start = base * 4096n;
        const pages = new DirtyPages(4096);
        for (const { at, length } of writes) pages.mark(start + BigInt(at), length);
        const told = pages.take(start, 1 << 19, unit);
        const expected = new Set<bigint>();
        for (const { at, length } of writes) {
          for (let page = Math.floor(at / unit); page * unit < at + length; page++)
            expected.add(start + BigInt(page * unit));
        }
        expect(new Set(told)).toEqual(expected);
        expect(pages.take(start, 1 << 19, unit).count).toBe(0);
      },
    ),
    { numRuns: 100 },
  );
});
