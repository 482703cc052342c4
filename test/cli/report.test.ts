// SPDX-License-Identifier: MIT
import { readFileSync, writeFileSync } from 'node:fs';
import { compareRuns, readRun } from '../../lib/bench/comparison';
import { ratioText } from '../../lib/bench/comparison-page';
import { Scratch, cli, failure } from './run-cli';

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

/** A report of a job that reads, in fio's schema. */
function fio(iops: number, latency: number, changes: object = {}, job: object = {}): string {
  const read = {
    total_ios: 100,
    iops,
    bw_bytes: iops * 4096,
    iops_stddev: iops * 0.03,
    iops_samples: 10,
    clat_ns: {
      mean: latency,
      percentile: { '50.000000': latency, '99.000000': latency * 2, '99.900000': latency * 3 },
    },
  };
  const unused = { total_ios: 0 };
  return JSON.stringify({ jobs: [{ jobname: 'x', read, write: unused, trim: unused, ...job }], ...changes });
}

test('values of runs are compared with those of the first', () => {
  const runs = [readRun('a', fio(1000, 8000)), readRun('b', fio(1500, 4000))];
  const [row] = compareRuns(runs);
  expect(row!.name).toBe('x read');
  expect(row!.iops).toEqual([
    { value: 1000, ratio: undefined, spread: undefined },
    // Both vary by 3 %: 1.5 times the root of the sum of the squares.
    { value: 1500, ratio: 1.5, spread: expect.closeTo(1.5 * Math.hypot(0.03, 0.03), 6) as number },
  ]);
  expect(row!.p99.map((value) => value!.value)).toEqual([16_000, 8000]);
  expect(ratioText(row!.iops[1]!)).toBe('1.50 ± 0.06');
  expect(ratioText(row!.mean[1]!)).toBe('0.50');
});

test('a job that one run does not have, and jobs of one name', () => {
  const two = JSON.parse(fio(10, 10)) as { jobs: unknown[] };
  const runs = [
    readRun('a', fio(1000, 8000)),
    readRun('b', JSON.stringify({ jobs: [two.jobs[0], two.jobs[0]] })),
  ];
  expect(compareRuns(runs).map(({ name, iops }) => [name, iops.map((value) => value?.value)])).toEqual([
    ['x read', [1000, 10]],
    ['x (2) read', [undefined, 10]],
  ]);
});

test('the command compares reports of the benchmark, as text and as a page', async () => {
  const [before, after, page] = ['a.json', 'b.json', 'out.html'].map((name) => scratch.file(name)) as [
    string,
    string,
    string,
  ];
  const args = ['--runtime', '700ms', '--size', '16m', '--output-format', 'json', '--output'];
  expect(await cli(scratch, 'bench', ...args, before)).toMatchObject({ status: 0 });
  writeFileSync(
    after,
    fio(
      1500,
      4000,
      { 'vfio-user': { interrupted: true } },
      { jobname: 'bench', 'vfio-user': { doubts: ['<b>few</b>'], gaps: [{ at: 1 }] } },
    ),
  );
  const { status, stdout, stderr } = await cli(scratch, 'report', before, after, '--html', page);
  expect(status).toBe(0);
  expect(stderr).toContain(`do not trust the figures of ${after}: <b>few</b>\n`);
  expect(stderr).toContain(`do not trust the figures of ${after}: its server was away for a part of the run`);
  expect(stderr).toContain(`${after} was interrupted; its figures are those up to then\n`);
  expect(stdout).toMatch(
    /^bench read\n {2}IOPS +\S+ +[\d.]+[kM]?\n +\S+ +1\.50k +\d+\.\d\d( ± \d+\.\d\d)?\n/,
  );
  const text = readFileSync(page, 'utf8');
  expect(text).toContain('2 runs compared');
  expect(text).toContain('&lt;b&gt;few&lt;/b&gt;');
  expect(text).not.toContain('<script');
  expect(text.match(/<rect /g)!.length).toBeGreaterThanOrEqual(4);
});

test('what cannot be compared gets one line', async () => {
  const good = scratch.file('good.json');
  const bad = scratch.file('bad.json');
  writeFileSync(good, fio(1, 1));
  const line = async (...files: string[]) => cli(scratch, 'report', ...files);
  expect(await line(good)).toEqual(
    failure(2, 'There is one report alone; a comparison needs two, the first of which is the base'),
  );
  expect(await line(good, '/nowhere')).toEqual(failure(2, '/nowhere cannot be read: ENOENT'));
  writeFileSync(bad, '{"a":1}');
  expect(await line(good, bad)).toEqual(
    failure(2, `${bad} is no report in fio's JSON: it has no list of jobs`),
  );
  writeFileSync(bad, 'x');
  const { status, stderr } = await line(good, bad);
  expect(status).toBe(2);
  expect(stderr).toMatch(/is no report in fio's JSON: .*; write one with --output-format json\n$/);
  writeFileSync(bad, '{"jobs":[]}');
  expect(await line(bad, bad)).toEqual(
    failure(2, 'None of the reports has an I/O; there is nothing to compare'),
  );
});
