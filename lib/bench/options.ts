// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../errors';
import { commonUnit, ioSizes } from './block-sizes';
import {
  directionsOf,
  isRandom,
  trims,
  writes,
  type BlockSplit,
  type CompletionMode,
  type Distribution,
  type Workload,
} from './job';
import type { PartResult } from './part-result';
import type { BenchmarkProgress } from './progress-watch';
import type { SteadyCriterion } from './steady-state';

/** What jobs do. Sizes are in bytes. */
export interface WorkloadOptions {
  readonly workload: Workload;
  /** The endpoints at which the jobs run, by their index in the list of devices. Default: all. */
  readonly endpoints?: readonly number[];
  /** Bytes of one I/O. Of no meaning with {@link split}. */
  readonly blockSize: number;
  /** The sizes of I/Os by direction, where they are not all the same. */
  readonly split?: BlockSplit | undefined;
  /** I/Os in flight of each job. */
  readonly depth: number;
  /** Jobs at each endpoint, each with a queue pair and a thread of its own. */
  readonly jobs: number;
  /** Seconds of the measured run; undefined for a run that ends by {@link ioSize}, or with the region. */
  readonly runtime?: number | undefined;
  /**
   * Ends the run when as much as the region was transferred, each block once, even if there is time left. With a Zipf
   * distribution, or blocks of different sizes, some come again and others not at all. Default: without run time and
   * {@link ioSize}.
   */
  readonly once?: boolean;
  /** Seconds that the workload runs before it is measured. Default 0. */
  readonly rampTime?: number;
  /** Bytes that each job transfers at most. Default without a run time: its region, every block once. */
  readonly ioSize?: number | undefined;
  /** Most I/Os per second of each job. Default: no limit. */
  readonly rateIops?: number | undefined;
  /** Most bytes per second of each job. Default: no limit. */
  readonly rate?: number | undefined;
  /** Seconds of a pause after each {@link thinkBlocks} I/Os, when all of them are complete. Default 0. */
  readonly thinkTime?: number;
  /** I/Os between two pauses. Default 1. */
  readonly thinkBlocks?: number;
  /** The latency to keep by the number of I/Os in flight, up to {@link depth}. It is looked for before the ramp. */
  readonly latencyTarget?: LatencyTargetOptions | undefined;
  /** Force Unit Access for reads, and for writes. Default: neither. */
  readonly fua?: { readonly read: boolean; readonly write: boolean };
  /** How random workloads choose blocks: each equally likely, or by Zipf's law with this skew. Default uniform. */
  readonly distribution?: Distribution;
  /** How jobs learn of completions. Default `poll`. */
  readonly completion?: CompletionMode;
  /** How long mode `adaptive` polls before it sleeps, in microseconds. Default 50. */
  readonly spinMicroseconds?: number;
  /** Numbers of the processors that the threads of the jobs may use. Default: those of the process. */
  readonly processors?: readonly number[];
  /** Where in the namespace the region begins. Default 0. */
  readonly offset?: number;
  /** Bytes of the region. Default: to the end of the namespace. */
  readonly size?: number | undefined;
  /** Write a pattern, read back what was written, and compare. */
  readonly verify: boolean;
  /** Share of reads of `rw` and `randrw`, 0 to 1. Default 0.5. */
  readonly readShare?: number;
  /** Seed of the random order and of the pattern. */
  readonly seed: number;
  /** Namespace id. Default: the first. */
  readonly nsid?: number | undefined;
}

/** A latency to keep. */
export interface LatencyTargetOptions {
  /** Seconds. */
  readonly latency: number;
  /** Percent of the I/Os that must not take longer. */
  readonly percentile: number;
  /** Seconds for which each number in flight is tried. */
  readonly window: number;
}

/** How a run goes. */
export interface RunOptions {
  /** Milliseconds between two samples of rates and latency. Default 500. */
  readonly sampleMs?: number;
  /** Ends the run as if its time were over, once its rate is steady. */
  readonly steadyState?: SteadyCriterion | undefined;
  /** Seconds between two calls of {@link onStatus}. Default: no calls. */
  readonly statusInterval?: number | undefined;
  /**
   * Seconds that a device has to complete what is in flight at the end of the run and to shut down, all together; and to
   * complete each command before the run. Default 4.
   */
  readonly timeout?: number;
  /** Process ids of the targets, in the order of the devices, as far as they are known: for doubts about the figures. */
  readonly targetPids?: readonly (number | undefined)[];
  /** Ends the run early; what was measured so far is the result. */
  readonly signal?: AbortSignal;
  /** Ends everything at once: the devices are closed, and what was measured so far is the result. */
  readonly giveUp?: AbortSignal;
  /** Called once when all options have been checked, before the first I/O. */
  readonly onStart?: () => void;
  /** Called about twice a second. */
  readonly onProgress?: (progress: BenchmarkProgress) => void;
  /** Called with what the jobs have done so far. */
  readonly onStatus?: (parts: readonly PartResult[]) => void;
}

const DEFAULT_TIMEOUT = 4;

/** {@link RunOptions.timeout} in milliseconds. */
export function timeoutOf({ timeout = DEFAULT_TIMEOUT }: RunOptions): number {
  return timeout * 1000;
}

/** Whether the run ends when the region was covered. */
export function endsWithRegion({ once, runtime, ioSize }: WorkloadOptions): boolean {
  return once ?? (runtime === undefined && ioSize === undefined);
}

/** The sizes of the I/Os of a workload, rising. */
export function sizesOf({ workload, blockSize, split }: WorkloadOptions): number[] {
  return ioSizes(workload, blockSize, split ?? null);
}

/** Bytes between two places at which I/Os may begin. */
export function unitOf(options: WorkloadOptions): number {
  return commonUnit(sizesOf(options));
}

/** @throws RangeError or TypeError for options that no controller can satisfy */
export function checkRun(options: RunOptions): void {
  const { statusInterval, sampleMs, steadyState } = options;
  if (!(timeoutOf(options) > 0)) throw outOfRange(`the time-out is ${options.timeout} s; it must be above 0`);
  if (statusInterval !== undefined && !(statusInterval > 0))
    throw outOfRange(`the status interval is ${statusInterval} s; it must be above 0`);
  if (sampleMs !== undefined && !(sampleMs > 0))
    throw outOfRange(`an interval of ${sampleMs} ms has no samples; it must be above 0`);
  if (steadyState !== undefined && !(steadyState.duration > 1))
    throw outOfRange('a steady state needs a duration of more than 1 s: a rate is taken each second');
}

/** @throws RangeError or TypeError for options that no controller can satisfy */
export function checkWorkload(options: WorkloadOptions): void {
  const { depth, jobs, runtime, rampTime = 0, ioSize, rate, rateIops, readShare, size, workload } = options;
  const { split, verify, thinkTime = 0, thinkBlocks = 1, offset = 0, latencyTarget } = options;
  const whole = (name: string, value: number, most: number): void => {
    if (!Number.isInteger(value) || value < 1 || value > most)
      throw outOfRange(`${name} is ${value}; it is a whole number from 1 to ${most}`);
  };
  const sizes = sizesOf(options);
  if (sizes.length === 0) throw invalidArgument('no block size has a share of the I/Os');
  for (const bytes of sizes) whole('the block size', bytes, 1 << 30);
  if (sizes.length > 64) throw outOfRange(`${sizes.length} block sizes are too many; there may be 64`);
  const [smallest = 0] = sizes;
  whole('the I/O depth', depth, 65535);
  whole('the number of jobs', jobs, 1024);
  whole('the number of blocks between pauses', thinkBlocks, 2 ** 31);
  if (runtime !== undefined && !(runtime > 0))
    throw outOfRange(`the run time is ${runtime} s; it must be above 0`);
  if (!(rampTime >= 0)) throw outOfRange(`the ramp time is ${rampTime} s; it must not be negative`);
  if (!(thinkTime >= 0)) throw outOfRange(`the think time is ${thinkTime} s; it must not be negative`);
  if (rampTime > 0 && verify)
    throw invalidArgument(
      'a ramp time goes with measuring, not with verifying: what it writes is read back too',
    );
  if (ioSize !== undefined && ioSize < smallest)
    throw outOfRange(`an I/O size of ${ioSize} bytes is less than one block of ${smallest} bytes`);
  if (rateIops !== undefined && !(rateIops > 0))
    throw outOfRange('a rate of 0 I/Os per second measures nothing');
  if (rate !== undefined && !(rate > 0)) throw outOfRange('a rate of 0 bytes per second measures nothing');
  if (rate !== undefined && rateIops !== undefined)
    throw invalidArgument('a rate is limited in bytes or in I/Os per second, not in both');
  if (options.distribution?.kind === 'zipf' && !isRandom(workload))
    throw invalidArgument(`a Zipf distribution needs a random workload, not ${workload}`);
  if (readShare !== undefined && !(readShare >= 0 && readShare <= 1))
    throw outOfRange('the share of reads is between 0 and 1');
  if (size !== undefined && !(size > 0))
    throw outOfRange('a size of 0 leaves nothing to measure; leave --size out to use the whole namespace');
  if (!Number.isSafeInteger(offset) || offset < 0) throw outOfRange(`an offset of ${offset} bytes cannot be`);
  if (verify && (split !== undefined || trims(workload)))
    throw invalidArgument('verifying goes with one block size, and not with trims');
  if (verify && !writes(workload))
    throw invalidArgument(
      'verifying needs a workload that writes (write, randwrite, rw, randrw): it reads back what the run has written',
    );
  if (options.fua?.read === true && !directionsOf(workload).includes('read'))
    throw invalidArgument(`FUA for reads needs a workload that reads, not ${workload}`);
  if (options.fua?.write === true && !writes(workload))
    throw invalidArgument(`FUA for writes needs a workload that writes, not ${workload}`);
  if (latencyTarget !== undefined) checkLatencyTarget(options, latencyTarget);
}

function checkLatencyTarget(
  { rate, rateIops, thinkTime = 0, verify, runtime }: WorkloadOptions,
  { latency, percentile, window }: LatencyTargetOptions,
): void {
  if (!(latency > 0)) throw outOfRange(`a latency of ${latency} s cannot be kept`);
  if (!(window > 0)) throw outOfRange(`a window of ${window} s measures nothing`);
  if (!(percentile > 0 && percentile <= 100))
    throw outOfRange(`a percentile of ${percentile} is not above 0 and at most 100`);
  if (rate !== undefined || rateIops !== undefined || thinkTime > 0)
    throw invalidArgument(
      'a latency target sets the load itself; it does not go with a rate or a think time',
    );
  if (verify)
    throw invalidArgument('a latency target goes with measuring, not with verifying: its search writes too');
  if (runtime === undefined)
    throw invalidArgument('a latency target needs a run time: how long to measure once the depth is found');
}
