// SPDX-License-Identifier: MIT
import { DIRECTIONS, trimsAndWrites, type Direction, type Job } from './job';
import { SAMPLE_MILLISECONDS } from './job-result';
import type { JobPhase, JobProgress, JobState } from './job-state';

/** How a run stands. */
export interface BenchmarkProgress {
  /** What each direction did since the last call. */
  readonly rates: Readonly<Record<Direction, Rate>>;
  /** Part of the run that is over, 0 to 1. */
  readonly part: number;
  readonly secondsLeft: number;
  /** Milliseconds of the measured run, and what all jobs have done in it. */
  readonly elapsedMs: number;
  readonly ios: number;
  readonly bytes: number;
  /** Share of a processor that the job with the least of it got of late, 0 to 1. */
  readonly processorShare: number;
  /** Seconds for which jobs have waited for a server that has gone; 0 when none does. */
  readonly awaySeconds: number;
  /** The phase of the job that is furthest behind. */
  readonly phase: Exclude<JobPhase, 'done'>;
}

/** I/Os and bytes per second. */
export interface Rate {
  readonly iops: number;
  readonly bandwidth: number;
}

/** Where the progress of a job has the numbers of a direction. */
const KEYS = {
  read: ['reads', 'readBytes'],
  write: ['writes', 'writtenBytes'],
  trim: ['trims', 'trimmedBytes'],
} as const satisfies Record<Direction, readonly [ios: keyof JobProgress, bytes: keyof JobProgress]>;

/** Tells how the jobs stand while they run. */
export class ProgressWatch {
  readonly #jobs: readonly { readonly job: Job; readonly state: JobState }[];
  readonly #timer: NodeJS.Timeout;
  #last: readonly (JobProgress | undefined)[] = [];
  #time = performance.now();
  /** Since when jobs wait for a server, at the earliest; undefined when none does. */
  #awaySince: number | undefined;

  /** @param listener called every {@link SAMPLE_MILLISECONDS} */
  constructor(
    jobs: readonly { readonly job: Job; readonly state: JobState }[],
    listener: (progress: BenchmarkProgress) => void,
  ) {
    this.#jobs = jobs;
    this.#timer = setInterval(() => {
      listener(this.#progress());
    }, SAMPLE_MILLISECONDS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #progress(): BenchmarkProgress {
    const now = performance.now();
    const last = this.#time;
    const seconds = (now - last) / 1000;
    this.#time = now;
    const progress = this.#jobs.map(({ state }) => state.progress);
    const since = progress.map((each, index) => {
      const before = this.#last[index];
      // The counters begin again at the end of the ramp.
      return before !== undefined && countOf(each) < countOf(before) ? undefined : before;
    });
    this.#last = progress;
    const gained = (key: keyof JobProgress): number =>
      sum(progress.map((each, index) => each[key] - (since[index]?.[key] ?? 0))) / seconds;
    const rates = Object.fromEntries(
      DIRECTIONS.map((direction) => {
        const [ios, bytes] = KEYS[direction];
        return [direction, { iops: gained(ios), bandwidth: gained(bytes) }];
      }),
    ) as Record<Direction, Rate>;
    const away = this.#jobs.some(({ state }) => state.paused && state.phase !== 'done');
    this.#awaySince = away ? (this.#awaySince ?? last) : undefined;
    const phases = this.#jobs.map(({ state }) => state.phase);
    const phase = (['ramp', 'run', 'verify'] as const).find((one) => phases.includes(one)) ?? 'run';
    const gainedBytes = progress.map((each, index) => bytesOf(each) - bytesOf(since[index]));
    return {
      rates,
      ...this.#remaining(progress, gainedBytes, seconds, phase === 'ramp'),
      elapsedMs: Math.max(0, ...progress.map((each) => each.elapsedMs)),
      ios: sum(progress.map(countOf)),
      bytes: sum(progress.map(bytesOf)),
      awaySeconds: (now - (this.#awaySince ?? now)) / 1000,
      processorShare: Math.min(1, ...this.#jobs.map(({ state }) => state.processorShare)),
      phase,
    };
  }

  /**
   * A job ends by its time or with what it is to transfer, whichever comes first, and the run with the last job.
   *
   * @param gained bytes that each job has transferred in the last `seconds`
   */
  #remaining(
    progress: readonly JobProgress[],
    gained: readonly number[],
    seconds: number,
    ramp: boolean,
  ): Remaining {
    const all = this.#jobs.map(({ job }, index) => ({
      job,
      elapsedMs: progress[index]?.elapsedMs ?? 0,
      bytes: bytesOf(progress[index]),
      gained: gained[index] ?? 0,
    }));
    const timed = all.filter(({ job }) => job.runtimeMs < Infinity);
    const runtimeMs = Math.max(0, ...timed.map(({ job }) => job.runtimeMs));
    const elapsedMs = Math.max(0, ...timed.map((each) => each.elapsedMs));
    const rampMs = ramp ? Math.max(0, ...timed.map(({ job }) => job.rampMs)) : 0;
    const byTime = {
      part: ramp ? 0 : elapsedMs / runtimeMs,
      secondsLeft: Math.max(0, runtimeMs - elapsedMs + rampMs) / 1000,
    };
    const untimed = all.filter(({ job }) => job.runtimeMs === Infinity);
    const limited = untimed.length > 0 ? untimed : all;
    const limit = sum(limited.map(({ job }) => byteLimit(job)));
    const done = sum(limited.map(({ bytes }) => bytes));
    const rate = sum(limited.map((each) => each.gained)) / seconds;
    const byBytes = { part: done / limit, secondsLeft: rate > 0 ? Math.max(0, limit - done) / rate : 0 };
    const [first, last] = byBytes.part > byTime.part ? [byBytes, byTime] : [byTime, byBytes];
    if (untimed.length === 0) return first;
    return timed.length === 0 ? byBytes : last;
  }
}

/** Part of a run that is over, 0 to 1, and what is left of it. */
type Remaining = Pick<BenchmarkProgress, 'part' | 'secondsLeft'>;

/** Bytes that a job transfers at most. A trim with the write after it counts as one. */
function byteLimit({ ioLimit, blockSize, byteLimit: bytes, workload }: Job): number {
  return Math.min(ioLimit * blockSize, bytes) * (trimsAndWrites(workload) ? 2 : 1);
}

function bytesOf(progress: JobProgress | undefined): number {
  return progress === undefined ? 0 : progress.readBytes + progress.writtenBytes + progress.trimmedBytes;
}

function countOf({ reads, writes, trims }: JobProgress): number {
  return reads + writes + trims;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
