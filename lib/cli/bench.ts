// SPDX-License-Identifier: MIT
import { randomInt } from 'node:crypto';
import { benchmark, type BenchmarkOptions, type BenchmarkResult } from '../bench/benchmark';
import { fioReport } from '../bench/fio-json';
import { WORKLOADS, writes } from '../bench/plan';
import { formatReport } from '../bench/report-text';
import { mergeJobs, type JobOptions } from '../bench/results';
import { formatSize, parseSize } from '../bench/units';
import { connect } from '../client';
import { BenchDisplay } from './bench-display';
import { defineCommand } from './command';
import { runDemo } from './demo';
import { startEmbeddedEndpoint } from './embedded-endpoint';
import { interruptible } from './interrupt';
import { UsageError, type CommandSpec, type OptionValues } from './options';
import { complain, print, printable } from './output';
import { packageVersion } from './version';

const DEFAULT_RUNTIME = 10;
const DEFAULT_READ_PERCENT = 50;
const EMBEDDED_SIZE = parseSize('1g');
/** The embedded endpoint's memory comes in pages. */
const EMBEDDED_UNIT = 4096;

const SPEC = {
  name: 'bench',
  summary: 'Measure an NVMe controller: IOPS, bandwidth, latency; or verify what it stores.',
  positionals: [
    {
      name: 'endpoint',
      help: "Path of the controller's socket, or SPDK's directory. Without it, a controller of this package is started and measured.",
      optional: true,
    },
  ],
  options: {
    rw: {
      type: 'choice',
      choices: WORKLOADS,
      default: 'randread',
      help: 'Workload. Those that write destroy data.',
    },
    bs: { type: 'size', default: '4k', min: 512, help: 'Bytes of an I/O.' },
    iodepth: { type: 'count', default: '32', min: 1, max: 65_535, help: 'I/Os in flight of each job.' },
    numjobs: {
      type: 'count',
      default: '1',
      min: 1,
      max: 1024,
      help: 'Jobs, each with a thread and queues of its own.',
    },
    runtime: {
      type: 'duration',
      min: 0.001,
      help: `How long to run. Default: ${String(DEFAULT_RUNTIME)}, or with --verify until the region is written once.`,
    },
    size: {
      type: 'size',
      min: 512,
      help: 'Bytes to use, from the start of the namespace. Default: all of it.',
    },
    rwmixread: {
      type: 'integer',
      min: 0,
      max: 100,
      help: `Percentage of reads of randrw. Default: ${String(DEFAULT_READ_PERCENT)}.`,
    },
    verify: { type: 'boolean', help: 'Write a pattern, read back what was written, and compare.' },
    nsid: { type: 'integer', min: 1, max: 0xffff_fffe, help: 'Namespace id. Default: the first.' },
    randseed: {
      type: 'integer',
      min: 0,
      max: 0xffff_ffff,
      help: 'Seed of order and pattern. Default: 1, or with --verify a new one, so that old data is not taken for new.',
    },
    'output-format': {
      type: 'choice',
      choices: ['normal', 'json'],
      default: 'normal',
      help: "Report; json is fio's.",
    },
    'connect-timeout': { type: 'duration', default: '5', min: 0.001, max: 86_400, help: 'Time to connect.' },
    demo: { type: 'boolean', help: 'Show what the tool does, step by step, in less than half a minute.' },
  },
} as const satisfies CommandSpec;

type Options = OptionValues<typeof SPEC>;

/** `vfio-user bench` */
export const bench = defineCommand(SPEC, async (options, [endpoint]) => {
  if (options.demo) {
    if (endpoint !== undefined) {
      throw new UsageError(
        '--demo writes data, so it runs on an endpoint of its own only; leave out the endpoint',
      );
    }
    return interruptible(runDemo);
  }
  if (options.rwmixread !== undefined && options.rw !== 'randrw') {
    throw new UsageError(`--rwmixread goes with --rw randrw, not with --rw ${options.rw}`);
  }
  return interruptible(async (signal) => {
    if (endpoint !== undefined) {
      await run(endpoint, options, signal);
      return;
    }
    const wanted = options.size ?? EMBEDDED_SIZE;
    const size = Math.ceil(wanted / EMBEDDED_UNIT) * EMBEDDED_UNIT;
    await using embedded = await startEmbeddedEndpoint(size, signal);
    // Awaited here: the endpoint ends where its scope does.
    await run(embedded.path, options, signal, 'embedded endpoint');
  });
});

/** @param alias what to call the endpoint in the report, instead of its path */
async function run(endpoint: string, options: Options, signal: AbortSignal, alias?: string): Promise<void> {
  await using device = await connect(endpoint, {
    connectTimeout: options['connect-timeout'] * 1000,
    signal,
  });
  const display = new BenchDisplay(process.stderr, options);
  const started = new Date();
  const settings = benchmarkOptions(options);
  let result: BenchmarkResult;
  try {
    result = await benchmark(device, {
      ...settings,
      signal,
      onStart: () => {
        if (alias === undefined && writes(options.rw)) complain(destruction(endpoint, options));
      },
      onProgress: (progress) => {
        display.update(progress);
      },
    });
  } finally {
    display.clear();
  }
  const job = mergeJobs('bench', result.jobs);
  const words = jobOptions(options, settings, alias ?? endpoint);
  if (options['output-format'] === 'json') {
    const version = packageVersion();
    const report = fioReport({ version, started, ended: new Date(), options: words, jobs: [job] });
    print(JSON.stringify(report, null, 2));
  } else {
    const target = printable(`${alias ?? endpoint}, namespace ${String(result.target.nsid)}`);
    print(`${deviceText(result)}\n\n${formatReport(target, words, job)}${remarks(result)}`);
  }
  if (result.failure !== undefined) throw result.failure;
}

function benchmarkOptions(options: Options): BenchmarkOptions {
  return {
    workload: options.rw,
    blockSize: options.bs,
    depth: options.iodepth,
    jobs: options.numjobs,
    runtime: options.runtime ?? (options.verify ? undefined : DEFAULT_RUNTIME),
    size: options.size,
    verify: options.verify,
    readShare: (options.rwmixread ?? DEFAULT_READ_PERCENT) / 100,
    seed: options.randseed ?? (options.verify ? randomInt(2 ** 32) : 1),
    nsid: options.nsid,
  };
}

/** The options in fio's names and spelling, for the report. */
function jobOptions(options: Options, settings: BenchmarkOptions, filename: string): JobOptions {
  return {
    rw: options.rw,
    bs: String(options.bs),
    iodepth: String(options.iodepth),
    numjobs: String(options.numjobs),
    ...(settings.runtime === undefined ? {} : { runtime: String(settings.runtime) }),
    ...(options.size === undefined ? {} : { size: String(options.size) }),
    ...(options.rw === 'randrw' ? { rwmixread: String(options.rwmixread ?? DEFAULT_READ_PERCENT) } : {}),
    ...(options.verify ? { verify: 'pattern' } : {}),
    randseed: String(settings.seed),
    filename: printable(filename),
  };
}

function destruction(endpoint: string, { rw, size, nsid }: Options): string {
  const namespace = nsid === undefined ? 'the first namespace' : `namespace ${String(nsid)}`;
  const part = size === undefined ? 'all' : `the first ${formatSize(size)}`;
  return `--rw ${rw} overwrites ${part} of ${namespace} of ${endpoint}`;
}

function deviceText({ target }: BenchmarkResult): string {
  const { model, version, lbaSize, capacity, mappedDoorbells } = target;
  const doorbells = mappedDoorbells ? 'mapped doorbells' : 'doorbells by message';
  return printable(
    `${model.trim()}, NVMe ${version}, ${formatSize(capacity)} in blocks of ${String(lbaSize)} bytes, ${doorbells}`,
  );
}

/** What a run with verification, or one that was cut short, has to say beyond the table. */
function remarks({ verified, mismatches, interrupted }: BenchmarkResult): string {
  return [
    ...(verified > 0
      ? [
          `verify: ${String(verified)} blocks read back, ${mismatches === 0 ? 'all as written' : `${String(mismatches)} differ`}\n`,
        ]
      : []),
    ...(interrupted ? ['interrupted: these are the results up to then\n'] : []),
  ].join('');
}
