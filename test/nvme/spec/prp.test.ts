// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { GenericStatus, buildPrp, prpListLength, storePrp, walkPrp } from '../../../lib/nvme/spec';

const PAGE = 4096;

test('one page, two pages, a list', () => {
  expect(buildPrp(0x10010, 0x100, PAGE)).toEqual({ prp1: 0x10010, prp2: 0, list: [] });
  expect(buildPrp(0x10800, 0x1000, PAGE)).toEqual({ prp1: 0x10800, prp2: 0x11000, list: [] });
  expect(buildPrp(0x10800, 0x1800, PAGE)).toEqual({ prp1: 0x10800, prp2: 0x11000, list: [] });
  expect(buildPrp(0x10800, 0x1801, PAGE, 0x5000)).toEqual({
    prp1: 0x10800,
    prp2: 0x5000,
    list: [0x11000, 0x12000],
  });
  // 128 KiB that begin inside a page: 33 pages, 32 of them in the list.
  expect(prpListLength(0x10004, 128 * 1024, PAGE)).toBe(32);
});

test('refuses what is misaligned or does not fit', () => {
  const misuse = expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' });
  const range = expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' });
  expect(() => buildPrp(2, 512, PAGE)).toThrow(misuse);
  expect(() => buildPrp(-4, 512, PAGE)).toThrow(misuse);
  expect(() => buildPrp(0, 512, 5000)).toThrow(misuse);
  expect(() => buildPrp(0, 0, PAGE)).toThrow(range);
  expect(() => buildPrp(2 ** 53 - 4096, 8192, PAGE)).toThrow(range);
  expect(() => buildPrp(0, 3 * PAGE, PAGE)).toThrow(misuse);
  expect(() => buildPrp(0, 3 * PAGE, PAGE, 4)).toThrow(misuse);
  expect(() => buildPrp(0, 4 * PAGE, PAGE, PAGE - 16)).toThrow(range);
  expect(buildPrp(0, 513 * PAGE, PAGE, 0).list).toHaveLength(512);
  expect(() => buildPrp(0, 514 * PAGE, PAGE, 0)).toThrow(range);
});

const buffers = fc.record({
  address: fc.integer({ min: 0, max: 2 ** 40 }).map((n) => n * 4),
  length: fc.integer({ min: 1, max: 512 * PAGE }),
  pageSize: fc.constantFrom(4096, 8192, 65536),
});

test('every byte of a buffer is covered once, in order, and the list has the length that was told', () => {
  fc.assert(
    fc.property(buffers, ({ address, length, pageSize }) => {
      const listAddress = 0x7000_0000_0000;
      const { prp1, prp2, list } = buildPrp(address, length, pageSize, listAddress);
      expect(list).toHaveLength(prpListLength(address, length, pageSize));
      const memory = Uint32Array.from(list.flatMap((page) => [page >>> 0, Math.floor(page / 2 ** 32)]));
      let next = address;
      let pages = 0;
      const status = walkPrp(
        prp1,
        prp2,
        length,
        pageSize,
        (at, count) => (at === listAddress ? memory.subarray(0, 2 * count) : undefined),
        (page, bytes) => {
          expect(page).toBe(next);
          expect(Math.floor(page / pageSize)).toBe(Math.floor((page + bytes - 1) / pageSize));
          next += bytes;
          pages++;
        },
      );
      expect(status).toBe(GenericStatus.success);
      expect(next).toBe(address + length);
      expect(pages).toBe(Math.floor((address + length - 1) / pageSize) - Math.floor(address / pageSize) + 1);
    }),
  );
});

test('storing into a queue entry agrees with building', () => {
  fc.assert(
    fc.property(buffers, ({ address, length, pageSize }) => {
      const words = new Uint32Array(32);
      const memory = new Uint32Array(2048).fill(0xffffffff);
      storePrp(words, 16, address, length, pageSize, memory, 4, 0x123_0000_0000);
      const { prp1, prp2, list } = buildPrp(address, length, pageSize, 0x123_0000_0000);
      const at = (array: Uint32Array, i: number): number =>
        (array[i] as number) + (array[i + 1] as number) * 2 ** 32;
      expect([at(words, 22), at(words, 24)]).toEqual([prp1, prp2]);
      expect(list.map((_, i) => at(memory, 4 + 2 * i))).toEqual(list);
      expect(memory[4 + 2 * list.length]).toBe(0xffffffff);
    }),
  );
});

describe('walkPrp', () => {
  /** Host memory that holds lists: 64-bit entries by address. */
  function walk(
    prp1: number,
    prp2: number,
    length: number,
    entries: ReadonlyMap<number, number> = new Map(),
  ) {
    const parts: [number, number][] = [];
    let reads = 0;
    const status = walkPrp(
      prp1,
      prp2,
      length,
      PAGE,
      (address, count) => {
        reads++;
        expect(Math.floor(address / PAGE)).toBe(Math.floor((address + 8 * count - 1) / PAGE));
        const list = Array.from({ length: count }, (_, i) => entries.get(address + 8 * i));
        if (list.includes(undefined)) return undefined;
        return Uint32Array.from(list.flatMap((entry = 0) => [entry >>> 0, Math.floor(entry / 2 ** 32)]));
      },
      (address, bytes) => parts.push([address, bytes]),
    );
    return { status, parts, reads };
  }

  test('follows a chain: the last entry of a list page is the next list', () => {
    const entries = new Map([
      [0x5ff0, 0x20000],
      [0x5ff8, 0x6000],
      [0x6000, 0x40000],
      [0x6008, 0x30000],
    ]);
    expect(walk(0x10800, 0x5ff0, 0x800 + 2 * PAGE + 1, entries)).toEqual({
      status: 0,
      parts: [
        [0x10800, 0x800],
        [0x20000, PAGE],
        [0x40000, PAGE],
        [0x30000, 1],
      ],
      reads: 2,
    });
  });

  test('uses the last entry of a list page as data when it suffices', () => {
    const entries = new Map([
      [0x5ff0, 0x20000],
      [0x5ff8, 0x30000],
    ]);
    expect(walk(0x10000, 0x5ff0, 3 * PAGE, entries).parts).toEqual([
      [0x10000, PAGE],
      [0x20000, PAGE],
      [0x30000, PAGE],
    ]);
  });

  test('ends with a ring of lists', () => {
    const entries = new Map(Array.from({ length: 512 }, (_, i) => [0x5000 + 8 * i, 0x5000]));
    const { status, parts, reads } = walk(0, 0x5ff8, 2000 * PAGE, entries);
    expect(status).toBe(0);
    expect(parts).toHaveLength(2000);
    expect(reads).toBeLessThanOrEqual(5);
  });

  test.each<[string, number, number, number, [number, number][], number]>([
    ['PRP1 that is not a multiple of 4', 0x10002, 0, 512, [], 0x13],
    ['PRP2 inside a page', 0x10000, 0x20800, 2 * PAGE, [], 0x13],
    ['a list that is not a multiple of 8', 0x10000, 0x5004, 3 * PAGE, [], 0x13],
    [
      'a list entry inside a page',
      0x10000,
      0x5000,
      3 * PAGE,
      [
        [0x5000, 0x20000],
        [0x5008, 0x30008],
      ],
      0x13,
    ],
    ['a chained list inside a page', 0, 0x5ff8, 3 * PAGE, [[0x5ff8, 0x6ff8]], 0x13],
    ['a list that cannot be read', 0x10000, 0x5000, 3 * PAGE, [[0x5000, 0x20000]], 0x04],
    ['PRP1 beyond 2^53', 2 ** 60, 0, 512, [], 0x04],
    ['PRP2 beyond 2^53', 0, 2 ** 60, 2 * PAGE, [], 0x04],
    ['a list beyond 2^53', 0, 2 ** 60, 3 * PAGE, [], 0x04],
    [
      'an entry beyond 2^53',
      0,
      0x5000,
      3 * PAGE,
      [
        [0x5000, 2 ** 60],
        [0x5008, 0],
      ],
      0x04,
    ],
  ])('refuses %s', (_, prp1, prp2, length, entries, status) => {
    expect(walk(prp1, prp2, length, new Map(entries)).status).toBe(status);
  });
});
