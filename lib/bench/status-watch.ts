// SPDX-License-Identifier: MIT
import type { JobResult } from './job-result';
import type { PlannedJob } from './plan';

/** Tells what the jobs have done so far at fixed intervals, if somebody wants to know. */
export class StatusWatch {
  readonly #parts: readonly (readonly PlannedJob[])[];
  readonly #results = new Map<PlannedJob, JobResult>();
  readonly #tell: (results: readonly (readonly JobResult[])[]) => void;
  readonly #timer: NodeJS.Timeout | undefined;
  /** Jobs that were asked and have not answered. */
  readonly #asked = new Set<PlannedJob>();

  /**
   * @param parts the jobs of each part of the result
   * @param seconds between two calls of `tell`; undefined for none
   * @param tell called with the results of each part
   */
  constructor(
    parts: readonly (readonly PlannedJob[])[],
    seconds: number | undefined,
    tell: (results: readonly (readonly JobResult[])[]) => void,
  ) {
    this.#parts = parts;
    this.#tell = tell;
    if (seconds === undefined) return;
    this.#timer = setInterval(() => {
      this.#ask();
    }, seconds * 1000);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Takes what a job has done: when it was asked for it, when it pauses, or when it has ended. */
  take(job: PlannedJob, result: JobResult): void {
    this.#results.set(job, result);
    if (this.#asked.delete(job) && this.#asked.size === 0) this.#tellAll();
  }

  #tellAll(): void {
    this.#tell(this.#parts.map((jobs) => jobs.flatMap((each) => this.#results.get(each) ?? [])));
  }

  #ask(): void {
    // Those that have ended or paused have told their result; those that do not answer are asked again.
    const running = this.#parts.flat().filter(({ state }) => state.phase !== 'done' && !state.paused);
    for (const job of running) {
      this.#asked.add(job);
      job.state.ask();
    }
    if (running.length === 0 && this.#results.size > 0) this.#tellAll();
  }
}
