// SPDX-License-Identifier: MIT
import { ShuffledSequence } from '../../lib/bench/random';

const take = (sequence: ShuffledSequence, count: number): number[] =>
  Array.from({ length: count }, () => sequence.next());

test.each([1, 2, 3, 5, 16, 17, 1000, 4096, 65_537])(
  'touches each of %i blocks once, then the same again',
  (blocks) => {
    const sequence = new ShuffledSequence(blocks, 7);
    const first = take(sequence, blocks);
    expect([...first].sort((a, b) => a - b)).toEqual(Array.from({ length: blocks }, (_, index) => index));
    expect(take(sequence, blocks)).toEqual(first);
  },
);

test('the order depends on the seed, and is no simple walk', () => {
  const order = take(new ShuffledSequence(4096, 1), 4096);
  expect(take(new ShuffledSequence(4096, 1), 4096)).toEqual(order);
  expect(take(new ShuffledSequence(4096, 2), 4096)).not.toEqual(order);
  const steps = new Set(order.slice(1).map((block, index) => block - (order[index] as number)));
  expect(steps.size).toBeGreaterThan(1000);
});

test('blocks beyond 2^32 are in range and differ', () => {
  const blocks = 2 ** 40 + 12345;
  const seen = take(new ShuffledSequence(blocks, 3), 10_000);
  expect(seen.every((block) => Number.isInteger(block) && block >= 0 && block < blocks)).toBe(true);
  expect(new Set(seen).size).toBe(10_000);
  expect(seen.some((block) => block > 2 ** 32)).toBe(true);
});

test('a number of blocks that cannot be is refused', () => {
  expect(() => new ShuffledSequence(0, 1)).toThrow(RangeError);
});
