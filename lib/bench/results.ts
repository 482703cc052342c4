// SPDX-License-Identifier: MIT
import { LatencyHistogram } from './histogram';

/** Options of a job by their fio names and in fio's spelling, such as `{ rw: 'randread', bs: '4k', iodepth: '32', numjobs: '1' }`. */
export interface JobOptions {
  readonly rw: string;
  readonly bs: string;
  readonly iodepth: string;
  readonly numjobs: string;
  readonly [name: string]: string;
}

/** What a job did in one direction, reads or writes. */
export interface DirectionResult {
  /** Completed I/Os. */
  readonly ios: number;
  /** Bytes moved by them. */
  readonly bytes: number;
  /** Time in ms over which they ran, without ramp time. 0 when the direction was not used. */
  readonly runtimeMs: number;
  /** From submission to completion, in ns. */
  readonly latency: LatencyHistogram;
  /** I/Os per second in each interval of the run, in order. */
  readonly iopsSamples: readonly number[];
  /** Bytes per second in each interval of the run, in order. */
  readonly bandwidthSamples: readonly number[];
}

/** What the run cost the processor, sums over the threads of the jobs. */
export interface CpuUsage {
  readonly userMs: number;
  readonly systemMs: number;
  /** Voluntary and involuntary. */
  readonly contextSwitches: number;
  readonly majorFaults: number;
  readonly minorFaults: number;
}

/** What one job did, or several merged by {@link mergeJobs}. */
export interface JobResult {
  readonly name: string;
  /** Number of jobs in this result. */
  readonly jobs: number;
  readonly read: DirectionResult;
  readonly write: DirectionResult;
  /** Time in ms that the job ran, without ramp time; of merged jobs the longest. */
  readonly runtimeMs: number;
  /** I/Os that failed, or whose data was not what was written. */
  readonly errors: number;
  /** Text of the first failure. */
  readonly firstError?: string | undefined;
  readonly cpu: CpuUsage;
  /** I/Os by the number in flight when each was submitted; see {@link depthSlot}. */
  readonly depthCounts: Float64Array;
  /** Doorbell writes by the number of commands each submitted; see {@link batchSlot}. */
  readonly submitCounts: Float64Array;
  /** Polls by the number of completions each found; see {@link batchSlot}. */
  readonly completeCounts: Float64Array;
}

/**
 * What a report shows by itself: an endpoint with its jobs, or a group of jobs. A run of one endpoint has one part. All
 * parts of a report ran at the same time.
 */
export interface ReportPart {
  /** What was measured, such as a path and a namespace. Printable. */
  readonly target: string;
  readonly options: JobOptions;
  readonly result: JobResult;
}

/** Minimum, maximum, mean and standard deviation (divisor n - 1) of a series; all 0 when it is empty. */
export interface Summary {
  readonly count: number;
  readonly min: number;
  readonly max: number;
  readonly mean: number;
  readonly stddev: number;
}

/** Slots of the counters that {@link depthSlot} and {@link batchSlot} index. */
export const DEPTH_SLOTS = 7;

/** Slot of a queue depth: 1, 2-3, 4-7, 8-15, 16-31, 32-63, 64 and more (fio: `iodepth_level`). `depth` is at least 1. */
export function depthSlot(depth: number): number {
  return depth >= 64 ? 6 : 31 - Math.clz32(depth);
}

/** Slot of the size of a batch: 0, 1-4, 5-8, 9-16, 17-32, 33-64, more (fio: `iodepth_submit`, `iodepth_complete`). */
export function batchSlot(size: number): number {
  if (size === 0) return 0;
  if (size <= 4) return 1;
  return size > 64 ? 6 : 31 - Math.clz32(size - 1);
}

/** A direction in which nothing was done. */
export function emptyDirection(): DirectionResult {
  return {
    ios: 0,
    bytes: 0,
    runtimeMs: 0,
    latency: new LatencyHistogram(),
    iopsSamples: [],
    bandwidthSamples: [],
  };
}

/** I/Os per second; 0 when the direction was not used. */
export function iops(direction: DirectionResult): number {
  return direction.runtimeMs > 0 ? (direction.ios * 1000) / direction.runtimeMs : 0;
}

/** Bytes per second; 0 when the direction was not used. */
export function bandwidth(direction: DirectionResult): number {
  return direction.runtimeMs > 0 ? (direction.bytes * 1000) / direction.runtimeMs : 0;
}

/** Statistics of a series of samples. */
export function summarize(samples: readonly number[]): Summary {
  const count = samples.length;
  if (count === 0) return { count, min: 0, max: 0, mean: 0, stddev: 0 };
  let min = Infinity;
  let max = -Infinity;
  let sum = 0;
  for (const sample of samples) {
    min = Math.min(min, sample);
    max = Math.max(max, sample);
    sum += sample;
  }
  const mean = sum / count;
  let squares = 0;
  for (const sample of samples) squares += (sample - mean) ** 2;
  return { count, min, max, mean, stddev: count < 2 ? 0 : Math.sqrt(squares / (count - 1)) };
}

/**
 * Adds what ran at the same time: several jobs, or reads and writes. Samples add interval by interval, because
 * the rates of the same moment add up; the run time is the longest.
 */
export function mergeDirections(parts: readonly DirectionResult[]): DirectionResult {
  const latency = new LatencyHistogram();
  for (const part of parts) latency.merge(part.latency);
  return {
    ios: total(parts.map((part) => part.ios)),
    bytes: total(parts.map((part) => part.bytes)),
    runtimeMs: longest(parts.map((part) => part.runtimeMs)),
    latency,
    iopsSamples: addSeries(parts.map((part) => part.iopsSamples)),
    bandwidthSamples: addSeries(parts.map((part) => part.bandwidthSamples)),
  };
}

/** The result of several jobs that ran at the same time. */
export function mergeJobs(name: string, jobs: readonly JobResult[]): JobResult {
  return {
    name,
    jobs: total(jobs.map((job) => job.jobs)),
    read: mergeDirections(jobs.map((job) => job.read)),
    write: mergeDirections(jobs.map((job) => job.write)),
    runtimeMs: longest(jobs.map((job) => job.runtimeMs)),
    errors: total(jobs.map((job) => job.errors)),
    firstError: jobs.find((job) => job.firstError !== undefined)?.firstError,
    cpu: {
      userMs: total(jobs.map((job) => job.cpu.userMs)),
      systemMs: total(jobs.map((job) => job.cpu.systemMs)),
      contextSwitches: total(jobs.map((job) => job.cpu.contextSwitches)),
      majorFaults: total(jobs.map((job) => job.cpu.majorFaults)),
      minorFaults: total(jobs.map((job) => job.cpu.minorFaults)),
    },
    depthCounts: addCounts(jobs.map((job) => job.depthCounts)),
    submitCounts: addCounts(jobs.map((job) => job.submitCounts)),
    completeCounts: addCounts(jobs.map((job) => job.completeCounts)),
  };
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function longest(values: readonly number[]): number {
  return values.reduce((max, value) => Math.max(max, value), 0);
}

function addSeries(series: readonly (readonly number[])[]): number[] {
  const length = longest(series.map((samples) => samples.length));
  return Array.from({ length }, (_, index) => total(series.map((samples) => samples[index] ?? 0)));
}

function addCounts(counts: readonly Float64Array[]): Float64Array {
  return Float64Array.from({ length: DEPTH_SLOTS }, (_, slot) =>
    total(counts.map((each) => each[slot] ?? 0)),
  );
}
