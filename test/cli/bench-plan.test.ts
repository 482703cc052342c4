// SPDX-License-Identifier: MIT
/** What the arguments of `bench` and a job file come to, and what is refused; without a device. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OUTPUT_OPTIONS, RUN_OPTIONS, WORKLOAD_OPTIONS } from '../../lib/cli/bench-options';
import { planBench, type BenchPlan } from '../../lib/cli/bench-plan';
import { parseCommandLine } from '../../lib/cli/options';
import type { UsageError } from '../../lib/cli/option-spec';

const SPEC = {
  name: 'bench',
  summary: '',
  positionals: [{ name: 'endpoint', help: '', optional: true, many: true }],
  options: { ...WORKLOAD_OPTIONS, ...RUN_OPTIONS, ...OUTPUT_OPTIONS },
} as const;

let directory: string;
let complained: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'plan-test-'));
  complained = '';
  jest.spyOn(process.stderr, 'write').mockImplementation((text) => {
    complained += String(text);
    return true;
  });
});
afterEach(() => {
  jest.restoreAllMocks();
  rmSync(directory, { recursive: true });
});

function plan(...args: string[]): BenchPlan {
  const line = parseCommandLine(SPEC, args);
  if (line.help) throw new Error('help was not asked for');
  return planBench(line.positionals, line.given);
}

function jobFile(text: string): string {
  const path = join(directory, 'job.fio');
  writeFileSync(path, text);
  return path;
}

function refusal(...args: string[]): string {
  try {
    plan(...args);
  } catch (error) {
    expect(error).toMatchObject({ exitCode: 2 });
    const { message } = error as UsageError;
    expect(message).not.toContain('\n');
    return message.replaceAll(directory, '');
  }
  throw new Error('nothing was refused');
}

describe('the command line', () => {
  test('the defaults', () => {
    const { jobs, endpoints, timeout, connectTimeout } = plan();
    expect(endpoints).toEqual([]);
    expect([timeout, connectTimeout]).toEqual([4000, 5000]);
    expect(jobs.map(({ name }) => name)).toEqual(['bench']);
    expect(jobs[0]!.options).toMatchObject({
      workload: 'randread',
      blockSize: 4096,
      split: undefined,
      depth: 32,
      jobs: 1,
      runtime: 10,
      verify: false,
      fua: { read: false, write: false },
    });
  });

  test.each<[string[], Record<string, unknown>]>([
    [['--thinktime', '500', '--thinktime-blocks', '4'], { thinkTime: 0.0005, thinkBlocks: 4 }],
    [['--rate=2m'], { rate: 2 << 20, rateIops: undefined }],
    [['--rate-iops=2k'], { rate: undefined, rateIops: 2000 }],
    [['--offset=1m', '--size=2m'], { offset: 1 << 20, size: 2 << 20 }],
    [['--fua'], { fua: { read: true, write: false } }],
    [['--fua', '--rw=randrw'], { fua: { read: true, write: true } }],
    [['--writefua', '--rw=randrw'], { fua: { read: false, write: true } }],
    [['--io_limit=1m'], { ioSize: 1 << 20, runtime: undefined }],
    [['--time_based=0'], { once: true, runtime: undefined }],
    [['--time_based=0', '--runtime=3'], { once: true, runtime: 3 }],
    [['--readwrite=readwrite'], { workload: 'rw' }],
    [['--rw=randtrimwrite'], { workload: 'randtrimwrite' }],
    [['--cpus_allowed=0-2,5'], { processors: [0, 1, 2, 5] }],
    [
      ['--latency_target=250', '--latency-percentile=99.9'],
      { latencyTarget: { latency: 0.00025, percentile: 99.9, window: 0.5 } },
    ],
    [['--bs=64k'], { blockSize: 65_536, split: undefined }],
    [
      ['--bs=4k,64k', '--rw=randrw'],
      {
        blockSize: 65_536,
        split: {
          read: [{ bytes: 4096, share: 1 }],
          write: [{ bytes: 65_536, share: 1 }],
          trim: [{ bytes: 65_536, share: 1 }],
        },
      },
    ],
    // The sizes of other directions do not matter.
    [['--bs=4k,64k'], { blockSize: 4096, split: undefined }],
    [
      ['--bssplit=4k/50:1k/:32k/'],
      {
        blockSize: 32_768,
        split: expect.objectContaining({
          read: [
            { bytes: 4096, share: 0.5 },
            { bytes: 1024, share: 0.25 },
            { bytes: 32_768, share: 0.25 },
          ],
        }),
      },
    ],
    [
      ['--bssplit=2k/50:4k/50,4k/90:8k/10', '--rw=randwrite'],
      {
        blockSize: 8192,
        split: expect.objectContaining({
          write: [
            { bytes: 4096, share: 0.9 },
            { bytes: 8192, share: 0.1 },
          ],
        }),
      },
    ],
  ])('%j', (args, options) => {
    expect(plan(...args).jobs[0]!.options).toMatchObject(options);
  });

  test.each<[string, Record<string, unknown>]>([
    ['iops:0.5%', { measure: 'iops', slope: false, limit: 0.5, percent: true, duration: 5, rampTime: 0 }],
    ['bw_slope:1m', { measure: 'bw', slope: true, limit: 1 << 20, percent: false }],
    ['iops_slope:2k', { measure: 'iops', slope: true, limit: 2000, percent: false }],
  ])('--steadystate %s', (text, criterion) => {
    expect(plan('--ss', text).run.steadyState).toMatchObject(criterion);
    expect(plan('--ss', text, '--ss_dur', '7', '--ss-ramp', '2').run.steadyState).toMatchObject({
      ...criterion,
      duration: 7,
      rampTime: 2,
    });
  });

  test.each<[string[], string]>([
    [['--rate=1m', '--rate_iops=5'], '--rate and --rate_iops contradict each other; leave one out'],
    [['--bs=4k', '--bssplit=4k/100'], '--bs and --bssplit contradict each other; leave one out'],
    [['--fua', '--readfua'], '--fua and --readfua contradict each other; leave one out'],
    [['--readfua', '--rw=write'], '--readfua goes with a workload that reads, not with --rw write'],
    [['--writefua'], '--writefua goes with a workload that writes, not with --rw randread'],
    [['--fua', '--rw=trim'], '--fua goes with a workload that reads or writes, not with --rw trim'],
    [['--thinktime_blocks=2'], '--thinktime_blocks goes with --thinktime'],
    [['--latency_window=1s'], '--latency_window goes with --latency_target'],
    [
      ['--latency_target=1ms', '--rate=5'],
      '--latency_target and --rate contradict each other; leave one out',
    ],
    [['--ss_dur=5'], '--steadystate_duration goes with --steadystate'],
    [
      ['--verify', '--rw=write', '--bssplit=4k/100'],
      '--verify and --bssplit contradict each other; leave one out',
    ],
    [
      ['--verify', '--rw=write', '--ss=iops:1%'],
      '--steadystate goes with measuring, not with --verify: it ends a run before it is verified',
    ],
    [['--spin=1ms'], '--spin goes with --completion adaptive, not with --completion poll'],
    [['/run/a', '/run/a'], "The endpoint '/run/a' is given twice; --numjobs runs several jobs at one"],
    ...['4k/60:8k/60', '4k/60', '4k/', '4k/50:', '4x/100', '100/100', '4k/100,,', ''].map(
      (text): [string[], string] => [
        [`--bssplit=${text}`],
        text === '4k/'
          ? 'accepted'
          : `Option --bssplit does not accept '${text}'; it takes sizes with percentages that add up to 100, such as 4k/60:64k/40, and after a comma those of writes and of trims`,
      ],
    ),
    ...['all', '1-', '1024', ''].map((text): [string[], string] => [
      [`--cpus_allowed=${text}`],
      `Option --cpus_allowed does not accept '${text}'; it takes a list of processors such as 0-2,5`,
    ]),
    ...['iops', 'iops:', 'iops:0', 'iops:x%', 'lat:5%', 'bw:1.5.5%'].map((text): [string[], string] => [
      [`--steadystate=${text}`],
      `Option --steadystate does not accept '${text}'; it takes iops, iops_slope, bw or bw_slope with a limit, such as iops:0.5% or bw_slope:1m`,
    ]),
  ])('%j is refused', (args, message) => {
    if (message === 'accepted') expect(plan(...args).jobs).toHaveLength(1);
    else expect(refusal(...args)).toBe(message);
  });
});

describe('a job file', () => {
  test('is read as fio reads it', () => {
    const file = jobFile(`
      ; A comment.
      # Another.
      [global]
      ioengine = libaio   ; without meaning here
      direct=1
      bs=8k
      runtime=60
      time_based
      group_reporting
      write_bw_log=log

      [readers]
      rw=randread
      iodepth=16
      numjobs=2

      [writer]
      rw=write
      rate=10m
      bs=64k
    `);
    const { jobs, output, endpoints } = plan(file, '/run/vfio-user/1', '--output-format=json');
    expect(endpoints).toEqual(['/run/vfio-user/1']);
    expect(jobs.map(({ name, options }) => [name, options])).toMatchObject([
      ['readers', { workload: 'randread', blockSize: 8192, depth: 16, jobs: 2, runtime: 60 }],
      // fio's defaults, not those of the command line: one at a time.
      ['writer', { workload: 'write', blockSize: 65_536, depth: 1, jobs: 1, runtime: 60, rate: 10 << 20 }],
    ]);
    expect(jobs.every(({ options }) => options.once !== true)).toBe(true);
    expect(output).toMatchObject({ write_bw_log: 'log', 'output-format': 'json' });
    expect(complained).toBe(`vfio-user: ${file}: without meaning here: ioengine, direct, group_reporting\n`);
  });

  test("has fio's defaults: reads, in order, one at a time, once through the region", () => {
    const [job] = plan(jobFile('[one]\nsize=1g\n')).jobs;
    expect(job!.options).toMatchObject({ workload: 'read', depth: 1, once: true, runtime: undefined });
    expect(complained).toBe('');
  });

  test('the command line takes the place of what the file says', () => {
    const file = jobFile('[one]\nrw=write\nbs=4k\niodepth=4\n');
    expect(plan(file, '--iodepth=7', '--rw=randread').jobs[0]!.options).toMatchObject({
      workload: 'randread',
      blockSize: 4096,
      depth: 7,
    });
  });

  test('names its endpoints, for all jobs or for each', () => {
    const both = plan(jobFile('[global]\nfilename=/run/a:/run/b\n[x]\n[y]\n'));
    expect(both.endpoints).toEqual(['/run/a', '/run/b']);
    expect(both.jobs.map(({ options }) => options.endpoints)).toEqual([
      [0, 1],
      [0, 1],
    ]);
    const each = plan(jobFile('[x]\nfilename=/run/a\n[y]\nfilename=/run/b\\:c\n'));
    expect(each.endpoints).toEqual(['/run/a', '/run/b:c']);
    expect(each.jobs.map(({ options }) => options.endpoints)).toEqual([[0], [1]]);
    // Those of the command line are used instead.
    const line = plan(jobFile('[x]\nfilename=/run/a\n'), '/run/z');
    expect(line.endpoints).toEqual(['/run/z']);
    expect(line.jobs[0]!.options.endpoints).toBeUndefined();
  });

  test.each<[string, string]>([
    ['[a]\niodpeth=4\n', "/job.fio:2: unknown option 'iodpeth'; did you mean iodepth?"],
    [
      '[a]\nfrobnicate=4\n',
      `/job.fio:2: unknown option 'frobnicate'; "vfio-user help bench" lists the options`,
    ],
    ['[a]\nbs=4x\n', /^\/job.fio:2: bs does not accept '4x'; it takes a size/.source],
    ['[a]\n\n# x\nrw=reed\n', /^\/job.fio:4: rw does not accept 'reed'; .*; did you mean read\?/.source],
    ['[a]\nbs=4k\nblocksize=8k\n', "/job.fio:3: 'blocksize' is given twice in this section"],
    ['bs=4k\n', "/job.fio:1: 'bs=4k' stands before the first section, such as [global]"],
    ['', '/job.fio is neither a socket nor a job file with a job, which is a section, such as [reads]'],
    [
      '[global]\nbs=4k\n',
      '/job.fio is neither a socket nor a job file with a job, which is a section, such as [reads]',
    ],
    ['[a]\n[a]\n', '/job.fio:2: there is a section [a] already'],
    ['[a]\n[global]\n', '/job.fio:2: [global] comes before the jobs, for all of which it holds'],
    ['[a]\nss=iops:1%\n', "/job.fio:2: 'ss' holds for the whole run; move it to [global]"],
    [
      '[a]\nstonewall\n',
      "/job.fio:2: 'stonewall' is not known here: jobs run at the same time; put what comes after into a file of its own",
    ],
    [
      '[a]\ntimeout=5\n',
      "/job.fio:2: 'timeout' is not known here: in fio it is another name of runtime; write runtime",
    ],
    ['[global]\ndemo\n[a]\n', "/job.fio:2: 'demo' is for the command line alone"],
    ['[a]\nverify=crc32c\nrw=write\n', /^\/job.fio:2: verify takes no value, or 0 or 1/.source],
    ['[a]\niodepth\n', /^\/job.fio:2: iodepth needs a value: a whole number/.source],
    [
      '[a]\nrate=1m\nrate_iops=5\n',
      '/job.fio: [a]: --rate and --rate_iops contradict each other; leave one out',
    ],
    [
      '[a]\nrw=write\nverify\n[b]\nrw=write\n',
      '[a] verifies what it writes, which other jobs would overwrite; put it into a file of its own',
    ],
    [
      '[a]\nfilename=/x\n[b]\n',
      '[b] of the job file names no endpoint, as other sections do; give it a filename',
    ],
    ['\0', '/job.fio is neither a socket nor a job file'],
  ])('%j is refused', (text, message) => {
    const found = refusal(jobFile(text));
    if (message.startsWith('^')) expect(found).toMatch(new RegExp(message));
    else expect(found).toBe(message);
  });

  test('there is one at a time', () => {
    const other = join(directory, 'other.fio');
    writeFileSync(other, '[a]\n');
    expect(refusal(jobFile('[a]\n'), other)).toBe(
      'There are two job files, /job.fio and /other.fio; one is run at a time',
    );
  });
});
