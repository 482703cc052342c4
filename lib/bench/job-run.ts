// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { DepthSearch } from './depth-search';
import { LatencyHistogram } from '../latency-histogram';
import { DIRECTIONS, writes, type Direction, type Job } from './job';
import { failedEnd, failureText, mismatchEnd, stalledEnd, strayEnd } from './job-end';
import { JobQueue } from './job-queue';
import {
  COUNT_SLOTS,
  depthSlot,
  type CpuUsage,
  type DirectionResult,
  type JobEnd,
  type JobResult,
} from './job-result';
import { JobState, Wish } from './job-state';
import type { JobQueuePair } from './job-submissions';
import { monotonicTime } from './monotonic';
import { threadTimes, type SchedulerTimes } from './processors';
import { RunSampler } from './run-sampler';
import { NO_USAGE, threadUsage, usageBetween } from './thread-usage';
import { processorShare } from './trust';

/**
 * The ramp ends and begins again so many times, at intervals of so many milliseconds, before it ends for good. V8 has then
 * seen everything that happens at the end of a ramp when it optimizes the loop. Otherwise it would throw the optimized code
 * away at the beginning of the run; compiling it again took 2 % of a run of 1 s.
 */
const EARLY_ENDS = 16;
const EARLY_END_MILLISECONDS = 10;
/** A device that completes nothing for so long while it runs has failed. */
const STALL_MILLISECONDS = 30_000;
/** A wait after the run that takes longer is no part of the run: the processor time is taken before it. */
const LONG_WAIT_MILLISECONDS = 100;

/**
 * How a slice of a run ended: with more to do, with nothing to do until a completion comes, with a queue pair that is not used
 * any more, or for good.
 */
export type SliceEnd = 'busy' | 'quiet' | 'paused' | 'done';

/**
 * The run of a job on its queue pair: its phases, the clock, the wishes from outside, and what comes of it. A job whose
 * controller has gone pauses: it is attached to another queue pair, or ended without one.
 */
export class JobRun {
  readonly #job: Job;
  readonly #state: JobState;
  readonly #queue: JobQueue;
  /** Milliseconds of the workload itself, without ramp and without reading back. */
  #elapsedMs = 0;
  #usageBefore = NO_USAGE;
  /** What the workload cost the thread, without ramp, long waits and reading back; undefined until its end. */
  #cpu: CpuUsage | undefined;
  /** When the measured run began. */
  #measured = 0;
  /** When the ramp or the run ends. */
  #deadline = 0;
  #rampEnd = 0;
  #earlyEnds = 0;
  #lastProgress = 0;
  /** When the time of the run was over, or the job was asked to end. */
  #over = Infinity;
  #readingBack = false;
  #begun = false;
  #done = false;
  readonly #sampler: RunSampler;
  /** When the queue pair was attached of which no I/O has completed yet; Infinity otherwise. */
  #attached = Infinity;
  /** Looks for the number in flight that keeps a latency; null when there is none to keep. */
  readonly #search: DepthSearch | null;
  #sampledTimes: SchedulerTimes | undefined;

  /** @param memory the memory of the job, mapped in this thread */
  constructor(job: Job, memory: ArrayBuffer, queue: JobQueuePair) {
    this.#job = job;
    this.#state = new JobState(job.state);
    this.#queue = new JobQueue(job, memory, queue);
    this.#sampler = new RunSampler(job.sampleMs);
    this.#search = job.latencyTarget === null ? null : new DepthSearch(job.depth);
  }

  /** What was measured so far. */
  get result(): JobResult {
    const { depth } = this.#job;
    const { tally, failed, verification } = this.#queue;
    const { verified = 0, mismatches = 0, firstMismatch } = verification ?? {};
    const depthCounts = new Float64Array(COUNT_SLOTS);
    const found = this.#search?.found;
    depthCounts[depthSlot(found?.depth ?? depth)] = tally.ios;
    return {
      jobs: 1,
      read: this.#direction('read'),
      write: this.#direction('write'),
      trim: this.#direction('trim'),
      sampleMs: this.#job.sampleMs,
      runtimeMs: this.#elapsedMs,
      cpu: this.#cpu ?? usageBetween(this.#usageBefore, threadUsage()),
      depthCounts,
      batchCounts: tally.batchCounts,
      foundDepths: found === undefined ? [] : [found],
      errors: mismatches + (failed === undefined ? 0 : 1),
      firstError: firstMismatch ?? (failed === undefined ? undefined : failureText(failed)),
      verified,
      mismatches,
      ended: this.#end(),
    };
  }

  /** Milliseconds until the pace lets the next I/O be sent; Infinity when it is not the pace that is waited for. */
  get nextSubmission(): number {
    return this.#queue.nextSubmission;
  }

  /** Number of commands that were in flight when the job paused. */
  get heldCount(): number {
    return this.#queue.heldCount;
  }

  /** Goes on after a pause, with a queue pair of the controller that has come back. */
  attach(queue: JobQueuePair): void {
    this.#queue.attach(queue);
    const { now } = this.#queue;
    this.#passGap();
    this.#lastProgress = this.#attached = now;
    // What was in flight at the end of the run is waited for anew.
    if (this.#over < Infinity) this.#over = now;
    // Nothing new is sent in a run whose time ended in the gap.
    if (now >= this.#deadline) this.#passDeadline();
  }

  /** Ends the job in a pause, as its controller does not come back, or is not waited for. */
  endPaused(): void {
    const queue = this.#queue;
    queue.now = performance.now();
    if (this.#state.wish !== Wish.abandon) {
      queue.stop();
      this.#endWorkload();
    }
    this.#passGap();
    this.#finish();
  }

  /**
   * Runs for up to `milliseconds`.
   *
   * @param patience milliseconds without a completion after which the slice ends `quiet`
   */
  slice(milliseconds: number, patience = Infinity): SliceEnd {
    const queue = this.#queue;
    queue.now = performance.now();
    if (!this.#begun) this.#begin();
    // The first completion of a queue pair is looked at by itself: it ends a gap.
    const until = this.#attached === Infinity ? queue.now + milliseconds : queue.now;
    for (;;) {
      if (queue.work(patience > 0) > 0) {
        this.#lastProgress = queue.now;
        if (!this.#readingBack) this.#elapsedMs = queue.now - this.#measured;
        if (queue.now < this.#deadline && queue.now < until && !queue.idle && queue.stray < 0) continue;
      } else {
        queue.now = performance.now();
        // Command ids are free because the pace is limited; the next I/O may be due now.
        if (queue.wanting) queue.send();
      }
      if (!this.#advance()) return this.#finish();
      if (this.#state.paused) return this.#pause();
      const quiet = queue.now - this.#lastProgress >= patience;
      if (queue.now < until && !quiet) continue;
      this.#publish();
      return quiet ? 'quiet' : 'busy';
    }
  }

  #begin(): void {
    const { now } = this.#queue;
    this.#begun = true;
    this.#lastProgress = now;
    this.#beginRamp(now);
    if (this.#search !== null) this.#tryDepth(this.#search);
    this.#beginMeasuring();
    this.#queue.begin();
  }

  /** Begins the ramp, or the measured run where there is none. */
  #beginRamp(now: number): void {
    const { rampMs, runtimeMs } = this.#job;
    this.#rampEnd = now + rampMs;
    this.#deadline = now + (rampMs > 0 ? Math.min(rampMs, EARLY_END_MILLISECONDS) : runtimeMs);
    this.#state.phase = rampMs > 0 ? 'ramp' : 'run';
  }

  /** Tries a number in flight for a window. */
  #tryDepth({ depth }: DepthSearch): void {
    this.#queue.limit = depth;
    this.#deadline = this.#queue.now + (this.#job.latencyTarget?.windowMs ?? 0);
    this.#state.phase = 'ramp';
  }

  /** Drops what was measured so far. */
  #beginMeasuring(): void {
    this.#cpu = undefined;
    this.#measured = this.#queue.now;
    this.#state.measuredAt = monotonicTime(this.#measured);
    this.#sampler.begin(this.#measured);
    this.#elapsedMs = 0;
    this.#queue.tally.forget();
    this.#usageBefore = threadUsage();
    this.#sampledTimes = threadTimes();
  }

  #passGap(): void {
    const { now, tally } = this.#queue;
    if (this.#state.phase === 'run') this.#sampler.takeAfterGap(now, tally);
  }

  /** The controller has gone. What it has completed is taken; the rest waits for the next one. */
  #pause(): SliceEnd {
    if (this.#queue.hold() > 0 && !this.#readingBack) this.#elapsedMs = this.#queue.now - this.#measured;
    this.#attached = Infinity;
    this.#publish();
    return 'paused';
  }

  /** Looks at the clock, at the wishes from outside, and at the end of a phase. False when the job is over. */
  #advance(): boolean {
    const queue = this.#queue;
    const { now } = queue;
    if (this.#lastProgress > this.#attached) {
      this.#state.firstIoAt = monotonicTime(this.#lastProgress);
      this.#attached = Infinity;
    }
    const { wish } = this.#state;
    if (wish === Wish.abandon || wish === Wish.giveUp || queue.stray >= 0) return false;
    if (wish === Wish.stop || wish === Wish.finish) {
      queue.stop();
      this.#endWorkload();
    }
    if (now >= this.#deadline) this.#passDeadline();
    if (queue.idle && !queue.unfinished && !this.#readBack()) return false;
    // With nothing in flight it is the pace that is waited for.
    if (queue.idle) this.#lastProgress = now;
    if (now - this.#over >= LONG_WAIT_MILLISECONDS)
      this.#cpu ??= usageBetween(this.#usageBefore, threadUsage());
    return !this.#stalled;
  }

  /** After its end a run waits for `drainMs` in all; before, for a device that completes nothing. */
  get #stalled(): boolean {
    const { now, idle } = this.#queue;
    const { drainMs } = this.#job;
    if (idle) return false;
    return now - this.#over >= drainMs || now - this.#lastProgress >= Math.max(STALL_MILLISECONDS, drainMs);
  }

  /** Nothing more is sent. The time until now belongs to the run, also when the device has completed nothing lately. */
  #endWorkload(): void {
    if (this.#over < Infinity) return;
    this.#over = this.#queue.now;
    if (!this.#readingBack) this.#elapsedMs = this.#over - this.#measured;
  }

  /** The ramp is over, and measuring begins; or the run is over, and what is in flight is waited for. */
  #passDeadline(): void {
    if (this.#search !== null && this.#search.found === undefined) {
      this.#judgeDepth(this.#search);
      return;
    }
    if (this.#state.phase !== 'ramp') {
      this.#queue.end();
      this.#deadline = Infinity;
      this.#endWorkload();
      return;
    }
    const { now } = this.#queue;
    const over = now >= this.#rampEnd;
    this.#state.phase = over ? 'run' : 'ramp';
    const early = this.#earlyEnds++ < EARLY_ENDS ? now + EARLY_END_MILLISECONDS : Infinity;
    this.#deadline = over ? now + this.#job.runtimeMs : Math.min(early, this.#rampEnd);
    this.#beginMeasuring();
  }

  /** A window of the search is over: a latency was kept or not. */
  #judgeDepth(search: DepthSearch): void {
    const { ns, percentile } = this.#job.latencyTarget ?? { ns: 0, percentile: 100 };
    const all = new LatencyHistogram();
    for (const direction of DIRECTIONS) all.merge(this.#queue.tally[direction]);
    // A latency that lies in the same bucket of the histogram as the target may count as either.
    if (all.count > 0) search.judge(all.shareWithin(ns) * 100 >= percentile);
    if (search.found === undefined) this.#tryDepth(search);
    else {
      this.#queue.limit = search.depth;
      this.#beginRamp(this.#queue.now);
    }
    this.#beginMeasuring();
  }

  /** All commands are done: begins to read back what was written. False when there is nothing to read back. */
  #readBack(): boolean {
    const { verification, stopped } = this.#queue;
    if (verification === null || !writes(this.#job.workload)) return false;
    if (this.#readingBack || stopped || verification.written === 0) return false;
    this.#readingBack = true;
    this.#over = Infinity;
    this.#cpu ??= usageBetween(this.#usageBefore, threadUsage());
    this.#deadline = Infinity;
    this.#state.phase = 'verify';
    this.#queue.readBack(verification);
    return true;
  }

  #finish(): SliceEnd {
    // A run that ends in its ramp has measured nothing.
    if (this.#state.phase === 'ramp') this.#beginMeasuring();
    this.#cpu ??= usageBetween(this.#usageBefore, threadUsage());
    this.#publish();
    this.#state.waitedMs = Math.max(0, this.#queue.now - this.#over);
    this.#state.phase = 'done';
    this.#done = true;
    return 'done';
  }

  #publish(): void {
    const { now, tally } = this.#queue;
    this.#state.publish({
      reads: tally.read.count,
      writes: tally.write.count,
      trims: tally.trim.count,
      readBytes: tally.bytes('read'),
      writtenBytes: tally.bytes('write'),
      trimmedBytes: tally.bytes('trim'),
      elapsedMs: this.#elapsedMs,
    });
    if (this.#state.phase === 'run' && this.#sampler.take(now, tally)) this.#publishShare();
  }

  #publishShare(): void {
    const [before, times] = [this.#sampledTimes, threadTimes()];
    if (before === undefined || times === undefined) return;
    this.#state.processorShare = processorShare({
      runMs: times.runMs - before.runMs,
      waitedMs: times.waitedMs - before.waitedMs,
    });
    this.#sampledTimes = times;
  }

  #direction(direction: Direction): DirectionResult {
    const { tally } = this.#queue;
    const { count, data } = tally[direction];
    return {
      ios: count,
      bytes: tally.bytes(direction),
      runtimeMs: count > 0 ? this.#elapsedMs : 0,
      latency: data,
      samples: this.#sampler.samples(direction),
    };
  }

  #end(): JobEnd {
    const { failed, verification, stray, now, inFlight, idle } = this.#queue;
    if (failed !== undefined) return failedEnd(failed);
    if (verification !== null && verification.mismatches > 0) return mismatchEnd(verification);
    if (stray >= 0) return strayEnd(stray, this.#job.depth);
    const { wish } = this.#state;
    if (this.#done && wish !== Wish.abandon && !idle) return stalledEnd(inFlight, now - this.#lastProgress);
    if (wish === Wish.abandon) return { reason: 'lost', message: 'went away during the run' };
    if (!this.#done) return { reason: 'running', message: '' };
    return { reason: wish === Wish.goOn || wish === Wish.finish ? 'finished' : 'stopped', message: '' };
  }
}
