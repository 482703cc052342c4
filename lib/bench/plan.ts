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

/**
 * How a random workload chooses blocks: each equally likely; each once before any comes again; or by Zipf's law, in which
 * the block of rank n is drawn in proportion to 1 / n^theta.
 */
export type Distribution =
  | { readonly kind: 'uniform' }
  | { readonly kind: 'once' }
  | { readonly kind: 'zipf'; readonly theta: number };

/**
 * How a job learns of completions. `poll` looks for them without pause; `interrupt` sleeps until the controller signals
 * the vector of the queue; `adaptive` looks for a while after each completion, then sleeps.
 */
export type CompletionMode = 'poll' | 'adaptive' | 'interrupt';

/** All modes, in the order in which help texts name them. */
export const COMPLETION_MODES = [
  'poll',
  'adaptive',
  'interrupt',
] as const satisfies readonly CompletionMode[];

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
  /** How random workloads choose blocks. */
  readonly distribution: Distribution;
  /** Milliseconds that run before what is measured. */
  readonly rampMs: number;
  /** Length of the measured run in milliseconds; Infinity for a run that ends by {@link ioLimit}. */
  readonly runtimeMs: number;
  /** I/Os after which the run ends, with those of the ramp; Infinity for a run that ends by {@link runtimeMs}. */
  readonly ioLimit: number;
  /** Most I/Os per second, on the average from the beginning; Infinity for no limit. */
  readonly rate: number;
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
  /** Where in `memory` the data buffers are, `depth` times `blockSize` bytes, on a multiple of 4. With PRPs, of a page. */
  readonly dataOffset: number;
  /** Describe data by SGL descriptors, not by PRPs. */
  readonly sgl: boolean;
  /** Where in `memory` the PRP lists are, a page for each I/O in flight. Not used with {@link sgl}. */
  readonly listOffset: number;
  readonly completion: CompletionMode;
  /** Of mode `adaptive`: how long to look for completions before sleeping, in microseconds. */
  readonly spinMicroseconds: number;
  /** The eventfd of the completion queue's vector; null in mode `poll`. */
  readonly interruptFd: number | null;
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

/** Before the measured run, in it, reading back what was written, or done. */
export type JobPhase = 'ramp' | 'run' | 'verify' | 'done';

const JOB_PHASES: readonly JobPhase[] = ['ramp', 'run', 'verify', 'done'];

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

  /** Asks the job to finish what is in flight, and end; it does not take back {@link abandon}. */
  stop(): void {
    Atomics.compareExchange(this.#stop, 0, 0, 1);
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

  /** What the job is at. */
  get phase(): JobPhase {
    return JOB_PHASES[this.#values[SLOT_PHASE] ?? 0] ?? 'run';
  }

  set phase(phase: JobPhase) {
    this.#values[SLOT_PHASE] = JOB_PHASES.indexOf(phase);
  }
}
