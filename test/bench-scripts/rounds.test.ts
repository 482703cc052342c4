// SPDX-License-Identifier: MIT
import fs from 'node:fs';
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

// proc(5), /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal; then guest and guest_nice, which user has too.
test('what the kernel tells is a share', async () => {
  const told = [
    'cpu  100 10 20 300 5 1 2 50 70 0\ncpu0 9 9 9',
    'cpu  150 10 30 400 5 1 2 90 99 0\ncpu0 9 9 9',
  ];
  const stat = jest.spyOn(fs, 'readFileSync').mockImplementation(() => told.shift() ?? '');
  const rounds = new Rounds<number>(1);
  await rounds.run(
    () => 1,
    () => 2,
  );
  expect(stat.mock.calls).toEqual([
    ['/proc/stat', 'utf8'],
    ['/proc/stat', 'utf8'],
  ]);
  stat.mockRestore();
  expect(rounds.best).toEqual([{ ours: 1, peer: 2, stolen: 40 / 200 }]);
});
