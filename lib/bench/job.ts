// SPDX-License-Identifier: MIT
import type { QueuePairPlacement } from '../nvme/host/queue-pair';

/** All workloads, by fio's names and in the order in which help texts list them. */
export const WORKLOADS = ['read', 'write', 'randread', 'randwrite', 'randrw'] as const;

/** What a job does, by fio's names. */
export type Workload = (typeof WORKLOADS)[number];

/** True when the workload writes. */
export function writes(workload: Workload): boolean {
  return workload !== 'read' && workload !== 'randread';
}

/** True when the workload chooses blocks at random. */
export function isRandom(workload: Workload): boolean {
  return workload.startsWith('rand');
}

/**
 * How a random workload chooses blocks: each equally likely; each once before any comes again; or by Zipf's law, in which
 * the block of rank n is drawn in proportion to 1 / n^theta.
 */
export type Distribution =
  | { readonly kind: 'uniform' }
  | { readonly kind: 'once' }
  | { readonly kind: 'zipf'; readonly theta: number };

/** All completion modes, in the order in which help texts list them. */
export const COMPLETION_MODES = ['poll', 'adaptive', 'interrupt'] as const;

/**
 * How a job learns of completions. `poll` looks for them without a pause. `interrupt` sleeps until the controller signals
 * the vector of the queue. `adaptive` polls for a while after each completion, and then sleeps.
 */
export type CompletionMode = (typeof COMPLETION_MODES)[number];

/** A part of a file that the thread of a job maps. All threads of a process share their descriptors. */
export interface SharedFile {
  readonly fd: number;
  /** Where the part begins, in bytes; a multiple of the page size. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

/** Everything that a thread needs to know to run one job. It is plain data, since it crosses to a worker thread. */
export interface Job {
  /** Number of the job at its endpoint, from 0 on. */
  readonly index: number;
  readonly workload: Workload;
  /** Share of reads of `randrw`, 0 to 1. */
  readonly readShare: number;
  /** Bytes of one I/O, a multiple of {@link lbaSize}. */
  readonly blockSize: number;
  /** I/Os in flight. */
  readonly depth: number;
  readonly distribution: Distribution;
  /** Milliseconds that the workload runs before it is measured. */
  readonly rampMs: number;
  /** Milliseconds of the measured run; Infinity for a run that ends by {@link ioLimit}. */
  readonly runtimeMs: number;
  /** Number of I/Os, including those of the ramp, after which the run ends; Infinity for a run that ends by {@link runtimeMs}. */
  readonly ioLimit: number;
  /** Milliseconds that commands in flight are waited for after the end of the run. */
  readonly drainMs: number;
  /** Most I/Os per second, on average since the job began; Infinity for no limit. */
  readonly rate: number;
  /** Write a pattern, then read everything back that was written, and compare. */
  readonly verify: boolean;
  /** Seed of the order of blocks and of the pattern, 32 bits. */
  readonly seed: number;

  readonly nsid: number;
  /** Bytes of a logical block. */
  readonly lbaSize: number;
  /** First LBA of the region that the job uses. */
  readonly firstLba: number;
  /** Size of that region in blocks of {@link blockSize}. */
  readonly ioBlocks: number;
  /** Block of the region at which a sequential workload begins. */
  readonly startBlock: number;

  readonly queue: QueuePairPlacement;
  /** Memory that is shared with the device. It holds queues, data and PRP lists. */
  readonly memory: SharedFile;
  /** Address at which the device sees the first byte of {@link memory}. */
  readonly iova: number;
  /**
   * Where the data buffers begin in {@link memory}, {@link depth} times {@link blockSize} bytes. A multiple of 4 with SGLs, of
   * the page size with PRPs.
   */
  readonly dataOffset: number;
  /** Describe data by SGL descriptors instead of PRPs. */
  readonly sgl: boolean;
  /** Where the PRP lists begin in {@link memory}, one page for each I/O in flight. Not used with {@link sgl}. */
  readonly listOffset: number;
  readonly completion: CompletionMode;
  /** How long mode `adaptive` polls before it sleeps, in microseconds. */
  readonly spinMicroseconds: number;
  /** The eventfd that the vector of the completion queue signals; null in mode `poll`. */
  readonly interruptFd: number | null;
  /** The mapped doorbells; null when they can only be written by message. */
  readonly doorbells: SharedFile | null;
  /** CAP.DSTRD */
  readonly dstrd: number;
  /** The memory of the job's `JobState`. */
  readonly state: SharedArrayBuffer;
}
