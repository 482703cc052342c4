// SPDX-License-Identifier: MIT
import type { Job } from './job';
import { SAMPLE_MILLISECONDS } from './job-result';
import type { JobPhase, JobState } from './job-state';

/** How a run stands. */
export interface BenchmarkProgress {
  /** I/Os per second since the last call. */
  readonly readIops: number;
  readonly writeIops: number;
  /** Part of the run that is over, 0 to 1. */
  readonly part: number;
  readonly secondsLeft: number;
  /** Share of a processor that the job with the least of it got of late, 0 to 1. */
  readonly processorShare: number;
  /** The phase of the job that is furthest behind. */
  readonly phase: Exclude<JobPhase, 'done'>;
}

/** Tells how the jobs stand while they run. */
export class ProgressWatch {
  readonly #jobs: readonly { readonly job: Job; readonly state: JobState }[];
  readonly #timer: NodeJS.Timeout;
  readonly #last: { reads: number; writes: number }[];
  #time = performance.now();

  /** @param listener called every {@link SAMPLE_MILLISECONDS} */
  constructor(
    jobs: readonly { readonly job: Job; readonly state: JobState }[],
    listener: (progress: BenchmarkProgress) => void,
  ) {
    this.#jobs = jobs;
    this.#last = jobs.map(() => ({ reads: 0, writes: 0 }));
    this.#timer = setInterval(() => {
      listener(this.#progress());
    }, SAMPLE_MILLISECONDS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #progress(): BenchmarkProgress {
    const now = performance.now();
    const seconds = (now - this.#time) / 1000;
    this.#time = now;
    let readIops = 0;
    let writeIops = 0;
    this.#jobs.forEach(({ state: { reads, writes } }, index) => {
      let last = this.#last[index] ?? { reads: 0, writes: 0 };
      // The counters begin again at the end of the ramp.
      if (reads < last.reads || writes < last.writes) last = { reads: 0, writes: 0 };
      readIops += (reads - last.reads) / seconds;
      writeIops += (writes - last.writes) / seconds;
      this.#last[index] = { reads, writes };
    });
    const phases = this.#jobs.map(({ state }) => state.phase);
    const phase = (['ramp', 'run', 'verify'] as const).find((one) => phases.includes(one)) ?? 'run';
    return {
      readIops,
      writeIops,
      ...this.#remaining(readIops + writeIops, phase === 'ramp'),
      processorShare: Math.min(1, ...this.#jobs.map(({ state }) => state.processorShare)),
      phase,
    };
  }

  /** A run ends by its time or by its number of I/Os, whichever comes first. */
  #remaining(iops: number, ramp: boolean): Pick<BenchmarkProgress, 'part' | 'secondsLeft'> {
    const jobs = this.#jobs.map(({ job }) => job);
    const states = this.#jobs.map(({ state }) => state);
    const runtimeMs = Math.max(...jobs.map((job) => job.runtimeMs));
    const elapsedMs = Math.max(...states.map((state) => state.elapsedMs));
    const rampMs = ramp ? Math.max(...jobs.map((job) => job.rampMs)) : 0;
    const byTime = {
      part: ramp ? 0 : elapsedMs / runtimeMs,
      secondsLeft: (runtimeMs - elapsedMs + rampMs) / 1000,
    };
    const all = sum(jobs.map((job) => job.ioLimit));
    const done = sum(states.map((state) => state.reads + state.writes));
    const byCount = { part: done / all, secondsLeft: iops > 0 ? (all - done) / iops : 0 };
    const { part, secondsLeft } = runtimeMs === Infinity || byCount.part > byTime.part ? byCount : byTime;
    return { part, secondsLeft: Math.max(0, secondsLeft) };
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
