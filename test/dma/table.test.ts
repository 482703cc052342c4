// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { IovaTable, type IovaRange } from '../../lib/dma/table';
import { failure, like } from '../client/support';

const TOP = 2n ** 64n;
const range = (iova: number | bigint, size: number): IovaRange => ({ iova: BigInt(iova), size });

function tableOf(...ranges: IovaRange[]): IovaTable<IovaRange> {
  const table = new IovaTable<IovaRange>();
  for (const one of ranges) table.add(one);
  return table;
}

/** Numbers from 0 on in an order without order, always the same. */
function shuffled(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index).sort(
    (a, b) => ((a * 7919) % 10007) - ((b * 7919) % 10007),
  );
}

describe('what cannot be added', () => {
  test.each([
    ['nothing', range(0, 0)],
    ['a negative size', range(0, -1)],
    ['a part of a byte', range(0, 1.5)],
    ['more than 2^53 bytes', range(0, 2 ** 53)],
    ['a negative address', range(-1n, 1)],
    ['an end above 2^64', range(TOP - 1n, 2)],
  ])('%s', (_what, added) => {
    const table = tableOf();
    expect(() => {
      table.add(added);
    }).toThrow(like(failure('ERR_VFIO_USER_DMA', 'is empty or not within 64 bits of address')));
    expect(table.size).toBe(0);
  });

  test.each([
    ['the same', range(0x1000, 0x1000)],
    ['its last byte', range(0x1fff, 1)],
    ['its first byte', range(0, 0x1001)],
    ['more than it', range(0, 0x4000)],
  ])('an overlap: %s', (_what, added) => {
    const table = tableOf(range(0x1000, 0x1000), range(0x8000, 0x1000));
    expect(() => {
      table.add(added);
    }).toThrow(
      like(
        failure('ERR_VFIO_USER_DMA', /overlaps 0x1000\+0x1000, .* Mapped: 0x1000\+0x1000, 0x8000\+0x1000$/),
      ),
    );
    expect(table.size).toBe(2);
  });

  test('ranges that touch do not overlap, up to the end of 64 bits', () => {
    const table = tableOf(range(0x1000, 0x1000), range(TOP - 0x1000n, 0x1000));
    for (const added of [range(0, 0x1000), range(0x2000, 0x1000), range(TOP - 0x2000n, 0x1000)])
      table.add(added);
    expect(table.dump()).toBe(
      '0x0+0x1000, 0x1000+0x1000, 0x2000+0x1000, 0xffffffffffffe000+0x1000, 0xfffffffffffff000+0x1000',
    );
  });
});

test('only the range itself is deleted, not one like it', () => {
  const own = range(0x1000, 0x1000);
  const table = tableOf(own);
  expect(table.delete(range(0x1000, 0x1000))).toBe(false);
  expect(table.delete(range(0x9000, 0x1000))).toBe(false);
  expect(table.delete(own)).toBe(true);
  expect(table.delete(own)).toBe(false);
  expect([table.size, table.dump()]).toEqual([0, 'nothing']);
});

test('ranges may go while they are iterated over, and a copy stays', () => {
  const table = tableOf(...shuffled(2000).map((page) => range(page * 0x1000, 0x1000)));
  const copy = table.copy();
  let count = 0;
  for (const one of table) {
    expect(one.iova).toBe(BigInt(count++ * 0x1000));
    table.delete(one);
  }
  expect([count, table.size, copy.size, [...copy].length]).toEqual([2000, 0, 2000, 2000]);
  copy.clear();
  expect([copy.size, copy.at(0n), [...copy]]).toEqual([0, undefined, []]);
});

test('a dump of many', () => {
  expect(tableOf(...shuffled(1000).map((page) => range(page * 16, 16))).dump()).toBe(
    '0x0+0x10, 0x10+0x10, 0x20+0x10, 0x30+0x10, 0x40+0x10, 0x50+0x10, 0x60+0x10, 0x70+0x10 and 992 more',
  );
});

describe('gaps', () => {
  const LIMIT = 0x10_0000n;

  test('the lowest of the size, aligned, below the limit', () => {
    const table = tableOf(range(0x2000, 0x1000), range(0x4000, 0x1000), range(0x9000, 0x1000));
    const find = (size: number, alignment: number, from = 0x2000n): bigint | undefined =>
      table.copy().findGap(size, alignment, from, LIMIT);
    expect(find(0x1000, 0x1000)).toBe(0x3000n);
    expect(find(0x1001, 0x1000)).toBe(0x5000n);
    expect(find(0x1000, 0x4000)).toBe(0x8000n);
    expect(find(0x1000, 0x4000, 0n)).toBe(0n);
    expect(find(0x5000, 0x1000)).toBe(0xa000n);
    expect(find(0xf_6000, 0x1000)).toBe(0xa000n);
    expect(find(0xf_6001, 0x1000)).toBeUndefined();
  });

  test('what has gone is found again, and what was too small before is found last', () => {
    const table = tableOf(range(0, 0x1000), range(0x2000, 0x1000));
    const take = (size: number): IovaRange => {
      const iova = table.findGap(size, 0x1000, 0n, 0x8000n);
      const taken = range(iova ?? -1n, size);
      table.add(taken);
      return taken;
    };
    const large = take(0x2000);
    expect(large.iova).toBe(0x3000n);
    expect(take(0x1000).iova).toBe(0x5000n);
    table.delete(large);
    expect([take(0x1000), take(0x1000), take(0x2000), take(0x1000)].map(({ iova }) => iova)).toEqual([
      0x3000n,
      0x4000n,
      0x6000n,
      0x1000n,
    ]);
    expect(table.findGap(1, 1, 0n, 0x8000n)).toBeUndefined();
  });
});

test('any changes and questions: as a list that is searched from its start', () => {
  // More neighbours than a block holds, so that blocks are split, and become empty.
  const PAGES = 1500;
  const step = fc.record({ add: fc.boolean(), page: fc.nat(PAGES), pages: fc.integer({ min: 1, max: 4 }) });
  const base = tableOf(...shuffled(PAGES).map((page) => range(page * 4, 3)));
  fc.assert(
    fc.property(fc.array(step, { minLength: 20, maxLength: 200 }), fc.boolean(), (steps, many) => {
      const table = many ? base.copy() : tableOf();
      let model = [...table];
      for (const { add, page, pages } of steps) {
        const [iova, size] = [BigInt(page * 4), pages * 4 - 1];
        const touched = model.filter(
          (one) => one.iova < iova + BigInt(size) && iova < one.iova + BigInt(one.size),
        );
        expect(table.overlapping(iova, BigInt(size))).toEqual(touched);
        expect(table.overlap(iova, size)).toBe(touched[0]);
        expect(table.at(iova)).toBe(
          model.find((one) => one.iova <= iova && iova < one.iova + BigInt(one.size)),
        );
        expect(table.get(iova, size)).toBe(model.find((one) => one.iova === iova && one.size === size));
        if (add && touched.length === 0) {
          const added = range(iova, size);
          table.add(added);
          model = [...model, added].sort((a, b) => Number(a.iova - b.iova));
        } else if (!add) {
          for (const one of touched) expect(table.delete(one)).toBe(true);
          model = model.filter((one) => !touched.includes(one));
        }
      }
      expect(table.size).toBe(model.length);
      expect([...table]).toEqual(model);
    }),
    { numRuns: 60 },
  );
});

describe('a lookup', () => {
  const table = tableOf(range(0x1000, 0x1000), range(0x2000, 0x1000), range(0x4000, 0x1000));

  test('across neighbours', () => {
    const [first, second] = [...table];
    expect(table.lookup(0x1ff0n, 0x20)).toEqual([
      { range: first, offset: 0xff0, length: 0x10 },
      { range: second, offset: 0, length: 0x10 },
    ]);
    expect(table.lookup(0x1000n, 0)).toEqual([]);
  });

  test.each([
    ['before', 0xfffn, 1],
    ['over a hole', 0x2fffn, 2],
    ['to the end', 0x4fffn, 2],
    ['behind', 0x5000n, 1],
  ])('%s', (_what, iova, length) => {
    expect(table.lookup(iova, length)).toBeUndefined();
  });
});
