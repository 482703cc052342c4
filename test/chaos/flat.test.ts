// SPDX-License-Identifier: MIT
import { afterWarmUp, growth, slope, slowing } from './flat';
import { leaksBetween } from './leaks';

test('the slope is that of the line that fits best', () => {
  expect(slope([5, 5, 5])).toBe(0);
  expect(slope([1, 3, 5, 7])).toBeCloseTo(2);
  // By hand: the deviations of x are -1, 0, 1 and of y -1, -1, 2, so 3 / 2.
  expect(slope([0, 0, 3])).toBeCloseTo(1.5);
  expect(slope([7])).toBe(0);
});

test('growth is that of the line, so that one value does not decide', () => {
  expect(growth([10, 11, 12, 13])).toBeCloseTo(3);
  const spike = Array.from({ length: 41 }, (_, index) => (index === 20 ? 500 : 100));
  expect(growth(spike)).toBeCloseTo(0);
});

test('the first quarter does not count, and never the first sample', () => {
  expect(afterWarmUp([1, 2, 3, 4, 5, 6, 7, 8])).toEqual([3, 4, 5, 6, 7, 8]);
  expect(afterWarmUp([1, 2])).toEqual([2]);
});

test('slowing compares the medians of the ends', () => {
  expect(slowing([1, 1, 9, 5, 5, 5, 2, 3, 2])).toBe(2);
  expect(slowing([4, 4])).toBe(1);
});

test('a leak is named with its figures', () => {
  const before = { rss: 0, heap: 0, external: 0, fds: 20, eventfds: 5, mappings: 100, shared: 3 };
  expect(leaksBetween(before, { ...before, rss: 1 << 20, mappings: 110, fds: 19 })).toEqual([]);
  expect(leaksBetween(before, { ...before, eventfds: 6, heap: 5 << 20 })).toEqual([
    'eventfds 5 after the warm-up, 6 at the end',
    'heap 0 after the warm-up, 5242880 at the end',
  ]);
});
