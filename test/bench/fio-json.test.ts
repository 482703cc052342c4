// SPDX-License-Identifier: MIT
import { fioReport } from '../../lib/bench/fio-json';
import { mergeResults } from '../../lib/bench/job-result';
import { FIO_PERCENTILES } from '../../lib/bench/units';
import { sampleDirection, sampleJob } from './sample-job';

const started = new Date('2026-01-02T03:04:05.000Z');
const ended = new Date('2026-01-02T03:04:09.250Z');
const options = { rw: 'randread', bs: '4k', iodepth: '32', numjobs: '2' };
const LIMITS = ['2', '4', '10', '20', '50', '100', '250', '500', '750', '1000'];

const job = sampleJob({
  jobs: 2,
  runtimeMs: 4000,
  // One in each of: 100 ns - 250 ns, 750 ns - 1000 ns, 1 us - 2 us, 4 us - 10 us; two of 3 s.
  read: sampleDirection([127, 800, 1500, 5000, 3e9, 3e9], 4000, [1, 2]),
  cpu: { userMs: 2000, systemMs: 800, waitedMs: 0, contextSwitches: 5, majorFaults: 6, minorFaults: 7 },
  depthCounts: Float64Array.of(1, 0, 0, 0, 0, 3, 0),
  batchCounts: Float64Array.of(0, 3, 0, 0, 0, 0, 1),
});

const part = (result: typeof job) => ({ name: 'test', target: 'x', options, result });
const report = (bins = false): ReturnType<typeof fioReport> =>
  fioReport({ version: '0.1.0', started, ended, parts: [part(job)], bins });
const first = (bins = false) => report(bins).jobs[0] as ReturnType<typeof report>['jobs'][number];

test('the top level has the keys of fio', () => {
  const top = report();
  expect(Object.keys(top)).toEqual([
    'fio version',
    'timestamp',
    'timestamp_ms',
    'time',
    'global options',
    'vfio-user',
    'jobs',
  ]);
  expect(top).toMatchObject({
    'fio version': 'vfio-user-0.1.0',
    timestamp: 1_767_323_049,
    timestamp_ms: 1_767_323_049_250,
    'global options': {},
  });
  expect(top.time).toMatch(/^[A-Z][a-z]{2} Jan 0[123] 2026 [\d:]{8} GMT[+-]\d{4}$/);
});

test('a job has the keys of fio, in its units', () => {
  expect(Object.keys(first())).toEqual([
    'jobname',
    'groupid',
    'job_start',
    'error',
    'eta',
    'elapsed',
    'job options',
    'read',
    'write',
    'trim',
    'sync',
    'job_runtime',
    'usr_cpu',
    'sys_cpu',
    'ctx',
    'majf',
    'minf',
    'iodepth_level',
    'iodepth_submit',
    'iodepth_complete',
    'latency_ns',
    'latency_us',
    'latency_ms',
    'vfio-user',
  ]);
  expect(first()).toMatchObject({
    jobname: 'test',
    job_start: 1_767_323_045_000,
    error: 0,
    eta: 0,
    elapsed: 5,
    'job options': options,
    job_runtime: 8000,
    // Of the 8 s of two jobs.
    usr_cpu: 25,
    sys_cpu: 10,
    ctx: 5,
    majf: 6,
    minf: 7,
  });
});

test('a direction has the keys of fio, in its units', () => {
  const { slat_ns: slat, clat_ns: clat, lat_ns: lat, ...rest } = first().read;
  expect(rest).toEqual({
    io_bytes: 24_576,
    io_kbytes: 24,
    bw_bytes: 6144,
    bw: 6,
    iops: 1.5,
    runtime: 4000,
    total_ios: 6,
    short_ios: 0,
    drop_ios: 0,
    bw_min: 4,
    bw_max: 8,
    bw_agg: 100,
    bw_mean: 6,
    bw_dev: Math.sqrt(8),
    bw_samples: 2,
    iops_min: 1,
    iops_max: 2,
    iops_mean: 1.5,
    iops_stddev: Math.SQRT1_2,
    iops_samples: 2,
  });
  expect(slat).toEqual({ min: 0, max: 0, mean: 0, stddev: 0, N: 0 });
  expect(clat).toMatchObject({ min: 127, max: 3e9, mean: 6_000_007_427 / 6, N: 6 });
  expect(lat).toEqual(clat);
});

test('percentiles have the keys of fio', () => {
  const percentile = first().read.clat_ns.percentile ?? {};
  expect(Object.keys(percentile)).toEqual(FIO_PERCENTILES.map((percent) => percent.toFixed(6)));
  expect(Object.keys(percentile).slice(-2)).toEqual(['99.950000', '99.990000']);
  // The third of six samples, 1500 ns: group 5, width 16 from 1024, the middle of 1488 … 1503.
  expect(percentile['50.000000']).toBe(1496);
  expect(percentile['1.000000']).toBe(127);
});

test('directions not used have no samples', () => {
  for (const direction of [first(true).write, first(true).trim]) {
    expect(direction).toMatchObject({ total_ios: 0, bw: 0, iops: 0, runtime: 0, bw_agg: 0 });
    for (const latency of [direction.slat_ns, direction.clat_ns, direction.lat_ns]) {
      expect(latency).toEqual({ min: 0, max: 0, mean: 0, stddev: 0, N: 0 });
    }
  }
  expect(first().sync).toEqual({ total_ios: 0, lat_ns: { min: 0, max: 0, mean: 0, stddev: 0, N: 0 } });
});

test('bins come with json+ only', () => {
  expect(first().read.clat_ns.bins).toBeUndefined();
  // 800: group 4, width 8, 800 … 807. 5000: group 7, width 64, 4992 … 5055. 3e9: group 26, width 2^25, 89 * 2^25 and half a width.
  const bins = { '127': 1, '804': 1, '1496': 1, '5024': 1, '3003121664': 2 };
  expect(first(true).read.clat_ns.bins).toEqual(bins);
  expect(first(true).read.lat_ns.bins).toEqual(bins);
});

test('latency maps share all I/Os out over the limits of fio', () => {
  const { latency_ns: ns, latency_us: us, latency_ms: ms } = first();
  expect(Object.keys(ns)).toEqual(LIMITS);
  expect(Object.keys(us)).toEqual(LIMITS);
  expect(Object.keys(ms)).toEqual([...LIMITS, '2000', '>=2000']);
  const used = (map: Record<string, number>) => Object.entries(map).filter(([, share]) => share > 0);
  expect(used(ns)).toEqual([
    ['250', 100 / 6],
    ['1000', 100 / 6],
  ]);
  expect(used(us)).toEqual([
    ['2', 100 / 6],
    ['10', 100 / 6],
  ]);
  expect(used(ms)).toEqual([['>=2000', 200 / 6]]);
});

test('a limit belongs to the interval above it', () => {
  // Exact below 128 ns; 1.2 s lies between 1000 ms and 2000 ms.
  const edge = sampleJob({ read: sampleDirection([1, 2, 3, 4, 99, 100, 1.2e9, 1.5e6], 1) });
  const { latency_ns: ns, latency_ms: ms } = fioReport({
    version: '1',
    started,
    ended,
    parts: [part(edge)],
  }).jobs[0] as ReturnType<typeof first>;
  expect(ns).toMatchObject({ '2': 12.5, '4': 25, '10': 12.5, '100': 12.5, '250': 12.5 });
  expect(ms).toMatchObject({ '2': 12.5, '1000': 0, '2000': 12.5, '>=2000': 0 });
});

test('depths and batches are shares in percent', () => {
  expect(first().iodepth_level).toEqual({ '1': 25, '2': 0, '4': 0, '8': 0, '16': 0, '32': 75, '>=64': 0 });
  // As many are submitted with one doorbell as were found completed together.
  const batches = { '0': 0, '4': 75, '8': 0, '16': 0, '32': 0, '64': 0, '>=64': 25 };
  expect(first().iodepth_submit).toEqual(batches);
  expect(first().iodepth_complete).toEqual(batches);
});

test('failed I/Os are counted, with EIO', () => {
  const failed = sampleJob({ errors: 3, firstError: 'x' });
  const [only] = fioReport({ version: '1', started, ended, parts: [part(failed)] }).jobs;
  expect(only).toMatchObject({ error: 5, total_err: 3, first_error: 5, usr_cpu: 0 });
  expect(only?.iodepth_level).toEqual({ '1': 0, '2': 0, '4': 0, '8': 0, '16': 0, '32': 0, '>=64': 0 });
});

test('bw_agg is the share of a job in the bandwidth of all', () => {
  const parts = [1, 3].map((rate) => part(sampleJob({ write: sampleDirection([1], 1, [rate]) })));
  const shares = fioReport({ version: '1', started, ended, parts }).jobs.map((each) => each.write.bw_agg);
  expect(shares).toEqual([25, 75]);
});

test('the report survives JSON', () => {
  expect(JSON.parse(JSON.stringify(report(true)))).toEqual(report(true));
});

test('percentiles on request take the place of those of fio', () => {
  const [only] = fioReport({
    version: '1',
    started,
    ended,
    parts: [part(job)],
    percentiles: [0, 99.9999, 100],
  }).jobs;
  expect(only?.read.clat_ns.percentile).toEqual({
    '0.000000': 127,
    '99.999900': 3e9,
    '100.000000': 3e9,
  });
});

test('several endpoints are several jobs, each with its options and its share', () => {
  const parts = ['a', 'b'].map((name, index) => ({
    name,
    target: name,
    options: { ...options, filename: `/run/${name}` },
    result: mergeResults([
      sampleJob({ read: sampleDirection([1000], 1000, [index + 1]), runtimeMs: 1000 }),
      sampleJob({ read: sampleDirection([2000], 1000, [index + 1]), runtimeMs: 1000 }),
    ]),
  }));
  const { jobs } = fioReport({ version: '1', started, ended, parts });
  expect(jobs).toMatchObject([
    {
      jobname: 'a',
      groupid: 0,
      'job options': { filename: '/run/a', rw: 'randread' },
      // Two jobs of a second each, at the same time.
      job_runtime: 2000,
      read: { total_ios: 2, runtime: 1000, iops: 2, bw: 8, bw_agg: 100 / 3, clat_ns: { N: 2 } },
    },
    { jobname: 'b', groupid: 0, 'job options': { filename: '/run/b' }, read: { iops: 2, bw_agg: 200 / 3 } },
  ]);
});
