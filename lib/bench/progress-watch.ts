// SPDX-License-Identifier: MIT
import type { BenchmarkOptions, BenchmarkProgress } from './benchmark-types';
import type { JobPlan, JobState } from './plan';

/** Time between two samples of the rates, in milliseconds. */
export const PROGRESS_MILLISECONDS = 500;

/** Counts the progress of the jobs while they run. */
export class ProgressWatch {
  readonly #states: readonly JobState[];
  readonly #plans: readonly JobPlan[];
  readonly #options: BenchmarkOptions;
  readonly #samples: { reads: number[]; writes: number[] }[];
  readonly #last: { reads: number; writes: number }[];
  readonly #timer: NodeJS.Timeout;
  #time = performance.now();

  constructor(
    jobs: readonly { readonly plan: JobPlan; readonly state: JobState }[],
    options: BenchmarkOptions,
  ) {
    const states = jobs.map(({ state }) => state);
    this.#states = states;
    this.#plans = jobs.map(({ plan }) => plan);
    this.#options = options;
    this.#samples = states.map(() => ({ reads: [], writes: [] }));
    this.#last = states.map(() => ({ reads: 0, writes: 0 }));
    this.#timer = setInterval(() => {
      this.#tick();
    }, PROGRESS_MILLISECONDS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** I/Os per second of a job in each interval. */
  samples(job: number): { reads: number[]; writes: number[] } {
    return this.#samples[job] ?? { reads: [], writes: [] };
  }

  #tick(): void {
    const now = performance.now();
    const seconds = (now - this.#time) / 1000;
    this.#time = now;
    let readIops = 0;
    let writeIops = 0;
    this.#states.forEach((state, job) => {
      const last = this.#last[job];
      const samples = this.#samples[job];
      if (last === undefined || samples === undefined) return;
      const [reads, written] = [state.reads, state.writes];
      // What the ramp counted is forgotten at its end.
      if (reads < last.reads || written < last.writes) last.reads = last.writes = 0;
      const rates = [(reads - last.reads) / seconds, (written - last.writes) / seconds] as const;
      last.reads = reads;
      last.writes = written;
      readIops += rates[0];
      writeIops += rates[1];
      if (state.phase !== 'run') return;
      samples.reads.push(rates[0]);
      samples.writes.push(rates[1]);
    });
    this.#options.onProgress?.({ readIops, writeIops, ...this.#part(readIops + writeIops) });
  }

  #part(iops: number): Pick<BenchmarkProgress, 'part' | 'secondsLeft' | 'phase'> {
    const phases = this.#states.map((state) => state.phase);
    const phase = (['ramp', 'run', 'verify'] as const).find((one) => phases.includes(one)) ?? 'run';
    const { runtime, rampTime = 0 } = this.#options;
    const ramp = phase === 'ramp';
    const elapsed = Math.max(0, ...this.#states.map((state) => state.elapsedMs)) / 1000;
    const byTime =
      runtime === undefined
        ? undefined
        : { part: ramp ? 0 : elapsed / runtime, secondsLeft: runtime - elapsed + (ramp ? rampTime : 0) };
    const all = sum(this.#plans.map((plan) => plan.ioLimit));
    const done = sum(this.#states.map((state) => state.reads + state.writes));
    const byCount = { part: done / all, secondsLeft: iops > 0 ? (all - done) / iops : 0 };
    // The run ends by what comes first.
    const nearest = byTime === undefined || byCount.part > byTime.part ? byCount : byTime;
    return { part: nearest.part, secondsLeft: Math.max(0, nearest.secondsLeft), phase };
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
