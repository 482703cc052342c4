// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';

/** Longest time that work goes on before the event loop gets its turn, in milliseconds. */
const LENGTH = 5;

/**
 * Cuts work whose length a client decides, so that others are served in between.
 *
 * @example for (const range of ranges) { …; if (slice.over) await slice.next(); }
 */
export class TimeSlice {
  #end = performance.now() + LENGTH;

  get over(): boolean {
    return performance.now() >= this.#end;
  }

  /** Lets the event loop have its turn, and begins another slice. */
  async next(): Promise<void> {
    await nextTurn();
    this.#end = performance.now() + LENGTH;
  }
}
