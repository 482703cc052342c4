// SPDX-License-Identifier: MIT
import { ShuffledSequence, ZipfSequence } from '../../lib/bench/random';

const take = (sequence: { next(span: number): number }, count: number): number[] =>
  Array.from({ length: count }, () => sequence.next(1));

/** How often each rank was drawn, rank 1 first. With the same seed the strewing of the ranks is the order of a shuffle. */
function counts(blocks: number, theta: number, seed: number, draws: number): number[] {
  const rankOf = new Map(
    take(new ShuffledSequence(blocks, seed), blocks).map((block, rank) => [block, rank]),
  );
  const result = new Array<number>(blocks).fill(0);
  for (const block of take(new ZipfSequence(blocks, theta, seed), draws)) {
    const rank = rankOf.get(block)!;
    result[rank] = result[rank]! + 1;
  }
  return result;
}

/** Shares by Zipf's law: in proportion to 1 / rank^theta. */
function shares(blocks: number, theta: number): number[] {
  const weights = Array.from({ length: blocks }, (_, index) => (index + 1) ** -theta);
  const all = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / all);
}

describe.each([0.5, 0.99, 1, 1.2, 3])('theta %s', (theta) => {
  test('the first ranks, and what follows, come as often as the law says', () => {
    const [blocks, draws] = [1000, 40_000];
    const found = counts(blocks, theta, 1, draws);
    const expected = shares(blocks, theta);
    // Ten ranks by themselves, then three groups; groups that are too rare for the test are joined with the one before.
    const edges = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 50, 200, blocks];
    const cells: { found: number; expected: number }[] = [];
    const total = (values: number[], from: number, to: number): number =>
      values.slice(from, to).reduce((sum, value) => sum + value, 0);
    edges.slice(1).forEach((to, index) => {
      const cell = {
        found: total(found, edges[index]!, to),
        expected: total(expected, edges[index]!, to) * draws,
      };
      const last = cells.at(-1);
      if (cell.expected >= 10 || last === undefined) cells.push(cell);
      else {
        last.found += cell.found;
        last.expected += cell.expected;
      }
    });
    expect(cells.length).toBeGreaterThan(8);
    const chiSquare = cells.reduce((sum, cell) => sum + (cell.found - cell.expected) ** 2 / cell.expected, 0);
    // 32.9 is exceeded once in 1000 with 12 degrees of freedom; the seed is fixed, so that the test does not waver.
    expect(chiSquare).toBeLessThan(32.9);
  });

  test('the mean rank', () => {
    const [blocks, draws] = [1000, 40_000];
    const law = shares(blocks, theta);
    const mean = law.reduce((sum, share, index) => sum + share * (index + 1), 0);
    const square = law.reduce((sum, share, index) => sum + share * (index + 1) ** 2, 0);
    const found =
      counts(blocks, theta, 2, draws).reduce((sum, count, index) => sum + count * (index + 1), 0) / draws;
    // Four standard errors.
    expect(Math.abs(found - mean)).toBeLessThan(4 * Math.sqrt((square - mean * mean) / draws));
  });

  test('one block, and two', () => {
    expect(new Set(take(new ZipfSequence(1, theta, 3), 1000))).toEqual(new Set([0]));
    const [first, second] = counts(2, theta, 3, 20_000) as [number, number];
    expect(first + second).toBe(20_000);
    const share = 1 / (1 + 2 ** -theta);
    expect(Math.abs(first / 20_000 - share)).toBeLessThan(4 * Math.sqrt((share * (1 - share)) / 20_000));
  });

  test.each([2 ** 31, 2 ** 40, 2 ** 40 + 12_345, 2 ** 52])('%s blocks: always one of them', (blocks) => {
    for (const block of take(new ZipfSequence(blocks, theta, 4), 5000)) {
      if (!(Number.isInteger(block) && block >= 0 && block < blocks)) throw new Error(`block ${block}`);
    }
  });
});

test.each([
  // 1 / (ln(2^40) + 0.57722), and 1 / (zeta(1.2) - (2^40)^-0.2 / 0.2) with zeta(1.2) = 5.59158.
  [1, 0.03533],
  [1.2, 0.17947],
])('theta %s of 2^40 blocks: the first rank has %s of the draws', (theta, share) => {
  const [blocks, draws] = [2 ** 40, 20_000];
  const first = new ShuffledSequence(blocks, 5).next();
  const found =
    take(new ZipfSequence(blocks, theta, 5), draws).filter((block) => block === first).length / draws;
  expect(Math.abs(found - share)).toBeLessThan(4 * Math.sqrt((share * (1 - share)) / draws));
});

test('theta 0.5 of 2^40 blocks reaches the far ranks', () => {
  // The integral of x^-0.5 is the square root: a quarter of the blocks has half of the draws. Each comes once, nearly.
  const drawn = take(new ZipfSequence(2 ** 40, 0.5, 6), 10_000);
  expect(new Set(drawn).size).toBeGreaterThan(9_990);
  expect(drawn.filter((block) => block >= 2 ** 39).length).toBeGreaterThan(4500);
});

test('the seed alone decides the sequence', () => {
  const order = (seed: number): number[] => take(new ZipfSequence(1000, 1.1, seed), 50);
  expect(order(7)).toEqual(order(7));
  expect(order(7)).not.toEqual(order(8));
});

test.each([1, 2, 3, 5, 17, 64])('every one of %s blocks has a rank of its own', (blocks) => {
  expect(new Set(take(new ZipfSequence(blocks, 0.1, 9), 200 * blocks)).size).toBe(blocks);
});

test('blocks that are drawn often do not lie together', () => {
  const found = new Map<number, number>();
  for (const block of take(new ZipfSequence(10_000, 1.2, 10), 20_000))
    found.set(block, (found.get(block) ?? 0) + 1);
  const hottest = [...found].sort((a, b) => b[1] - a[1]).slice(0, 20);
  const neighbours = hottest.filter(([block]) => hottest.some(([other]) => other === block + 1));
  expect(neighbours.length).toBeLessThan(3);
});

test.each([0, -1, NaN, 10.1, Infinity])('a skew of %s is refused', (theta) => {
  expect(() => new ZipfSequence(10, theta, 1)).toThrow(RangeError);
});

test.each([0, 1.5, NaN, 2 ** 54])('%s blocks are refused', (blocks) => {
  expect(() => new ZipfSequence(blocks, 1, 1)).toThrow(RangeError);
});
