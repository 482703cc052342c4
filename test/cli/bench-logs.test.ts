// SPDX-License-Identifier: MIT
/** Files and reports in the course of a run, over dist/; fio's own tools read the logs where they are installed. */
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { Scratch, cli, failure } from './run-cli';

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

const rows = (file: string): number[][] =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => line.split(', ').map(Number));

test("logs have fio's names and columns", async () => {
  const args = ['--rw', 'randrw', '--runtime', '700ms', '--size', '16m', '--numjobs', '2'];
  const prefix = scratch.file('run');
  const logs = ['bw', 'iops', 'lat'].flatMap((kind) => [`--write_${kind}_log`, prefix]);
  const { status, stderr } = await cli(scratch, 'bench', ...args, ...logs, '--log_avg_msec', '100');
  expect([status, stderr]).toEqual([0, '']);
  expect(scratch.entries().sort()).toEqual(
    ['bw', 'clat', 'iops', 'lat', 'slat'].flatMap((kind) => [`run_${kind}.1.log`, `run_${kind}.2.log`]),
  );
  const bw = rows(`${prefix}_bw.1.log`);
  const iops = rows(`${prefix}_iops.1.log`);
  // fio(1), "LOG FILE FORMATS": time, value, direction (0 reads, 1 writes), block size, priority.
  for (const [index, row] of bw.entries()) {
    expect(row).toHaveLength(5);
    expect(row[0]! % 100).toBe(0);
    expect(row.slice(2)).toEqual([index % 2, 0, 0]);
    // 4 KiB each.
    expect(Math.abs(row[1]! - iops[index]![1]! * 4)).toBeLessThanOrEqual(4);
  }
  expect(bw.at(-1)![0]).toBeGreaterThanOrEqual(600);
  expect(bw.some(([, value]) => value! > 0)).toBe(true);
  expect(readFileSync(`${prefix}_lat.1.log`, 'utf8')).toBe(readFileSync(`${prefix}_clat.1.log`, 'utf8'));
  for (const [, latency] of rows(`${prefix}_lat.1.log`)) expect(latency).toBeGreaterThan(0);
  for (const [, latency] of rows(`${prefix}_slat.1.log`)) expect(latency).toBe(0);
});

test('the largest latencies instead of the averages', async () => {
  const args = ['--runtime', '400ms', '--size', '16m', '--log_avg_msec', '100'];
  const prefix = scratch.file('max');
  const { status } = await cli(scratch, 'bench', ...args, '--write_lat_log', prefix, '--log_max_value');
  expect(status).toBe(0);
  for (const [, latency] of rows(`${prefix}_lat.1.log`)) expect(latency).toBeGreaterThan(0);
});

test('--output takes the report, and standard output stays empty', async () => {
  const output = scratch.file('report.json');
  const args = ['--runtime', '200ms', '--size', '16m', '--output-format', 'json', '--output', output];
  expect(await cli(scratch, 'bench', ...args)).toEqual({ status: 0, signal: null, stdout: '', stderr: '' });
  expect(JSON.parse(readFileSync(output, 'utf8'))).toMatchObject({ jobs: [{ error: 0 }] });
});

test('--status-interval prints what was measured so far, and at the end all', async () => {
  const args = ['--runtime', '2500ms', '--size', '16m', '--numjobs', '2', '--status-interval', '1'];
  const { status, stdout } = await cli(scratch, 'bench', ...args, '--output-format', 'json');
  expect(status).toBe(0);
  // As with fio, the output is one JSON after the other.
  const reports = stdout
    .trimEnd()
    .split(/(?<=^\})\n/m)
    .map((text) => JSON.parse(text) as { jobs: { read: { total_ios: number; runtime: number } }[] });
  expect(reports.length).toBeGreaterThanOrEqual(2);
  const ios = reports.map(({ jobs }) => jobs[0]!.read.total_ios);
  expect([...ios].sort((a, b) => a - b)).toEqual(ios);
  expect(ios[0]).toBeGreaterThan(0);
  const reasons = reports.map(
    ({ jobs }) => (jobs[0] as unknown as Record<string, { ended: unknown }>)['vfio-user']!.ended,
  );
  expect(reasons[0]).toEqual({ reason: 'running', message: '' });
  expect(reasons.at(-1)).toEqual({ reason: 'finished', message: '' });
});

test('a job file runs its jobs at the same time', async () => {
  const file = scratch.file('job.fio');
  writeFileSync(
    file,
    '[global]\nsize=16m\nruntime=500ms\ntime_based\n[reads]\nrw=randread\niodepth=4\n[writes]\nrw=write\nbs=64k\n',
  );
  const { status, stdout, stderr } = await cli(scratch, 'bench', file, '--output-format', 'json');
  expect([status, stderr]).toEqual([0, '']);
  expect(JSON.parse(stdout)).toMatchObject({
    jobs: [
      { jobname: 'reads', 'job options': { rw: 'randread', iodepth: '4' }, write: { total_ios: 0 } },
      { jobname: 'writes', 'job options': { rw: 'write', bs: '65536' }, read: { total_ios: 0 } },
    ],
  });
});

test('logs that cannot be written, and options that say nothing without them', async () => {
  expect(await cli(scratch, 'bench', '--write_bw_log', '/nowhere/log')).toEqual(
    failure(2, '--write_bw_log cannot write /nowhere/log_bw.1.log: there is no directory /nowhere'),
  );
  expect(await cli(scratch, 'bench', '--log_avg_msec', '100')).toEqual(
    failure(2, '--log_avg_msec goes with --write_bw_log, --write_iops_log or --write_lat_log'),
  );
  expect(await cli(scratch, 'bench', '--log_max_value')).toEqual(
    failure(2, '--log_max_value goes with --write_lat_log'),
  );
});

describe("fio's tools", () => {
  const installed = (program: string): boolean => spawnSync('which', [program]).status === 0;
  // fiologparser.py of fio 3.33 reads four columns, where fio 3.33 writes five.
  const withTools =
    installed('gnuplot') && installed('fio2gnuplot') && installed('fio_generate_plots') ? test : test.skip;

  withTools('fio2gnuplot, fio_generate_plots and fio_jsonplus_clat2csv read what is written', async () => {
    const prefix = scratch.file('run');
    const json = scratch.file('run.json');
    const logs = ['bw', 'iops', 'lat'].flatMap((kind) => [`--write_${kind}_log`, prefix]);
    const args = ['--runtime', '1500ms', '--size', '16m', '--log_avg_msec', '100', ...logs];
    const { status } = await cli(scratch, 'bench', ...args, '--output-format', 'json+', '--output', json);
    expect(status).toBe(0);
    const options = { cwd: scratch.path, encoding: 'utf8' } as const;
    execFileSync('fio_generate_plots', ['title'], { ...options, stdio: 'ignore' });
    for (const kind of ['lat', 'iops', 'slat', 'clat', 'bw'])
      expect(readFileSync(scratch.file(`title-${kind}.svg`), 'utf8')).toContain('<svg');
    execFileSync('fio2gnuplot', ['-p', 'run_bw*.log', '-g', '-k', '-o', 'bw'], {
      ...options,
      stdio: 'ignore',
    });
    expect(readFileSync(scratch.file('run_bw.average'), 'utf8')).toMatch(/\d/);
    execFileSync('fio_jsonplus_clat2csv', [json, scratch.file('out.csv')], options);
    expect(readFileSync(scratch.file('out_job0.csv'), 'utf8')).toMatch(/clat_ns/);
  });
});
