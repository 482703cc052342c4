// SPDX-License-Identifier: MIT
import { hex, printable, shellWord } from '../../lib/cli/output';

test('what a device says cannot move the cursor', () => {
  expect(printable('drive\x1b[2J\x07 \u009b1A')).toBe('drive?[2J? ?1A');
  expect(printable('first\n  second')).toBe('first second');
});

test('words are quoted for a shell where they need it', () => {
  expect(shellWord('/run/a-b_c.d/cntrl')).toBe('/run/a-b_c.d/cntrl');
  expect(shellWord('a b')).toBe("'a b'");
  expect(shellWord("it's")).toBe(`'it'\\''s'`);
  expect(shellWord('')).toBe("''");
});

test('hexadecimal', () => {
  expect(hex(0x10802, 6)).toBe('0x010802');
  expect(hex(2n ** 64n - 1n)).toBe('0xffffffffffffffff');
});
