// SPDX-License-Identifier: MIT
import { isPowerOfTwo } from '../lib/power-of-two';

test('each power of two is one', () => {
  for (let exponent = 0; exponent <= 1023; exponent++) expect(isPowerOfTwo(2 ** exponent)).toBe(true);
});

test('their neighbours are none, also where a logarithm is rounded', () => {
  for (let exponent = 2; exponent <= 53; exponent++)
    expect([isPowerOfTwo(2 ** exponent - 1), isPowerOfTwo(2 ** exponent + (exponent < 53 ? 1 : 2))]).toEqual([
      false,
      false,
    ]);
});

test.each([0, -1, -2, 0.5, 3, NaN, Infinity, -Infinity])('%p is none', (value) => {
  expect(isPowerOfTwo(value)).toBe(false);
});
