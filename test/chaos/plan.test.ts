// SPDX-License-Identifier: MIT
import { describe as line, plan } from './plan';

const KINDS = ['kill', 'stop', 'full'];

test('the seed alone decides: the same one gives the same faults, another one others', () => {
  const faults = [...plan(KINDS, 20, 7)];
  expect([...plan(KINDS, 20, 7)]).toEqual(faults);
  expect([...plan(KINDS, 20, 8)]).not.toEqual(faults);
});

test('each round has every kind once, in orders that differ', () => {
  const faults = [...plan(KINDS, 50, 1)];
  const orders = new Set<string>();
  for (let round = 1; round <= 50; round++) {
    const kinds = faults.filter((fault) => fault.round === round).map(({ kind }) => kind);
    expect([...kinds].sort()).toEqual([...KINDS].sort());
    orders.add(kinds.join());
  }
  expect(orders.size).toBeGreaterThan(3);
});

test('the numbers are in their ranges', () => {
  for (const { when, where, much, pause } of plan(KINDS, 200, 3)) {
    for (const share of [when, where, much]) {
      expect(share).toBeGreaterThanOrEqual(0);
      expect(share).toBeLessThan(1);
    }
    expect(pause).toBeGreaterThanOrEqual(1);
    expect(pause).toBeLessThanOrEqual(50);
  }
});

test('a fault is a line', () => {
  const fault = { round: 3, kind: 'kill', when: 0.25, where: 0.5, much: 0.125, pause: 7 };
  expect(line(fault)).toBe('     3  kill           when 0.250  where 0.500  much 0.125  pause 7 ms');
});
