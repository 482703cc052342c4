// SPDX-License-Identifier: MIT
import { randomInt } from 'node:crypto';
import { directionsOf, isMixed, isRandom, trims, writes, type Workload } from '../bench/job';
import type { FioOptions } from '../bench/job-result';
import type { LatencyTargetOptions, RunOptions, WorkloadOptions } from '../bench/options';
import { sizesOf } from '../bench/options';
import { formatSize } from '../bench/units';
import {
  DEFAULT_READ_PERCENT,
  DEFAULT_RUNTIME,
  WORKLOAD_OPTIONS,
  type RunValues,
  type WorkloadValues,
} from './bench-options';
import { UsageError } from './option-spec';
import { printable } from './output';

const DEFAULT_LATENCY_WINDOW = 0.5;
const DEFAULT_STEADY_SECONDS = 5;

/** Options as they were given, by name: their text, or true for a flag that stands alone. */
export type GivenOptions = ReadonlyMap<string, string | true>;

/**
 * The options of a job as the benchmark takes them.
 *
 * @throws UsageError for options that contradict each other, or have no effect beside others
 */
export function workloadOptions(values: WorkloadValues, given: GivenOptions): WorkloadOptions {
  const workload = values.rw === 'readwrite' ? 'rw' : values.rw;
  checkTogether(values, workload, given);
  const { verify, completion, bs, bssplit, fua, readfua, writefua } = values;
  const ioSize = values.io_size;
  const once = (!values.time_based && ioSize === undefined) || undefined;
  const endless = verify || ioSize !== undefined || once === true;
  const split = bssplit ?? bs;
  const sizes = sizesOf({ workload, split, blockSize: 0, depth: 1, jobs: 1, verify, seed: 0 });
  const directions = directionsOf(workload);
  return {
    workload,
    blockSize: sizes.at(-1) ?? 0,
    split: sizes.length === 1 ? undefined : split,
    depth: values.iodepth,
    jobs: values.numjobs,
    runtime: values.runtime ?? (endless ? undefined : DEFAULT_RUNTIME),
    ...(once === undefined ? {} : { once }),
    rampTime: values.ramp_time ?? 0,
    offset: values.offset ?? 0,
    size: values.size,
    ioSize,
    rate: values.rate,
    rateIops: values.rate_iops,
    thinkTime: values.thinktime ?? 0,
    thinkBlocks: values.thinktime_blocks ?? 1,
    latencyTarget: latencyTarget(values),
    fua: {
      read: (fua && directions.includes('read')) || readfua,
      write: (fua && directions.includes('write')) || writefua,
    },
    distribution: values.random_distribution,
    completion,
    ...(values.spin === undefined ? {} : { spinMicroseconds: values.spin * 1e6 }),
    ...(values.cpus_allowed === undefined ? {} : { processors: values.cpus_allowed }),
    verify,
    readShare: (values.rwmixread ?? DEFAULT_READ_PERCENT) / 100,
    seed: values.randseed ?? (verify ? randomInt(2 ** 32) : 1),
    nsid: values.nsid,
  };
}

function latencyTarget(values: WorkloadValues): LatencyTargetOptions | undefined {
  if (values.latency_target === undefined) return undefined;
  return {
    latency: values.latency_target,
    percentile: values.latency_percentile ?? 100,
    window: values.latency_window ?? DEFAULT_LATENCY_WINDOW,
  };
}

/** Refuses what would be ignored. */
function checkTogether(values: WorkloadValues, workload: Workload, given: GivenOptions): void {
  const together = (name: string, allowed: boolean, other: string): void => {
    if (given.has(name) && !allowed) throw new UsageError(`--${name} goes with ${other}`);
  };
  const apart = (name: string, other: string): void => {
    if (given.has(name) && given.has(other))
      throw new UsageError(`--${name} and --${other} contradict each other; leave one out`);
  };
  const not = `not with --rw ${values.rw}`;
  together('rwmixread', isMixed(workload), `--rw rw or randrw, ${not}`);
  together('random_distribution', isRandom(workload), `a random workload, ${not}`);
  together(
    'spin',
    values.completion === 'adaptive',
    `--completion adaptive, not with --completion ${values.completion}`,
  );
  together('readfua', directionsOf(workload).includes('read'), `a workload that reads, ${not}`);
  together('writefua', writes(workload), `a workload that writes, ${not}`);
  together(
    'fua',
    directionsOf(workload).some((direction) => direction !== 'trim'),
    `a workload that reads or writes, ${not}`,
  );
  together('thinktime_blocks', values.thinktime !== undefined, '--thinktime');
  for (const name of ['latency_window', 'latency_percentile'])
    together(name, values.latency_target !== undefined, '--latency_target');
  apart('bs', 'bssplit');
  apart('rate', 'rate_iops');
  apart('fua', 'readfua');
  apart('fua', 'writefua');
  for (const other of ['rate', 'rate_iops', 'thinktime', 'verify']) apart('latency_target', other);
  for (const other of ['ramp_time', 'bssplit']) if (values.verify) apart('verify', other);
}

/**
 * The options of a run as the benchmark takes them.
 *
 * @throws UsageError for options that have no effect beside others
 */
export function runOptions(values: RunValues, given: GivenOptions): RunOptions {
  const { steadystate, steadystate_duration: duration, steadystate_ramp_time: rampTime } = values;
  for (const name of ['steadystate_duration', 'steadystate_ramp_time'])
    if (given.has(name) && steadystate === undefined)
      throw new UsageError(`--${name} goes with --steadystate`);
  return {
    timeout: values.timeout,
    steadyState: steadystate && {
      ...steadystate,
      duration: duration ?? DEFAULT_STEADY_SECONDS,
      rampTime: rampTime ?? 0,
    },
  };
}

/** Options that every report shows, given or not. */
const ALWAYS = ['rw', 'bs', 'iodepth', 'numjobs'] as const;

/** The options in fio's names and spelling, for the report: sizes in bytes, counts in units, other values as they were given. */
export function fioOptions(
  values: WorkloadValues,
  { runtime, seed, split, blockSize }: WorkloadOptions,
  given: GivenOptions,
  filename: string,
): FioOptions {
  const shown = (name: keyof WorkloadValues): string => {
    if (name === 'bs') return split === undefined ? String(blockSize) : textOf(given, name);
    const value: unknown = values[name];
    if (name === 'verify') return 'pattern';
    // A duration without a unit means what its option says, so that its text is kept.
    const { type } = WORKLOAD_OPTIONS[name];
    return typeof value === 'number' && type !== 'duration' ? String(value) : textOf(given, name);
  };
  const names = Object.keys(WORKLOAD_OPTIONS) as (keyof WorkloadValues)[];
  const listed = names.filter(
    (name) =>
      !(ALWAYS as readonly string[]).includes(name) &&
      name !== 'randseed' &&
      name !== 'runtime' &&
      given.has(name) &&
      given.get(name) !== '0',
  );
  return {
    rw: values.rw,
    ...(given.has('bssplit') ? { bs: formatSize(blockSize) } : { bs: shown('bs') }),
    iodepth: String(values.iodepth),
    numjobs: String(values.numjobs),
    ...(runtime === undefined ? {} : { runtime: String(runtime) }),
    ...(values.rwmixread === undefined && values.rw.endsWith('rw') && !trims(workloadOf(values))
      ? { rwmixread: String(DEFAULT_READ_PERCENT) }
      : {}),
    ...Object.fromEntries(listed.map((name) => [name, shown(name)])),
    randseed: String(seed),
    filename: printable(filename),
  };
}

function workloadOf({ rw }: WorkloadValues): Workload {
  return rw === 'readwrite' ? 'rw' : rw;
}

/** A flag that stands alone is on. */
function textOf(given: GivenOptions, name: string): string {
  const text = given.get(name) ?? '';
  return text === true ? '1' : text;
}
