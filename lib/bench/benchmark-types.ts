// SPDX-License-Identifier: MIT
import type { VfioUserError } from '../errors';
import type { CompletionMode, Distribution, JobPhase, Workload } from './plan';
import type { JobResult } from './results';

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
  /** Seconds that run before, and are not part of the result. Default 0. */
  readonly rampTime?: number;
  /** Bytes that each job transfers at most. Default without a run time: its region, every block once. */
  readonly ioSize?: number | undefined;
  /** Most I/Os per second of each job. Default: no limit. */
  readonly rate?: number | undefined;
  /** How random workloads choose blocks: each equally likely, or by Zipf's law with this skew. Default uniform. */
  readonly distribution?: Distribution;
  /** How jobs learn of completions. Default `poll`. */
  readonly completion?: CompletionMode;
  /** Of mode `adaptive`: how long to look for completions before sleeping, in microseconds. Default 50. */
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
  /** Ends the run early; what was measured so far is the result. */
  readonly signal?: AbortSignal;
  /** Called once when all options have been checked, before the first I/O. */
  readonly onStart?: () => void;
  /** Called about twice a second. */
  readonly onProgress?: (progress: BenchmarkProgress) => void;
}

/** How a run stands. */
export interface BenchmarkProgress {
  /** Since the last call, in I/Os per second. */
  readonly readIops: number;
  readonly writeIops: number;
  /** Part of the run that is over, 0 to 1. */
  readonly part: number;
  readonly secondsLeft: number;
  /** What goes on: jobs that are ahead of others are not told of. */
  readonly phase: Exclude<JobPhase, 'done'>;
}

/** Who was measured. */
export interface BenchmarkTarget {
  readonly endpoint: string;
  readonly model: string;
  readonly serial: string;
  readonly firmware: string;
  /** NVMe version. */
  readonly version: string;
  readonly nsid: number;
  readonly lbaSize: number;
  /** Bytes. */
  readonly capacity: number;
  /** True when doorbells are plain stores, false when each is a message. */
  readonly mappedDoorbells: boolean;
}

/** What was measured at one endpoint. */
export interface EndpointResult {
  readonly target: BenchmarkTarget;
  readonly jobs: readonly JobResult[];
}

/** The result of a run, also of one that failed or was ended early. */
export interface BenchmarkResult {
  /** In the order in which the devices were given. */
  readonly endpoints: readonly EndpointResult[];
  /** I/O-sized blocks read back and compared, and those that differed. */
  readonly verified: number;
  readonly mismatches: number;
  /** Why the run failed; undefined when it did not. */
  readonly failure?: VfioUserError | undefined;
  /** True when {@link BenchmarkOptions.signal} ended the run. */
  readonly interrupted: boolean;
}
