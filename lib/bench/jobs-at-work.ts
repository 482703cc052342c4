// SPDX-License-Identifier: MIT
import type { PlannedJob } from './plan';

/** What jobs have in flight and have completed, as they publish it about every 10 ms: nobody asks their threads, and no I/O costs more. */
export class JobsAtWork {
  readonly #jobs: Iterable<PlannedJob>;

  /** @param jobs those that have not ended */
  constructor(jobs: Iterable<PlannedJob>) {
    this.#jobs = jobs;
  }

  /** Jobs that may have commands in flight. One that waits for its pace has none, and is looked after for nothing. */
  get outstanding(): number {
    let atWork = 0;
    for (const { state } of this.#jobs) if (state.phase !== 'done' && !state.paused) atWork++;
    return atWork;
  }

  /** I/Os that were completed in the phases that they are in. */
  get completed(): number {
    let completed = 0;
    for (const { state } of this.#jobs) {
      const { reads, writes, trims } = state.progress;
      completed += reads + writes + trims;
    }
    return completed;
  }
}
