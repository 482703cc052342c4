// SPDX-License-Identifier: MIT
import { Rounds, warningOfStolen } from '../../bench/rounds';

/** Rounds in which the hypervisor takes these shares, and who was measured, in order. */
async function measured(
  wanted: number,
  shares: readonly number[],
): Promise<{ rounds: Rounds<string>; order: string }> {
  let order = '';
  let round = 0;
  const rounds = new Rounds<string>(wanted, () => () => shares[round++] ?? 0);
  const side = (name: string) => (): string => {
    order += name;
    return `${name}${round}`;
  };
  while (!rounds.done) await rounds.run(side('o'), () => Promise.resolve(side('p')()));
  return { rounds, order };
}

test('who was first is second in the next round', async () => {
  const { rounds, order } = await measured(3, []);
  expect(order).toBe('oppoop');
  expect(rounds.best).toEqual([
    { ours: 'o0', peer: 'p0', stolen: 0 },
    { ours: 'o1', peer: 'p1', stolen: 0 },
    { ours: 'o2', peer: 'p2', stolen: 0 },
  ]);
  expect(warningOfStolen(rounds.best)).toBeUndefined();
});

test('a round of which much was stolen is repeated, and does not count', async () => {
  const { rounds, order } = await measured(2, [0.009, 0.01, 0.002]);
  expect(order.length / 2).toBe(3);
  expect(rounds.best.map(({ stolen }) => stolen)).toEqual([0.002, 0.009]);
  expect(warningOfStolen(rounds.best)).toBeUndefined();
});

test('when most were stolen from, there is an end, and a warning', async () => {
  const { rounds, order } = await measured(2, [0.3, 0.05, 0.001, 0.2]);
  expect(order.length / 2).toBe(4);
  expect(rounds.best.map(({ stolen }) => stolen)).toEqual([0.001, 0.05]);
  expect(warningOfStolen(rounds.best)).toContain('up to 5 %');
});

test('what the kernel tells is a share', async () => {
  const rounds = new Rounds<number>(1);
  await rounds.run(
    () => new Promise((resolve) => setTimeout(resolve, 50, 1)),
    () => 2,
  );
  expect(rounds.best[0]?.stolen).toBeGreaterThanOrEqual(0);
  expect(rounds.best[0]?.stolen).toBeLessThanOrEqual(1);
});
