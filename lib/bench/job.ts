// SPDX-License-Identifier: MIT
import type { QueuePairPlacement } from '../nvme/host/queue-pair';

/** What an I/O does, by fio's names. */
export type Direction = 'read' | 'write' | 'trim';

/** All directions, in the order of fio's reports. */
export const DIRECTIONS = ['read', 'write', 'trim'] as const satisfies readonly Direction[];

interface Traits {
  readonly random: boolean;
  readonly directions: readonly Direction[];
}

const TRAITS = {
  read: { random: false, directions: ['read'] },
  write: { random: false, directions: ['write'] },
  trim: { random: false, directions: ['trim'] },
  rw: { random: false, directions: ['read', 'write'] },
  trimwrite: { random: false, directions: ['write', 'trim'] },
  randread: { random: true, directions: ['read'] },
  randwrite: { random: true, directions: ['write'] },
  randtrim: { random: true, directions: ['trim'] },
  randrw: { random: true, directions: ['read', 'write'] },
  randtrimwrite: { random: true, directions: ['write', 'trim'] },
} as const satisfies Record<string, Traits>;

/** What a job does, by fio's names. */
export type Workload = keyof typeof TRAITS;

/** All workloads, by fio's names and in the order in which help texts list them. */
export const WORKLOADS = Object.keys(TRAITS) as readonly Workload[];

/** The directions of a workload. */
export function directionsOf(workload: Workload): readonly Direction[] {
  return TRAITS[workload].directions;
}

/** True when the workload writes. */
export function writes(workload: Workload): boolean {
  return directionsOf(workload).includes('write');
}

/** True when the workload trims. */
export function trims(workload: Workload): boolean {
  return directionsOf(workload).includes('trim');
}

/** True when the workload mixes reads and writes. */
export function isMixed(workload: Workload): boolean {
  return writes(workload) && directionsOf(workload).includes('read');
}

/** True when the workload trims each block before it writes it. */
export function trimsAndWrites(workload: Workload): boolean {
  return writes(workload) && trims(workload);
}

/** True when the workload chooses blocks at random. */
export function isRandom(workload: Workload): boolean {
  return TRAITS[workload].random;
}

/** A size of I/Os, and its share of those of a direction, 0 to 1. */
export interface SizeShare {
  /** Bytes. */
  readonly bytes: number;
  readonly share: number;
}

/** The sizes of the I/Os of each direction. The shares of a direction add up to 1. */
export type BlockSplit = Readonly<Record<Direction, readonly SizeShare[]>>;

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

/** How fast I/Os are sent, where that is not as fast as they complete. */
export interface Pace {
  /** Most I/Os per second, on average since the job began; Infinity for no limit. */
  readonly iops: number;
  /** Most bytes per second, likewise. */
  readonly bandwidth: number;
  /** Milliseconds of a pause, which begins when all that was sent is complete; 0 for none. */
  readonly thinkMs: number;
  /** I/Os between two pauses. */
  readonly thinkIos: number;
}

/** The latency that a job is to keep by its number of I/Os in flight. */
export interface LatencyTarget {
  /** Latency in ns. */
  readonly ns: number;
  /** Percent of the I/Os that must not exceed it. */
  readonly percentile: number;
  /** Milliseconds for which each number in flight is tried. */
  readonly windowMs: number;
}

/** A part of a file that the thread of a job maps. All threads of a process share their descriptors. */
export interface SharedFile {
  readonly fd: number;
  /** Where the part begins, in bytes; a multiple of the page size. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

/**
 * Where a job finds its queue pair: another one each time that the controller has come back. It is plain data, since it crosses
 * to a worker thread.
 */
export interface QueueLocation {
  readonly queue: QueuePairPlacement;
  /** The mapped doorbells; null when they can only be written by message. */
  readonly doorbells: SharedFile | null;
  /** The eventfd that the vector of the completion queue signals; null in mode `poll`. It stays the device's. */
  readonly interruptFd: number | null;
}

/**
 * Everything that a thread needs to know to run one job, but for the {@link QueueLocation}. It is plain data, since it crosses to
 * a worker thread.
 */
export interface Job {
  /** Number of the job at its endpoint, from 0 on. */
  readonly index: number;
  readonly workload: Workload;
  /** Share of reads of `rw` and `randrw`, 0 to 1. */
  readonly readShare: number;
  /** Bytes of the largest I/O, a multiple of {@link lbaSize}. */
  readonly blockSize: number;
  /** The sizes of the I/Os; null when all are {@link blockSize}. */
  readonly split: BlockSplit | null;
  /** Bytes between two blocks at which I/Os may begin, of which all sizes are multiples: {@link blockSize} without split. */
  readonly unit: number;
  /** Force Unit Access: reads and writes go to and from the medium (NVM command set 1.0, 3.2.4 and 3.2.6). */
  readonly fua: { readonly read: boolean; readonly write: boolean };
  /** I/Os in flight. */
  readonly depth: number;
  readonly distribution: Distribution;
  /** Milliseconds that the workload runs before it is measured. */
  readonly rampMs: number;
  /** Milliseconds of the measured run; Infinity for a run that ends by {@link ioLimit}. */
  readonly runtimeMs: number;
  /**
   * Number of I/Os, including those of the ramp, after which the run ends; Infinity for a run that ends by {@link runtimeMs}.
   * A trim with the write after it counts as one.
   */
  readonly ioLimit: number;
  /** Bytes likewise, for I/Os of different sizes. */
  readonly byteLimit: number;
  /** Milliseconds that commands in flight are waited for after the end of the run. */
  readonly drainMs: number;
  readonly pace: Pace;
  /** The latency to keep; null for a fixed number of I/Os in flight. */
  readonly latencyTarget: LatencyTarget | null;
  /** Milliseconds between two samples of rates and latency. */
  readonly sampleMs: number;
  /** Write a pattern, then read everything back that was written, and compare. */
  readonly verify: boolean;
  /** Seed of the order of blocks and of the pattern, 32 bits. */
  readonly seed: number;

  readonly nsid: number;
  /** Bytes of a logical block. */
  readonly lbaSize: number;
  /** First LBA of the region that the job uses. */
  readonly firstLba: number;
  /** Size of that region in blocks of {@link unit}. */
  readonly ioBlocks: number;
  /** Block of the region at which a sequential workload begins. */
  readonly startBlock: number;

  /** Memory that is shared with the device. It holds queues, data and PRP lists. */
  readonly memory: SharedFile;
  /** Address at which the device sees the first byte of {@link memory}. */
  readonly iova: number;
  /**
   * Where the data buffers begin in {@link memory}, {@link depth} times {@link bufferBytes}. A multiple of 4 with SGLs, of
   * the page size with PRPs.
   */
  readonly dataOffset: number;
  /** Bytes of each buffer: {@link blockSize}, or what the range of a trim takes. */
  readonly bufferBytes: number;
  /** Describe data by SGL descriptors instead of PRPs. */
  readonly sgl: boolean;
  /** Where the PRP lists begin in {@link memory}, one page for each I/O in flight. Not used with {@link sgl}. */
  readonly listOffset: number;
  /** The processors that its thread may use; null for those of the process. */
  readonly processors: readonly number[] | null;
  readonly completion: CompletionMode;
  /** How long mode `adaptive` polls before it sleeps, in microseconds. */
  readonly spinMicroseconds: number;
  /** CAP.DSTRD */
  readonly dstrd: number;
  /** The memory of the job's `JobState`. */
  readonly state: SharedArrayBuffer;
}
