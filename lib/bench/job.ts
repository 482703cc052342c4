// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import type { Doorbells } from '../nvme/host';
import type { QueueLoop } from '../nvme/host/queue-loop';
import type { LatencyHistogram } from './histogram';
import { JobQueue } from './job-queue';
import { JobState, writes, type JobOutcome, type JobPlan } from './plan';
import type { CpuUsage } from './results';
import { threadUsage, usageBetween } from './thread-usage';

/**
 * So often, and at intervals of so many milliseconds, the ramp ends and begins again, before it ends for the run. What V8
 * has not seen several times when it optimizes a loop makes it throw the optimized code away: compiling it again took 2 % of a
 * run of 1 s, at its beginning.
 */
const EARLY_ENDS = 16;
const EARLY_END_MILLISECONDS = 10;
/** A device that completes nothing for so long has failed. */
const STALL_MILLISECONDS = 30_000;

// What is imported is read through a getter at every use.
const clock = performance;

const NO_USAGE: CpuUsage = { userMs: 0, systemMs: 0, contextSwitches: 0, majorFaults: 0, minorFaults: 0 };

/** How a slice of a job's run ended: with more to do, with nothing to do until a completion comes, or for good. */
export type SliceEnd = 'busy' | 'quiet' | 'done';

/** The run of a benchmark on one queue pair: its phases, the clock, and the wishes from outside. */
export class Job {
  /** Milliseconds of the workload itself, without ramp and without reading back. */
  elapsedMs = 0;
  /** What the workload cost the thread, without ramp and without reading back; known at its end. */
  cpu: CpuUsage = NO_USAGE;

  readonly #plan: JobPlan;
  readonly #state: JobState;
  readonly #queue: JobQueue;
  #usageBefore = NO_USAGE;
  /** When the measured run begins, and when it ends. */
  #measured = 0;
  #deadline = 0;
  #rampEnd = 0;
  #earlyEnds = 0;
  #lastProgress = 0;
  #readingBack = false;
  #stalled = false;

  /** @param loop the loop of the addon, where doorbells are mapped */
  constructor(plan: JobPlan, memory: ArrayBuffer, doorbells: Doorbells, loop?: QueueLoop) {
    this.#plan = plan;
    this.#state = new JobState(plan.state);
    this.#queue = new JobQueue(plan, memory, doorbells, loop);
  }

  get readLatency(): LatencyHistogram {
    return this.#queue.readLatency;
  }

  get writeLatency(): LatencyHistogram {
    return this.#queue.writeLatency;
  }

  /** Doorbell writes and polls by batch size; see `batchSlot`. */
  get batchCounts(): Float64Array {
    return this.#queue.batchCounts;
  }

  get reads(): number {
    return this.readLatency.count;
  }

  get writes(): number {
    return this.writeLatency.count;
  }

  get outcome(): JobOutcome {
    const { failed, verification } = this.#queue;
    return {
      status: failed?.status ?? 0,
      failedOpcode: failed?.opcode ?? 0,
      failedLba: failed?.lba ?? 0,
      verified: verification?.verified ?? 0,
      mismatches: verification?.mismatches ?? 0,
      firstMismatch: verification?.firstMismatch,
      stalled: this.#stalled,
    };
  }

  /** Milliseconds until the rate lets the next I/O be sent; Infinity when it is not the rate that is waited for. */
  get nextSubmission(): number {
    return this.#queue.nextSubmission;
  }

  /**
   * Runs for up to `milliseconds`.
   *
   * @param patience milliseconds without a completion after which the slice ends `quiet`
   */
  slice(milliseconds: number, patience = Infinity): SliceEnd {
    const queue = this.#queue;
    queue.now = clock.now();
    if (queue.started === 0) this.#begin();
    const until = queue.now + milliseconds;
    for (;;) {
      if (queue.work(patience > 0) > 0) {
        this.#lastProgress = queue.now;
        if (!this.#readingBack) this.elapsedMs = queue.now - this.#measured;
        if (queue.now < this.#deadline && queue.now < until && !queue.idle && !queue.astray) continue;
      } else {
        queue.now = clock.now();
        // Command ids that wait for their turn: the rate is limited.
        if (queue.wanting) queue.send();
      }
      if (!this.#advance()) return this.#end();
      const quiet = queue.now - this.#lastProgress >= patience;
      if (queue.now < until && !quiet) continue;
      this.#publish();
      return quiet ? 'quiet' : 'busy';
    }
  }

  #begin(): void {
    const { now } = this.#queue;
    const { rampMs, runtimeMs } = this.#plan;
    this.#queue.started = now;
    this.#lastProgress = now;
    this.#measured = now;
    this.#rampEnd = now + rampMs;
    this.#deadline = now + (rampMs > 0 ? Math.min(rampMs, EARLY_END_MILLISECONDS) : runtimeMs);
    this.#state.phase = rampMs > 0 ? 'ramp' : 'run';
    this.#usageBefore = threadUsage();
    this.#queue.send();
  }

  /** Heeds the clock, the wishes from outside, and the end of a phase; false when the job is over. */
  #advance(): boolean {
    const queue = this.#queue;
    const { now } = queue;
    const { wish } = this.#state;
    // Never trust the peer.
    if (queue.astray) this.#stalled = true;
    if (wish === 2 || this.#stalled) return false;
    if (wish === 1) queue.stop();
    if (now >= this.#deadline) this.#passDeadline();
    if (queue.idle && queue.remaining === 0 && !this.#readBack()) return false;
    // With nothing in flight it is the rate that is waited for.
    if (queue.idle) this.#lastProgress = now;
    if (now - this.#lastProgress >= STALL_MILLISECONDS) this.#stalled = true;
    return !this.#stalled;
  }

  /** The ramp is over, and what it measured is forgotten; or the run is, and what is in flight is waited for. */
  #passDeadline(): void {
    if (this.#state.phase !== 'ramp') {
      this.#queue.remaining = 0;
      this.#deadline = Infinity;
      return;
    }
    const { now } = this.#queue;
    const over = now >= this.#rampEnd;
    this.#state.phase = over ? 'run' : 'ramp';
    this.#measured = now;
    const early = this.#earlyEnds++ < EARLY_ENDS ? now + EARLY_END_MILLISECONDS : Infinity;
    this.#deadline = over ? now + this.#plan.runtimeMs : Math.min(early, this.#rampEnd);
    this.#forget();
  }

  /** What was measured so far is not part of the result. */
  #forget(): void {
    this.elapsedMs = 0;
    this.#queue.forget();
    this.#usageBefore = threadUsage();
  }

  /** All commands are done: begins to read back what was written; false when there is nothing to read back. */
  #readBack(): boolean {
    const { verification, stopped } = this.#queue;
    if (verification === null || !writes(this.#plan.workload)) return false;
    if (this.#readingBack || stopped || verification.written === 0) return false;
    this.#readingBack = true;
    this.cpu = usageBetween(this.#usageBefore, threadUsage());
    this.#deadline = Infinity;
    this.#state.phase = 'verify';
    this.#queue.readBack(verification);
    return true;
  }

  #end(): SliceEnd {
    // A run that ends in its ramp has measured nothing.
    if (this.#state.phase === 'ramp') this.#forget();
    if (!this.#readingBack) this.cpu = usageBetween(this.#usageBefore, threadUsage());
    this.#publish();
    this.#state.phase = 'done';
    return 'done';
  }

  #publish(): void {
    this.#state.publish(this.reads, this.writes, this.elapsedMs);
  }
}
