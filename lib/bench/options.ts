// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../errors';
import { isRandom, type CompletionMode, type Distribution, type Workload } from './job';
import type { BenchmarkProgress } from './progress-watch';

/** What to run. Sizes are in bytes. */
export interface BenchmarkOptions {
  readonly workload: Workload;
  /** Bytes of one I/O. */
  readonly blockSize: number;
  /** I/Os in flight of each job. */
  readonly depth: number;
  /** Jobs at each endpoint, each with a queue pair and a thread of its own. */
  readonly jobs: number;
  /** Seconds of the measured run; undefined for a run that ends by {@link ioSize}, or with the region. */
  readonly runtime?: number | undefined;
  /** Seconds that the workload runs before it is measured. Default 0. */
  readonly rampTime?: number;
  /** Bytes that each job transfers at most. Default without a run time: its region, every block once. */
  readonly ioSize?: number | undefined;
  /** Most I/Os per second of each job. Default: no limit. */
  readonly rate?: number | undefined;
  /** How random workloads choose blocks: each equally likely, or by Zipf's law with this skew. Default uniform. */
  readonly distribution?: Distribution;
  /** How jobs learn of completions. Default `poll`. */
  readonly completion?: CompletionMode;
  /** How long mode `adaptive` polls before it sleeps, in microseconds. Default 50. */
  readonly spinMicroseconds?: number;
  /** Bytes of the namespace to use, from its start. Default: all. */
  readonly size?: number | undefined;
  /** Write a pattern, read back what was written, and compare. */
  readonly verify: boolean;
  /** Share of reads of `randrw`, 0 to 1. Default 0.5. */
  readonly readShare?: number;
  /** Seed of the random order and of the pattern. */
  readonly seed: number;
  /** Namespace id. Default: the first. */
  readonly nsid?: number | undefined;
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
}

const DEFAULT_TIMEOUT = 4;

/** {@link BenchmarkOptions.timeout} in milliseconds. */
export function timeoutOf({ timeout = DEFAULT_TIMEOUT }: BenchmarkOptions): number {
  return timeout * 1000;
}

/** @throws RangeError or TypeError for options that no controller can satisfy */
export function checkOptions(options: BenchmarkOptions): void {
  const { blockSize, depth, jobs, runtime, rampTime = 0, ioSize, rate, readShare, size, workload } = options;
  const whole = (name: string, value: number, most: number): void => {
    if (!Number.isInteger(value) || value < 1 || value > most)
      throw outOfRange(`${name} is ${value}; it is a whole number from 1 to ${most}`);
  };
  whole('the block size', blockSize, 1 << 30);
  whole('the I/O depth', depth, 65535);
  whole('the number of jobs', jobs, 1024);
  if (runtime !== undefined && !(runtime > 0))
    throw outOfRange(`the run time is ${runtime} s; it must be above 0`);
  if (!(rampTime >= 0)) throw outOfRange(`the ramp time is ${rampTime} s; it must not be negative`);
  if (rampTime > 0 && options.verify)
    throw invalidArgument(
      'a ramp time goes with measuring, not with verifying: what it writes is read back too',
    );
  if (!(timeoutOf(options) > 0)) throw outOfRange(`the time-out is ${options.timeout} s; it must be above 0`);
  if (ioSize !== undefined && ioSize < blockSize)
    throw outOfRange(`an I/O size of ${ioSize} bytes is less than one block of ${blockSize} bytes`);
  if (rate !== undefined && !(rate > 0)) throw outOfRange('a rate of 0 I/Os per second measures nothing');
  if (options.distribution?.kind === 'zipf' && !isRandom(workload))
    throw invalidArgument(`a Zipf distribution needs a random workload, not ${workload}`);
  if (readShare !== undefined && !(readShare >= 0 && readShare <= 1))
    throw outOfRange('the share of reads is between 0 and 1');
  if (size !== undefined && !(size > 0))
    throw outOfRange('a size of 0 leaves nothing to measure; leave --size out to use the whole namespace');
}
