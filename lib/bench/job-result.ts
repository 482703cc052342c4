// SPDX-License-Identifier: MIT
import type { FoundDepth } from './depth-search';
import type { Gap } from './gap';
import { HISTOGRAM_SLOTS, LatencyHistogram } from '../latency-histogram';
import { DIRECTIONS } from './job';
import { NO_SAMPLES, mergeSamples, type Samples } from './samples';

/** Time between two samples of a job, in milliseconds, unless another one is asked for. */
export const SAMPLE_MILLISECONDS = 500;

/** What a job did in one direction. */
export interface DirectionResult {
  /** Completed I/Os. */
  readonly ios: number;
  /** Bytes that they transferred, or deallocated. */
  readonly bytes: number;
  /** Milliseconds of the measured run; 0 when the direction was not used. */
  readonly runtimeMs: number;
  /** Time from submission to completion: the data of a {@link LatencyHistogram}. */
  readonly latency: Float64Array;
  /** What it did in each interval of `sampleMs` milliseconds. */
  readonly samples: Samples;
}

/** What a run cost the processor, in the threads of its jobs. */
export interface CpuUsage {
  readonly userMs: number;
  readonly systemMs: number;
  /** Milliseconds in which the threads were ready to run, and had no processor. */
  readonly waitedMs: number;
  /** Voluntary and involuntary ones. */
  readonly contextSwitches: number;
  readonly majorFaults: number;
  readonly minorFaults: number;
}

/** Why a job ended. */
export interface JobEnd {
  /**
   * - `running`: it has not; the result is what it has done so far.
   * - `finished`: its time was over, or all of its I/Os were done.
   * - `stopped`: it was asked to end.
   * - `failed`: a command completed with an error status.
   * - `mismatch`: data that was read back is not what was written.
   * - `stray`: the device completed a command that was not in flight.
   * - `stalled`: the device stopped completing commands.
   * - `lost`: the connection to the device ended, and there was no other in time.
   * - `replaced`: the server came back with another drive.
   * - `broken`: the controller says that it has failed.
   */
  readonly reason:
    | 'running'
    | 'finished'
    | 'stopped'
    | 'failed'
    | 'mismatch'
    | 'stray'
    | 'stalled'
    | 'lost'
    | 'replaced'
    | 'broken';
  /** What the device did: the rest of a sentence that begins with its name. Empty for `finished` and `stopped`. */
  readonly message: string;
}

/**
 * What one job did, or several that {@link mergeResults} has put together. It is plain data, which goes from the thread of
 * the job to every report.
 */
export interface JobResult {
  /** Number of jobs in this result. */
  readonly jobs: number;
  readonly read: DirectionResult;
  readonly write: DirectionResult;
  readonly trim: DirectionResult;
  /** Milliseconds between two samples. */
  readonly sampleMs: number;
  /** Milliseconds of the measured run, without ramp and reading back; the longest of several jobs. */
  readonly runtimeMs: number;
  readonly cpu: CpuUsage;
  /** I/Os by the number in flight when each was submitted; see {@link depthSlot}. */
  readonly depthCounts: Float64Array;
  /**
   * Batches by size; see {@link batchSlot}. A batch is the completions that one look at the queue has found, and also the
   * commands that were submitted in their place with one doorbell.
   */
  readonly batchCounts: Float64Array;
  /** The numbers in flight that the jobs with a latency target have found. */
  readonly foundDepths: readonly FoundDepth[];
  /** I/Os that failed, or whose data was not what was written. */
  readonly errors: number;
  /** Text of the first of them. */
  readonly firstError?: string | undefined;
  /** I/O-sized blocks that were read back and compared, and how many of them differed. */
  readonly verified: number;
  readonly mismatches: number;
  /** Why the job ended; of several jobs the end of one that failed, if any did. */
  readonly ended: JobEnd;
}

/**
 * Options by their fio names and in fio's spelling, such as
 * `{ rw: 'randread', bs: '4k', iodepth: '32', numjobs: '1' }`.
 */
export interface FioOptions {
  readonly rw: string;
  readonly bs: string;
  readonly iodepth: string;
  readonly numjobs: string;
  readonly [name: string]: string;
}

/**
 * What a report shows by itself: an endpoint with its jobs, or a group of jobs. A run of one endpoint has one part. All
 * parts of a report ran at the same time.
 */
export interface ReportPart {
  readonly name: string;
  /** What was measured, such as a path and a namespace. Printable. */
  readonly target: string;
  readonly options: FioOptions;
  readonly result: JobResult;
  /** Why the figures are not those of the device; see `doubts`. */
  readonly doubts?: readonly string[];
  /** When the server was away, and came back or was waited for. */
  readonly gaps?: readonly Gap[];
}

/** True for a job that did not end as it was meant to. */
function hasFailed({ ended: { reason } }: JobResult): boolean {
  return reason !== 'finished' && reason !== 'stopped' && reason !== 'running';
}

/** Minimum, maximum, mean and standard deviation (divisor n - 1) of a series; all 0 when it is empty. */
export interface Summary {
  readonly count: number;
  readonly min: number;
  readonly max: number;
  readonly mean: number;
  readonly stddev: number;
}

/** Number of slots of the counters that {@link depthSlot} and {@link batchSlot} index. */
export const COUNT_SLOTS = 7;

/** Slot of a queue depth of at least 1: 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64 and more (fio: `iodepth_level`). */
export function depthSlot(depth: number): number {
  return depth >= 64 ? 6 : 31 - Math.clz32(depth);
}

/** Slot of the size of a batch: 0, 1-4, 5-8, 9-16, 17-32, 33-64, more (fio: `iodepth_submit`, `iodepth_complete`). */
export function batchSlot(size: number): number {
  if (size === 0) return 0;
  if (size <= 4) return 1;
  return size > 64 ? 6 : 31 - Math.clz32(size - 1);
}

/** A direction in which nothing was done. @internal Exported for its test. */
export function emptyDirection(): DirectionResult {
  return {
    ios: 0,
    bytes: 0,
    runtimeMs: 0,
    latency: new Float64Array(HISTOGRAM_SLOTS),
    samples: NO_SAMPLES,
  };
}

/** The latencies of a direction, for reading. */
export function latencyOf({ latency }: Pick<DirectionResult, 'latency'>): LatencyHistogram {
  return new LatencyHistogram(latency);
}

/** I/Os per second; 0 when the direction was not used. */
export function iops({ ios, runtimeMs }: DirectionResult): number {
  return runtimeMs > 0 ? (ios * 1000) / runtimeMs : 0;
}

/** Bytes per second; 0 when the direction was not used. */
export function bandwidth({ bytes, runtimeMs }: DirectionResult): number {
  return runtimeMs > 0 ? (bytes * 1000) / runtimeMs : 0;
}

/** Statistics of a series of samples. */
export function summarize(samples: readonly number[]): Summary {
  const count = samples.length;
  if (count === 0) return { count, min: 0, max: 0, mean: 0, stddev: 0 };
  const mean = total(samples) / count;
  const squares = total(samples.map((sample) => (sample - mean) ** 2));
  return {
    count,
    min: samples.reduce((least, sample) => Math.min(least, sample), Infinity),
    max: samples.reduce((most, sample) => Math.max(most, sample), -Infinity),
    mean,
    stddev: count < 2 ? 0 : Math.sqrt(squares / (count - 1)),
  };
}

/** The result of jobs that ran at the same time. */
export function mergeResults(results: readonly JobResult[]): JobResult {
  const sum = (pick: (result: JobResult) => number): number => total(results.map(pick));
  const counts = (pick: (result: JobResult) => Float64Array): Float64Array =>
    Float64Array.from({ length: COUNT_SLOTS }, (_, slot) => sum((result) => pick(result)[slot] ?? 0));
  const ending =
    results.find(hasFailed) ?? results.find(({ ended }) => ended.reason === 'stopped') ?? results[0];
  return {
    jobs: sum(({ jobs }) => jobs),
    read: mergeDirections(results.map(({ read }) => read)),
    write: mergeDirections(results.map(({ write }) => write)),
    trim: mergeDirections(results.map(({ trim }) => trim)),
    sampleMs: results[0]?.sampleMs ?? SAMPLE_MILLISECONDS,
    runtimeMs: longest(results.map(({ runtimeMs }) => runtimeMs)),
    cpu: {
      userMs: sum(({ cpu }) => cpu.userMs),
      systemMs: sum(({ cpu }) => cpu.systemMs),
      waitedMs: sum(({ cpu }) => cpu.waitedMs),
      contextSwitches: sum(({ cpu }) => cpu.contextSwitches),
      majorFaults: sum(({ cpu }) => cpu.majorFaults),
      minorFaults: sum(({ cpu }) => cpu.minorFaults),
    },
    depthCounts: counts(({ depthCounts }) => depthCounts),
    batchCounts: counts(({ batchCounts }) => batchCounts),
    foundDepths: results.flatMap(({ foundDepths }) => foundDepths),
    errors: sum(({ errors }) => errors),
    firstError: results.find(({ firstError }) => firstError !== undefined)?.firstError,
    verified: sum(({ verified }) => verified),
    mismatches: sum(({ mismatches }) => mismatches),
    ended: ending?.ended ?? { reason: 'finished', message: '' },
  };
}

/** All directions of a result together. */
export function allDirections(result: Pick<JobResult, 'read' | 'write' | 'trim'>): DirectionResult {
  return mergeDirections(DIRECTIONS.map((direction) => result[direction]));
}

function mergeDirections(parts: readonly DirectionResult[]): DirectionResult {
  const latency = new LatencyHistogram();
  for (const part of parts) latency.merge(latencyOf(part));
  return {
    ios: total(parts.map(({ ios }) => ios)),
    bytes: total(parts.map(({ bytes }) => bytes)),
    runtimeMs: longest(parts.map(({ runtimeMs }) => runtimeMs)),
    latency: latency.data,
    samples: mergeSamples(parts.map(({ samples }) => samples)),
  };
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function longest(values: readonly number[]): number {
  return values.reduce((most, value) => Math.max(most, value), 0);
}
