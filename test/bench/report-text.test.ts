// SPDX-License-Identifier: MIT
import { formatReport, type ReportContents } from '../../lib/bench/report-text';
import type { JobResult } from '../../lib/bench/job-result';
import { sampleDirection, sampleJob } from './sample-job';

const options = { rw: 'randrw', bs: '4k', iodepth: '32', numjobs: '1' };

function formatOne(result: JobResult, contents?: ReportContents): string {
  return formatReport([{ name: 'bench', target: 'x', options, result }], contents);
}

test('reads, writes and their total stand in one table', () => {
  const job = sampleJob({
    runtimeMs: 2000,
    read: sampleDirection([1000, 2000, 3000], 2000),
    write: sampleDirection([10_000], 2000),
    cpu: { userMs: 1000, systemMs: 500, waitedMs: 0, contextSwitches: 0, majorFaults: 0, minorFaults: 0 },
  });
  // 3 reads in 2 s are 1.5/s. 2000 ns is in the bucket 2000 … 2015 (16 wide from 1024), of middle 2008; 3000 ns in
  // 2976 … 3007 (32 wide from 2048), of middle 2992; 10000 ns in 9984 … 10111, whose middle is beyond the maximum.
  expect(
    formatReport([{ name: 'mixed', target: '/run/cntrl nsid 1', options, result: job }]).split('\n'),
  ).toEqual([
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
  const text = formatOne(sampleJob({ read: sampleDirection([1000], 1000), runtimeMs: 1000 }));
  expect(text).toMatch(/^read /m);
  expect(text).not.toMatch(/^(write|total) /m);
});

test('a run without any I/O has a total of zeros', () => {
  const text = formatOne(sampleJob({ errors: 1 }));
  expect(text).toMatch(/^total +0 +0\.00( +0\.00){6}$/m);
  expect(text).toContain('0 I/Os in 0.00 s; cpu usr 0.0 %, sys 0.0 %\nerrors: 1\n');
});

test('the first error is told', () => {
  const text = formatOne(sampleJob({ errors: 3, firstError: 'LBA 7: stale' }));
  expect(text).toContain('errors: 3, the first: LBA 7: stale\n');
});

test('no line is wider than 110 columns, and no option is lost', () => {
  const many = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`option_${i}`, `value-${i}`]));
  const job = sampleJob({
    runtimeMs: 1,
    read: { ...sampleDirection([17e9], 1), ios: 9_999_999_999, bytes: 2 ** 50 },
    errors: 1,
    firstError: 'x'.repeat(300),
  });
  const text = formatReport(
    [
      {
        name: 'bench',
        target: '/a/very/long/path'.repeat(10),
        options: { ...options, ...many },
        result: job,
      },
    ],
    { percentiles: [50], histogram: true },
  );
  const lines = text.split('\n');
  expect(Math.max(...lines.map((line) => line.length))).toBe(110);
  for (const name of Object.keys(many)) expect(text).toContain(`${name}=`);
});

test('percentiles on request are a table of their own', () => {
  const mixed = sampleJob({
    runtimeMs: 1000,
    read: sampleDirection([1000, 2000, 3000], 1000),
    write: sampleDirection([10_000], 1000),
  });
  // The values as in the table above.
  expect(formatOne(mixed, { percentiles: [0, 50, 99.999] })).toContain(
    [
      '',
      '  percentile      read us     write us     total us',
      '           0         1.00        10.00         1.00',
      '          50         2.01        10.00         2.01',
      '      99.999         2.99        10.00        10.00',
      '',
      '4 I/Os',
    ].join('\n'),
  );
});

test('a histogram counts reads and writes together', () => {
  const mixed = sampleJob({
    runtimeMs: 1000,
    // 100 ns is in 100 … 103, the second sixteenth above 64 + 32; 128 ns is in 128 … 135.
    read: sampleDirection([...Array<number>(150).fill(100), 108], 1000),
    write: sampleDirection([128], 1000),
  });
  expect(formatOne(mixed, { histogram: true })).toContain(
    [
      '',
      '      latency                I/Os    share %    below %',
      '   100ns - 104ns              150     98.684     98.684  ##################################################',
      '   104ns - 108ns                0      0.000     98.684',
      '   108ns - 112ns                1      0.658     99.342  .',
      '   112ns - 116ns                0      0.000     99.342',
      '   116ns - 120ns                0      0.000     99.342',
      '   120ns - 124ns                0      0.000     99.342',
      '   124ns - 128ns                0      0.000     99.342',
      '   128ns - 136ns                1      0.658    100.000  .',
      '',
      '152 I/Os',
    ].join('\n'),
  );
});

test('a run without any I/O has a histogram without lines, and percentiles of 0', () => {
  const text = formatOne(sampleJob(), { histogram: true, percentiles: [99] });
  expect(text).toContain('below %\n\n0 I/Os');
  expect(text).toContain('          99         0.00\n');
});

test('several endpoints have a block each, and one together', () => {
  const parts = ['a', 'b'].map((name, index) => ({
    name,
    target: `/run/${name}`,
    options,
    result: sampleJob({ runtimeMs: 1000, read: sampleDirection([1000 * (index + 1)], 1000) }),
  }));
  const blocks = formatReport(parts).split(/\n\n(?=\w+: )/);
  expect(blocks.map((block) => block.split('\n')[0])).toEqual(['a: /run/a', 'b: /run/b', 'all: 2 together']);
  expect(blocks[2]).toMatch(/^read +2 /m);
  expect(blocks[2]).toContain('2 I/Os in 1.00 s');
  expect(formatReport(parts.slice(0, 1))).not.toContain('together');
});
