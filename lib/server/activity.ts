// SPDX-License-Identifier: MIT
import type { Eventually } from './model-call';

/** Counts what is at work, for those who have to wait until nothing is. */
export class Activity {
  #count = 0;
  #resting: (() => void)[] = [];

  /** Counts `work` until it settles, if it is a promise; returns it as it is. */
  track<T>(work: Eventually<T>): Eventually<T> {
    if (!(work instanceof Promise)) return work;
    this.#count++;
    const done = (): void => {
      if (--this.#count > 0) return;
      for (const rest of this.#resting.splice(0)) rest();
    };
    work.then(done, done);
    return work;
  }

  /** Resolves when nothing is at work. */
  async rest(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => this.#resting.push(resolve));
  }
}
