// SPDX-License-Identifier: MIT

/** Where a job stands: before the measured run, in it, reading back what was written, or at its end. */
export type JobPhase = 'ramp' | 'run' | 'verify' | 'done';

const JOB_PHASES: readonly JobPhase[] = ['ramp', 'run', 'verify', 'done'];

/** What a job is asked to do by the thread that controls the run. */
export const Wish = {
  goOn: 0,
  /** Finish what is in flight, and end. */
  stop: 1,
  /** End at once, as the device is gone. */
  abandon: 2,
  /** End at once, whatever is in flight. */
  giveUp: 3,
  /** Finish what is in flight, and end as if the time were over. */
  finish: 4,
} as const;

// The 32-bit word of the wish takes the place of the first double.
const WISH_WORD = 0;
const READS = 1;
const WRITES = 2;
const ELAPSED = 3;
const PHASE = 4;
const WAITED = 5;
const SHARE = 6;
const TRIMS = 7;
const READ_BYTES = 8;
const WRITTEN_BYTES = 9;
const TRIMMED_BYTES = 10;
/** 32-bit words beyond the others: whether a snapshot is asked for, and whether the job is to pause. */
const ASKED_WORD = 24;
const PAUSE_WORD = 25;
const MEASURED = 13;
const FIRST_IO = 14;

const REST_MILLISECONDS = 0.05;

/** Size of the memory of a {@link JobState} in bytes: a pair of cache lines of its own. */
export const JOB_STATE_BYTES = 128;

/** What a job has done in its measured run. */
export interface JobProgress {
  /** Completed I/Os. */
  readonly reads: number;
  readonly writes: number;
  readonly trims: number;
  readonly readBytes: number;
  readonly writtenBytes: number;
  readonly trimmedBytes: number;
  readonly elapsedMs: number;
}

/** What a running job shares with the thread that controls it: its progress, and the wish that it end. */
export class JobState {
  readonly #values: Float64Array;
  readonly #words: Int32Array;

  /** @param memory {@link JOB_STATE_BYTES} bytes, zeroed before the first use */
  constructor(memory: SharedArrayBuffer) {
    this.#values = new Float64Array(memory);
    this.#words = new Int32Array(memory);
  }

  /** Asks the job to finish what is in flight and to end. Takes no other wish back. */
  stop(): void {
    Atomics.compareExchange(this.#words, WISH_WORD, Wish.goOn, Wish.stop);
  }

  /** Asks the job to finish what is in flight and to end as if its time were over. Takes no other wish back. */
  finish(): void {
    Atomics.compareExchange(this.#words, WISH_WORD, Wish.goOn, Wish.finish);
  }

  /** Asks the job for a snapshot of its result. */
  ask(): void {
    Atomics.store(this.#words, ASKED_WORD, 1);
  }

  /** Whether a snapshot was asked for since the last call. */
  takeQuestion(): boolean {
    return Atomics.exchange(this.#words, ASKED_WORD, 0) !== 0;
  }

  /**
   * Asks the job to leave its queue pair, whose controller has gone, or to go on with another one. What it was doing, and is
   * wished to do, stays as it is.
   */
  set paused(paused: boolean) {
    Atomics.store(this.#words, PAUSE_WORD, Number(paused));
  }

  get paused(): boolean {
    return Atomics.load(this.#words, PAUSE_WORD) !== 0;
  }

  /** Tells the job that the device is gone, so that it ends at once. */
  abandon(): void {
    Atomics.store(this.#words, WISH_WORD, Wish.abandon);
  }

  /** Asks the job to end at once, with what it has measured. Does not take {@link abandon} back. */
  giveUp(): void {
    for (const wish of [Wish.goOn, Wish.stop, Wish.finish])
      Atomics.compareExchange(this.#words, WISH_WORD, wish, Wish.giveUp);
  }

  /** One of {@link Wish}. */
  get wish(): number {
    return Atomics.load(this.#words, WISH_WORD);
  }

  /** Sleeps for about 0.1 ms. */
  rest(): void {
    Atomics.wait(this.#words, WISH_WORD, this.wish, REST_MILLISECONDS);
  }

  /** Tells the progress. A job calls it at the end of each slice of its run, about every 10 ms. */
  publish(progress: JobProgress): void {
    this.#values[READS] = progress.reads;
    this.#values[WRITES] = progress.writes;
    this.#values[TRIMS] = progress.trims;
    this.#values[READ_BYTES] = progress.readBytes;
    this.#values[WRITTEN_BYTES] = progress.writtenBytes;
    this.#values[TRIMMED_BYTES] = progress.trimmedBytes;
    this.#values[ELAPSED] = progress.elapsedMs;
  }

  /** The measured run, as published last. */
  get progress(): JobProgress {
    const value = (slot: number): number => this.#values[slot] ?? 0;
    return {
      reads: value(READS),
      writes: value(WRITES),
      trims: value(TRIMS),
      readBytes: value(READ_BYTES),
      writtenBytes: value(WRITTEN_BYTES),
      trimmedBytes: value(TRIMMED_BYTES),
      elapsedMs: value(ELAPSED),
    };
  }

  /** When the measured run of the job began, by the clock of all threads ({@link monotonicTime}). */
  get measuredAt(): number {
    return this.#values[MEASURED] ?? 0;
  }

  set measuredAt(milliseconds: number) {
    this.#values[MEASURED] = milliseconds;
  }

  /** When the first I/O completed after the last pause, likewise; 0 before. */
  get firstIoAt(): number {
    return this.#values[FIRST_IO] ?? 0;
  }

  set firstIoAt(milliseconds: number) {
    this.#values[FIRST_IO] = milliseconds;
  }

  /** Milliseconds from the end of the run until the job was done, in which it waited for what was in flight. */
  get waitedMs(): number {
    return this.#values[WAITED] ?? 0;
  }

  set waitedMs(milliseconds: number) {
    this.#values[WAITED] = milliseconds;
  }

  /** Share of a processor that the job got of late, 0 to 1; 1 until that is known. */
  get processorShare(): number {
    return 1 - (this.#values[SHARE] ?? 0);
  }

  set processorShare(share: number) {
    this.#values[SHARE] = 1 - share;
  }

  get phase(): JobPhase {
    return JOB_PHASES[this.#values[PHASE] ?? 0] ?? 'run';
  }

  set phase(phase: JobPhase) {
    this.#values[PHASE] = JOB_PHASES.indexOf(phase);
  }
}
