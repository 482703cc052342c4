// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';

/** Longest time of a timer, in milliseconds; when it fires early, it is set again. */
export const MAX_TIMER = 2 ** 31 - 1;

/** One lazy timer for many deadlines. Does not keep the event loop alive. */
export class DeadlineTimer {
  readonly #expire: (now: number) => number;
  #timer: NodeJS.Timeout | undefined;
  #deadline = Infinity;

  /** @param expire called when the earliest deadline may be past; returns the next one, Infinity for none */
  constructor(expire: (now: number) => number) {
    this.#expire = expire;
  }

  /** @param deadline in milliseconds of `performance.now()`, Infinity for none */
  arm(deadline: number): void {
    if (deadline >= this.#deadline || deadline === Infinity) return;
    clearTimeout(this.#timer);
    this.#deadline = deadline;
    this.#timer = setTimeout(
      () => {
        this.#deadline = Infinity;
        this.arm(this.#expire(performance.now()));
      },
      Math.min(Math.ceil(Math.max(1, deadline - performance.now())), MAX_TIMER),
    );
    this.#timer.unref();
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}
