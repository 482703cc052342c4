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
    const iops = sum(DIRECTIONS.map((direction) => rates[direction].iops));
    const elapsedMs = Math.max(0, ...progress.map((each) => each.elapsedMs));
    return {
      rates,
      ...this.#remaining(progress, elapsedMs, iops, phase === 'ramp'),
      elapsedMs,
      ios: sum(progress.map(countOf)),
      bytes: sum(progress.map((each) => each.readBytes + each.writtenBytes + each.trimmedBytes)),
      awaySeconds: (now - (this.#awaySince ?? now)) / 1000,
      processorShare: Math.min(1, ...this.#jobs.map(({ state }) => state.processorShare)),
      phase,
    };
  }

  /** A run ends by its time or by its number of I/Os, whichever comes first. */
  #remaining(
    progress: readonly JobProgress[],
    elapsedMs: number,
    iops: number,
    ramp: boolean,
  ): Pick<BenchmarkProgress, 'part' | 'secondsLeft'> {
    const jobs = this.#jobs.map(({ job }) => job);
    const runtimeMs = Math.max(...jobs.map((job) => job.runtimeMs));
    const rampMs = ramp ? Math.max(...jobs.map((job) => job.rampMs)) : 0;
    const byTime = {
      part: ramp ? 0 : elapsedMs / runtimeMs,
      secondsLeft: (runtimeMs - elapsedMs + rampMs) / 1000,
    };
    // A trim with the write after it counts as one.
    const all = sum(jobs.map((job) => job.ioLimit * (trimsAndWrites(job.workload) ? 2 : 1)));
    const done = sum(progress.map(countOf));
    const byCount = { part: done / all, secondsLeft: iops > 0 ? (all - done) / iops : 0 };
    const { part, secondsLeft } = runtimeMs === Infinity || byCount.part > byTime.part ? byCount : byTime;
    return { part, secondsLeft: Math.max(0, secondsLeft) };
  }
}

function countOf({ reads, writes, trims }: JobProgress): number {
  return reads + writes + trims;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
