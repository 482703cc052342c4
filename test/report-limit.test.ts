// SPDX-License-Identifier: MIT
import { ReportLimit } from '../lib/report-limit';

const told: string[] = [];
let limit: ReportLimit;
beforeEach(() => {
  jest.useFakeTimers();
  told.length = 0;
  limit = new ReportLimit((report) => void told.push(report));
});
afterEach(() => {
  limit.close();
  jest.useRealTimers();
});

test('a cause is told at once, and what came again as a number', () => {
  for (let i = 0; i < 1000; i++) limit.report(`no memory at 0x${i.toString(16)}f`);
  limit.report('another thing');
  expect(told).toEqual(['no memory at 0x0f', 'another thing']);
  jest.advanceTimersByTime(60_000);
  expect(told.slice(2)).toEqual(['no memory at 0x3e7f (999 more such reports since the last one)']);
  // It goes on, and then ends.
  limit.report('no memory at 0x1');
  jest.advanceTimersByTime(60_000);
  expect(told.slice(3)).toEqual(['no memory at 0x1 (1 more such reports since the last one)']);
  jest.advanceTimersByTime(60_000);
  expect(jest.getTimerCount()).toBe(0);
  limit.report('no memory at 0x2');
  expect(told.slice(4)).toEqual(['no memory at 0x2']);
});

test('causes that a peer makes up are bounded too', () => {
  const word = (i: number): string =>
    i.toString(26).replace(/\d/g, (digit) => 'qrstuvwxyz'.charAt(Number(digit)));
  for (let i = 0; i < 10_000; i++) limit.report(`made up ${word(i)}`);
  // 64 causes, and one for all others.
  expect(told).toHaveLength(65);
  jest.advanceTimersByTime(60_000);
  expect(told.at(-1)).toMatch(/^made up \w+ \(9935 more such reports since the last one\)$/);
  expect(told).toHaveLength(66);
});

test('the end tells what was not told', () => {
  limit.report('a');
  limit.report('a');
  limit.close();
  limit.close();
  expect(told).toEqual(['a', 'a (1 more such reports since the last one)']);
  expect(jest.getTimerCount()).toBe(0);
});
