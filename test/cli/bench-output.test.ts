// SPDX-License-Identifier: MIT
import { readFileSync, writeFileSync } from 'node:fs';
import { Scratch, cli, failure, startCli } from './run-cli';

const QUICK = ['--runtime', '1100ms', '--size', '16m'];

interface Latency {
  readonly N: number;
  readonly percentile: Readonly<Record<string, number>>;
  readonly bins?: Readonly<Record<string, number>>;
}

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

test('json+ has the buckets, and the percentiles that were asked for', async () => {
  const args = ['--output-format', 'json+', '--percentiles', '99.9,50'];
  const { stdout, ...rest } = await cli(scratch, 'bench', ...QUICK, ...args);
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  const { jobs } = JSON.parse(stdout) as { jobs: { read: { clat_ns: Latency } }[] };
  expect(jobs).toMatchObject([{ 'job options': { percentile_list: '50:99.9' } }]);
  const { N, percentile, bins = {} } = jobs[0]?.read.clat_ns ?? { N: 0, percentile: {} };
  expect(N).toBeGreaterThan(0);
  expect(Object.values(bins).reduce((sum, count) => sum + count, 0)).toBe(N);
  expect(Object.keys(percentile)).toEqual(['50.000000', '99.900000']);
  await scratch.deserted();
});

test('percentiles and a histogram in the text, and both files beside it', async () => {
  const hgrm = scratch.file('out.hgrm');
  const report = scratch.file('out.html');
  writeFileSync(report, 'of before');
  const args = ['--percentiles', '50,99.99', '--histogram', '--hgrm', hgrm, '--report', report];
  const { stdout, ...rest } = await cli(scratch, 'bench', ...QUICK, '--rw', 'randrw', ...args);
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toMatch(/\n {2}percentile {6}read us {5}write us {5}total us\n {10}50 /);
  expect(stdout).toMatch(/\n +latency +I\/Os +share % +below %\n(?:.*\n)*?.*#/);
  const ios = /\n(\d+) I\/Os in /.exec(stdout)?.[1] ?? '';
  expect(scratch.entries().sort()).toEqual(['out.hgrm', 'out.html']);
  const distribution = readFileSync(hgrm, 'utf8');
  expect(distribution).toMatch(/^ {7}Value {5}Percentile TotalCount 1\/\(1-Percentile\)\n\n/);
  expect(distribution).toMatch(new RegExp(`Total count    = +${ios}\\]\\n`));
  const page = readFileSync(report, 'utf8');
  expect(page).toMatch(/^<!DOCTYPE html>/);
  const facts = [
    'vfio-user memory drive',
    'embedded endpoint, namespace 1',
    'mapped: plain stores to shared memory',
    process.version,
    '16.0MiB (16777216 bytes)',
    '50:99.99',
  ];
  for (const fact of facts) expect(page).toContain(fact);
  // The intervals of half a second are in it.
  expect(page).toContain('iops-wide');
});

test('an interrupted run has its report, which says so', async () => {
  const report = scratch.file('out.html');
  const running = startCli(scratch, 'bench', '--size', '16m', '--runtime', '60', '--report', report);
  await running.busy(0.8);
  expect(scratch.entries()).not.toContain('out.html');
  running.kill('SIGINT');
  expect(await running.ended).toMatchObject({ status: 4, signal: null, stderr: '' });
  expect(readFileSync(report, 'utf8')).toMatch(
    /<b>Interrupted<\/b>: the run did not come to its end; these are the results up to then/,
  );
});

test('JSON tells whether the run was interrupted', async () => {
  const format = ['--output-format', 'json'];
  const whole = await cli(scratch, 'bench', '--size', '16m', '--runtime', '100ms', ...format);
  expect(JSON.parse(whole.stdout)).toMatchObject({ 'vfio-user': { interrupted: false } });
  const running = startCli(scratch, 'bench', '--size', '16m', '--runtime', '60', ...format);
  await running.busy(0.8);
  running.kill('SIGTERM');
  const { stdout, status } = await running.ended;
  expect(status).toBe(4);
  expect(JSON.parse(stdout)).toMatchObject({
    'vfio-user': { interrupted: true },
    jobs: [{ error: 0, 'vfio-user': { ended: { reason: 'stopped' } } }],
  });
});

test('a failed run has its report, which says why', async () => {
  const report = scratch.file('out.html');
  const running = startCli(scratch, 'bench', '--size', '16m', '--runtime', '60', '--report', report);
  await running.busy(0.8);
  for (const pid of scratch.processes()) if (pid !== running.pid) process.kill(pid, 'SIGKILL');
  expect(await running.ended).toMatchObject({ status: 3 });
  expect(readFileSync(report, 'utf8')).toMatch(/<b>Failed<\/b>: \S+ went away during the run/);
});

describe('wrong usage, told before anything is started', () => {
  test.each<[string[], string]>([
    [
      ['--percentiles', '50,101'],
      "Option --percentile_list does not accept '50,101'; it takes numbers from 0 to 100 with at most 6 decimals, such as 50,99,99.9",
    ],
    [
      ['--histogram', '--output-format', 'json'],
      '--histogram goes with --output-format normal; --output-format json+ has the buckets of the latency',
    ],
    [
      ['--report', '/no/such/x.html'],
      '--report cannot write /no/such/x.html: there is no directory /no/such',
    ],
    [['--hgrm', '/dev/null'], '--hgrm cannot write /dev/null: it is there, but is no regular file'],
    [
      ['--hgrm', '/tmp/x', '--report', '/tmp/../tmp/x'],
      'Two of the files to write, of --output, --hgrm and --report, are the same',
    ],
    [
      ['--output-format', 'json-'],
      "Option --output-format does not accept 'json-'; it takes one of normal, json, json+; did you mean json?",
    ],
  ])('%j', async (args, line) => {
    expect(await cli(scratch, 'bench', ...args)).toEqual(failure(2, line));
    expect(scratch.entries()).toEqual([]);
  });
});
