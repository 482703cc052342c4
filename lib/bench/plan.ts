// SPDX-License-Identifier: MIT
import type { QueuePairPlacement } from '../nvme/host';

/** What a job does, by fio's names. */
export type Workload = 'read' | 'write' | 'randread' | 'randwrite' | 'randrw';

/** All workloads, in the order in which help texts name them. */
export const WORKLOADS = [
  'read',
  'write',
  'randread',
  'randwrite',
  'randrw',
] as const satisfies readonly Workload[];

/** True when the workload writes. */
export function writes(workload: Workload): boolean {
  return workload !== 'read' && workload !== 'randread';
}

/** True when blocks are chosen at random. */
export function isRandom(workload: Workload): boolean {
  return workload.startsWith('rand');
}

/** A file to be mapped by the thread that runs a job; descriptors are the same in all threads of a process. */
export interface SharedFile {
  readonly fd: number;
  /** Where the bytes begin in the file; a multiple of the page size. */
  readonly offset: number;
  readonly size: number;
}

/** All that a thread needs to run one job. Plain data: it crosses to a worker thread. */
export interface JobPlan {
  readonly index: number;
  readonly workload: Workload;
  /** Share of reads of `randrw`, 0 to 1. */
  readonly readShare: number;
  /** Bytes of one I/O, a multiple of `lbaSize`. */
  readonly blockSize: number;
  /** I/Os in flight. */
  readonly depth: number;
  /** Length of the run in milliseconds; Infinity to run until every block of the region was touched once. */
  readonly runtimeMs: number;
  /** Write a pattern, then read back everything that was written and compare. */
  readonly verify: boolean;
  readonly seed: number;

  readonly nsid: number;
  /** Bytes of a logical block. */
  readonly lbaSize: number;
  /** The region of the job: first LBA, and number of I/O-sized blocks. */
  readonly firstLba: number;
  readonly ioBlocks: number;
  /** Block at which a sequential job begins. */
  readonly startBlock: number;

  readonly queue: QueuePairPlacement;
  readonly memory: SharedFile;
  /** Address at which the device sees the first byte of `memory`. */
  readonly iova: number;
  /** Where in `memory` the data buffers are, `depth` times `blockSize` bytes, page-aligned. */
  readonly dataOffset: number;
  /** Where in `memory` the PRP lists are, a page for each I/O in flight. */
  readonly listOffset: number;
  /** The doorbells, null when they can only be written by message. */
  readonly doorbells: SharedFile | null;
  /** CAP.DSTRD */
  readonly dstrd: number;
  /** State shared with the thread that controls the run; see {@link JobState}. */
  readonly state: SharedArrayBuffer;
}

/** Why a job ended, and what it found. */
export interface JobOutcome {
  /** NVMe status of the first command that failed, 0 when none did. */
  readonly status: number;
  /** Opcode and LBA of that command. */
  readonly failedOpcode: number;
  readonly failedLba: number;
  /** I/O-sized blocks compared, and how many of them were not as written. */
  readonly verified: number;
  readonly mismatches: number;
  /** Text about the first mismatch. */
  readonly firstMismatch: string | undefined;
  /** True when the device stopped completing commands. */
  readonly stalled: boolean;
}

const SLOT_STOP = 0;
const SLOT_READS = 1;
const SLOT_WRITES = 2;
const SLOT_ELAPSED = 3;
const SLOT_PHASE = 4;

const REST_MILLISECONDS = 0.05;

/** Size of the memory of a {@link JobState}, in bytes. A job has a cache line pair of its own. */
export const JOB_STATE_BYTES = 128;

/** What a job shares while it runs: its progress, and the wish that it stop. */
export class JobState {
  readonly #values: Float64Array;
  readonly #stop: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.#values = new Float64Array(memory);
    this.#stop = new Int32Array(memory, SLOT_STOP, 1);
  }

  /** Asks the job to finish what is in flight, and end. */
  stop(): void {
    Atomics.store(this.#stop, 0, 1);
  }

  /** Tells the job that the device is gone: it ends at once. */
  abandon(): void {
    Atomics.store(this.#stop, 0, 2);
  }

  /** 0 to go on, 1 after {@link stop}, 2 after {@link abandon}. */
  get wish(): number {
    return Atomics.load(this.#stop, 0);
  }

  /** Sleeps for about 0.1 ms, or until the next wish. */
  rest(): void {
    Atomics.wait(this.#stop, 0, 0, REST_MILLISECONDS);
  }

  /** Progress, written by the job after every batch. A reader may see it a batch late. */
  publish(reads: number, written: number, elapsedMs: number): void {
    this.#values[SLOT_READS] = reads;
    this.#values[SLOT_WRITES] = written;
    this.#values[SLOT_ELAPSED] = elapsedMs;
  }

  get reads(): number {
    return this.#values[SLOT_READS] ?? 0;
  }

  get writes(): number {
    return this.#values[SLOT_WRITES] ?? 0;
  }

  get elapsedMs(): number {
    return this.#values[SLOT_ELAPSED] ?? 0;
  }

  /** True while what was written is being read back. */
  get verifying(): boolean {
    return this.#values[SLOT_PHASE] === 1;
  }

  set verifying(on: boolean) {
    this.#values[SLOT_PHASE] = on ? 1 : 0;
  }
}
