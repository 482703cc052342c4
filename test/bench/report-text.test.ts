// SPDX-License-Identifier: MIT
import { formatReport } from '../../lib/bench/report-text';
import { sampleDirection, sampleJob } from './sample-job';

const options = { rw: 'randrw', bs: '4k', iodepth: '32', numjobs: '1' };

test('reads, writes and their total stand in one table', () => {
  const job = sampleJob({
    name: 'mixed',
    runtimeMs: 2000,
    read: sampleDirection([1000, 2000, 3000], 2000),
    write: sampleDirection([10_000], 2000),
    cpu: { userMs: 1000, systemMs: 500, contextSwitches: 0, majorFaults: 0, minorFaults: 0 },
  });
  // 3 reads in 2 s are 1.5/s. 2000 ns is in the bucket 2000 … 2015 (16 wide from 1024), of middle 2008; 3000 ns in
  // 2976 … 3007 (32 wide from 2048), of middle 2992; 10000 ns in 9984 … 10111, whose middle is beyond the maximum.
  expect(formatReport('/run/cntrl nsid 1', options, job).split('\n')).toEqual([
    'mixed: /run/cntrl nsid 1',
    'rw=randrw, bs=4k, iodepth=32, numjobs=1',
    '',
    '             IOPS       MiB/s       min us       avg us       p50 us       p99 us     p99.9 us       max us',
    'read            2        0.01         1.00         2.00         2.01         2.99         2.99         3.00',
    'write           1        0.00        10.00        10.00        10.00        10.00        10.00        10.00',
    'total           2        0.01         1.00         4.00         2.01        10.00        10.00        10.00',
    '',
    '4 I/Os in 2.00 s; cpu usr 50.0 %, sys 25.0 %, 375000.00 us per I/O',
    'errors: 0',
    '',
  ]);
});

test('a single direction needs no total', () => {
  const text = formatReport(
    'x',
    options,
    sampleJob({ read: sampleDirection([1000], 1000), runtimeMs: 1000 }),
  );
  expect(text).toMatch(/^read /m);
  expect(text).not.toMatch(/^(write|total) /m);
});

test('a run without any I/O has a total of zeros', () => {
  const text = formatReport('x', options, sampleJob({ errors: 1 }));
  expect(text).toMatch(/^total +0 +0\.00( +0\.00){6}$/m);
  expect(text).toContain('0 I/Os in 0.00 s; cpu usr 0.0 %, sys 0.0 %\nerrors: 1\n');
});

test('the first error is told', () => {
  const text = formatReport('x', options, sampleJob({ errors: 3, firstError: 'LBA 7: stale' }));
  expect(text).toContain('errors: 3, the first: LBA 7: stale\n');
});

test('no line is wider than 110 columns, and no option is lost', () => {
  const many = Object.fromEntries(
    Array.from({ length: 30 }, (_, i) => [`option_${String(i)}`, `value-${String(i)}`]),
  );
  const job = sampleJob({
    runtimeMs: 1,
    read: { ...sampleDirection([17e9], 1), ios: 9_999_999_999, bytes: 2 ** 50 },
    errors: 1,
    firstError: 'x'.repeat(300),
  });
  const text = formatReport('/a/very/long/path'.repeat(10), { ...options, ...many }, job);
  const lines = text.split('\n');
  expect(Math.max(...lines.map((line) => line.length))).toBe(110);
  for (const name of Object.keys(many)) expect(text).toContain(`${name}=`);
});
