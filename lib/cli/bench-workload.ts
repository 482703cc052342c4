// SPDX-License-Identifier: MIT
import { randomInt } from 'node:crypto';
import { COMPLETION_MODES, WORKLOADS, type Distribution } from '../bench/job';
import type { FioOptions } from '../bench/job-result';
import type { BenchmarkOptions } from '../bench/options';
import { UsageError, type CommandSpec, type OptionValues } from './option-spec';
import { printable } from './output';

const DEFAULT_RUNTIME = 10;
const DEFAULT_READ_PERCENT = 50;
/** Exponent of `zipf` without a number, which is fio's default. */
const DEFAULT_THETA = 1.1;

/** The options of `bench` that say what to run, by fio's names. */
export const WORKLOAD_OPTIONS = {
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
    help: 'Jobs at each endpoint, each with a thread and queues of its own.',
  },
  runtime: {
    type: 'duration',
    min: 0.001,
    help: `How long to run. Default: ${DEFAULT_RUNTIME}, or with --io_size or --verify until that is done.`,
  },
  ramp_time: {
    type: 'duration',
    min: 0,
    max: 86_400,
    help: 'How long to run before the measurement begins. Default: 0.',
  },
  size: {
    type: 'size',
    min: 512,
    help: 'Bytes to use, from the start of the namespace. Default: all of it.',
  },
  io_size: { type: 'size', min: 512, help: 'Bytes that each job transfers; the run ends with them.' },
  rate_iops: { type: 'count', min: 1, help: 'Most I/Os per second of each job. Default: no limit.' },
  random_distribution: {
    type: 'form',
    placeholder: 'law',
    default: 'random',
    expected: 'random, zipf, or zipf:<skew> with a skew above 0 and up to 10',
    parse: parseDistribution,
    help: 'How random workloads choose blocks: random, or zipf with its skew, such as zipf:1.2.',
  },
  completion: {
    type: 'choice',
    choices: COMPLETION_MODES,
    default: 'poll',
    help: 'How jobs learn of completions; adaptive looks for them for a while before it sleeps.',
  },
  spin: { type: 'duration', min: 0, max: 1, help: 'How long adaptive looks for completions. Default: 50us.' },
  rwmixread: {
    type: 'integer',
    min: 0,
    max: 100,
    help: `Percentage of reads of randrw. Default: ${DEFAULT_READ_PERCENT}.`,
  },
  verify: { type: 'boolean', help: 'Write a pattern, read back what was written, and compare.' },
  nsid: { type: 'integer', min: 1, max: 0xffff_fffe, help: 'Namespace id. Default: the first.' },
  randseed: {
    type: 'integer',
    min: 0,
    max: 0xffff_ffff,
    help: 'Seed of order and pattern. Default: 1, or with --verify a new one, so that old data is not taken for new.',
  },
} as const satisfies CommandSpec['options'];

/** Their values. */
export type WorkloadOptions = OptionValues<{
  readonly options: typeof WORKLOAD_OPTIONS;
}>;

/**
 * The options as the benchmark takes them.
 *
 * @throws UsageError for options that contradict each other
 */
export function benchmarkOptions(options: WorkloadOptions): BenchmarkOptions {
  const { rw, verify, completion } = options;
  if (options.rwmixread !== undefined && rw !== 'randrw')
    throw new UsageError(`--rwmixread goes with --rw randrw, not with --rw ${rw}`);
  if (options.spin !== undefined && completion !== 'adaptive')
    throw new UsageError(`--spin goes with --completion adaptive, not with --completion ${completion}`);
  if (options.random_distribution.kind !== 'uniform' && !rw.startsWith('rand'))
    throw new UsageError(`--random_distribution goes with a random workload, not with --rw ${rw}`);
  const ioSize = options.io_size;
  return {
    workload: rw,
    blockSize: options.bs,
    depth: options.iodepth,
    jobs: options.numjobs,
    runtime: options.runtime ?? (verify || ioSize !== undefined ? undefined : DEFAULT_RUNTIME),
    rampTime: options.ramp_time ?? 0,
    size: options.size,
    ioSize,
    rate: options.rate_iops,
    distribution: options.random_distribution,
    completion,
    ...(options.spin === undefined ? {} : { spinMicroseconds: options.spin * 1e6 }),
    verify,
    readShare: (options.rwmixread ?? DEFAULT_READ_PERCENT) / 100,
    seed: options.randseed ?? (verify ? randomInt(2 ** 32) : 1),
    nsid: options.nsid,
  };
}

/** The options in fio's names and spelling, for the report. */
export function fioOptions(
  options: WorkloadOptions,
  { runtime, seed }: BenchmarkOptions,
  filename: string,
): FioOptions {
  const given: readonly (readonly [name: string, value: string | number | undefined])[] = [
    ['runtime', runtime],
    ['ramp_time', options.ramp_time],
    ['size', options.size],
    ['io_size', options.io_size],
    ['rate_iops', options.rate_iops],
    ['random_distribution', lawText(options.random_distribution)],
    ['completion', options.completion === 'poll' ? undefined : options.completion],
    ['rwmixread', options.rw === 'randrw' ? (options.rwmixread ?? DEFAULT_READ_PERCENT) : undefined],
    ['verify', options.verify ? 'pattern' : undefined],
    ['nsid', options.nsid],
    ['randseed', seed],
    ['filename', printable(filename)],
  ];
  return {
    rw: options.rw,
    bs: String(options.bs),
    iodepth: String(options.iodepth),
    numjobs: String(options.numjobs),
    ...Object.fromEntries(
      given.flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]])),
    ),
  };
}

/** Undefined for the default. */
function lawText(distribution: Distribution): string | undefined {
  return distribution.kind === 'zipf' ? `zipf:${distribution.theta}` : undefined;
}

function parseDistribution(law: string): Distribution | undefined {
  const match = /^(?:(random)|zipf(?::(\d+(?:\.\d+)?))?)$/.exec(law);
  const theta = Number(match?.[2] ?? DEFAULT_THETA);
  if (match === null || !(theta > 0 && theta <= 10)) return undefined;
  return match[1] === undefined ? { kind: 'zipf', theta } : { kind: 'uniform' };
}
