// SPDX-License-Identifier: MIT
import { BenchDisplay } from '../../lib/cli/bench-display';
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

describe('the status line', () => {
  const run = { rw: 'randrw', bs: 4096, numjobs: 2, verify: true } as const;
  const progress = { readIops: 1000, writeIops: 2000, part: 0.25, secondsLeft: 3, phase: 'run' as const };
  const show = (isTTY: boolean, verifying: boolean): string[] => {
    const written: string[] = [];
    const display = new BenchDisplay({ isTTY, columns: 200, write: (text) => written.push(text) }, run);
    display.update({ ...progress, phase: verifying ? 'verify' : 'run' });
    display.clear();
    return written;
  };

  test('is shown on a terminal, and taken away', () => {
    expect(show(true, false)).toEqual([
      '\rJobs: 2 (f=2): [m(2)][25.0%][r=3.91MiB/s,w=7.81MiB/s][r=1.00k,w=2.00k IOPS][eta 00m:03s]\x1b[K',
      '\r\x1b[K',
    ]);
  });

  test('tells reading back from the run', () => {
    expect(show(true, true)[0]).toContain('[V(2)][25.0%][r=3.91MiB/s][r=1.00k IOPS]');
  });

  test('is not shown elsewhere', () => {
    expect(show(false, false)).toEqual([]);
  });
});
