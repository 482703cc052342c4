// SPDX-License-Identifier: MIT
// What the tools that read fio's results take from them, read in their sources: fio f5344384 and fio-plot cfc6a6f.
import { fioReport, type FioReport } from '../../lib/bench/fio-json';
import { sampleDirection, sampleJob } from './sample-job';

type Json = null | string | number | boolean | readonly Json[] | { readonly [key: string]: Json };

const DIRECTIONS = ['read', 'write', 'trim'] as const;
const LATENCIES = ['slat_ns', 'clat_ns', 'lat_ns'] as const;

/** As a tool gets it. */
function written(bins: boolean): FioReport {
  const report = fioReport({
    version: '1.2.3',
    started: new Date(0),
    ended: new Date(4000),
    bins,
    parts: ['a', 'b'].map((name) => ({
      name,
      target: name,
      options: { rw: 'randrw', bs: '4096', iodepth: '32', numjobs: '2' },
      result: sampleJob({
        jobs: 2,
        runtimeMs: 4000,
        read: sampleDirection([1, 127, 128, 800, 800, 5000, 3e9, 20e9], 4000, [1, 2]),
        write: sampleDirection([9000], 4000, [3]),
      }),
    })),
  });
  return JSON.parse(JSON.stringify(report)) as FioReport;
}

function at(value: Json, ...path: readonly string[]): Json | undefined {
  return path.reduce<Json | undefined>(
    (inner, key) => (inner as Readonly<Record<string, Json>> | undefined)?.[key],
    value,
  );
}

describe('tools/fio_jsonplus_clat2csv', () => {
  const { jobs } = written(true);

  test('main(): jobs[n][read, write, trim]', () => {
    expect(Array.isArray(jobs)).toBe(true);
    for (const job of jobs) for (const direction of DIRECTIONS) expect(job[direction]).toBeInstanceOf(Object);
  });

  test("main(): [slat_ns, clat_ns, lat_ns]['bins'] is missing, or has an entry", () => {
    const used = jobs.map((job) =>
      DIRECTIONS.flatMap((direction) =>
        LATENCIES.flatMap((latency) => {
          const { bins } = job[direction][latency];
          // run_total[ddir_lat][0] = bins[ddir_lat][0][1]: an empty object would be an index out of range.
          if (bins !== undefined) expect(Object.keys(bins).length).toBeGreaterThan(0);
          return bins === undefined ? [] : [`${direction} ${latency}`];
        }),
      ),
    );
    const all = ['read clat_ns', 'read lat_ns', 'write clat_ns', 'write lat_ns'];
    expect(used).toEqual([all, all]);
  });

  test('main(): int(key), each once, at most 17112760320; integer values', () => {
    for (const { read } of jobs) {
      const entries = Object.entries(read.clat_ns.bins ?? {});
      for (const [key, value] of entries) {
        expect(key).toMatch(/^\d+$/);
        // "min_lat = 17112760320": a later bucket would never be written, and the loop not end.
        expect(Number(key)).toBeLessThanOrEqual(17_112_760_320);
        expect(Number.isInteger(value)).toBe(true);
      }
      expect(entries.map(([key]) => Number(key))).toEqual([
        1, 127, 129, 804, 5024, 3_003_121_664, 17_112_760_320,
      ]);
      expect(entries.reduce((sum, [, value]) => sum + value, 0)).toBe(read.clat_ns.N);
    }
  });

  test("stat.c, add_ddir_lat_json(): 'bins' come with json+ alone, after 'percentile'", () => {
    expect(Object.keys(jobs[0]?.read.clat_ns ?? {})).toEqual([
      'min',
      'max',
      'mean',
      'stddev',
      'N',
      'percentile',
      'bins',
    ]);
    expect(written(false).jobs[0]?.read.clat_ns).not.toHaveProperty('bins');
  });
});

describe('fio-plot', () => {
  const report = JSON.parse(JSON.stringify(written(false))) as Json;
  const jobs = at(report, 'jobs') as readonly Json[];

  test('jsonimport.py, validate_json_file(): two of "fio version", "global options", "client_stats", "jobs"', () => {
    expect(at(report, 'fio version')).toBe('vfio-user-1.2.3');
    expect(at(report, 'global options')).toEqual({});
    // With "client_stats" it would look for the jobs there (jsonparsing.py, get_json_root_path()).
    expect(at(report, 'client_stats')).toBeUndefined();
  });

  test('jsonimport.py, filter_json_files(): rw, iodepth, numjobs in "job options", by int()', () => {
    expect(at(jobs[0] as Json, 'job options', 'rw')).toBe('randrw');
    for (const name of ['iodepth', 'numjobs'])
      expect(at(jobs[0] as Json, 'job options', name)).toMatch(/^\d+$/);
  });

  test('jsonparsing.py, process_json_record(): "jobname", which is not "All clients", and "job options"', () => {
    expect(jobs.map((job) => at(job, 'jobname'))).toEqual(['a', 'b']);
    for (const job of jobs) expect(at(job, 'hostname')).toBeUndefined();
  });

  test.each(['bs', 'rw', 'iodepth', 'numjobs'])(
    'jsonparsing_support.py, get_json_mapping(): "job options".%s, a string',
    (name) => {
      for (const job of jobs) expect(typeof at(job, 'job options', name)).toBe('string');
    },
  );

  test.each([['bw'], ['iops'], ['iops_stddev'], ['lat_ns', 'mean'], ['lat_ns', 'stddev']])(
    'jsonparsing_support.py, get_json_mapping(): read and write, %s %s, a number',
    (...path) => {
      for (const job of jobs) {
        for (const direction of ['read', 'write']) expect(typeof at(job, direction, ...path)).toBe('number');
      }
    },
  );

  test.each(['usr_cpu', 'sys_cpu'])('jsonparsing_support.py, get_json_mapping(): %s, a number', (name) => {
    for (const job of jobs) expect(typeof at(job, name)).toBe('number');
  });

  test('jsonparsing_support.py, check_for_steadystate(): the option is absent, and so is "steadystate"', () => {
    for (const job of jobs) expect(at(job, 'job options', 'steadystate')).toBeUndefined();
  });

  test('barhistogram.py: latency_ns and latency_us have ten keys by int(), latency_ms two more, of percents', () => {
    for (const job of jobs) {
      const keys = (name: string): string[] => Object.keys(at(job, name) as object);
      const numbers = ['2', '4', '10', '20', '50', '100', '250', '500', '750', '1000'];
      expect(keys('latency_ns')).toEqual(numbers);
      expect(keys('latency_us')).toEqual(numbers);
      // y_series2.extend([0, 0]): the other two are filled up to its length.
      expect(keys('latency_ms')).toEqual([...numbers, '2000', '>=2000']);
      const sum = ['latency_ns', 'latency_us', 'latency_ms']
        .flatMap((name) => Object.values(at(job, name) as Record<string, number>))
        .reduce((total, percent) => total + percent, 0);
      expect(sum).toBeCloseTo(100, 9);
    }
  });
});
