// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Eventually } from './model-calls';

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

/** Does work for each item: at once if that is soon done, else little by little. */
export function inSlices<T>(items: readonly T[], work: (item: T, index: number) => void): Eventually<void> {
  const slice = new TimeSlice();
  for (const [index, item] of items.entries()) {
    if (slice.over) return finish(items, work, index, slice);
    work(item, index);
  }
}

async function finish<T>(
  items: readonly T[],
  work: (item: T, index: number) => void,
  from: number,
  slice: TimeSlice,
): Promise<void> {
  for (let index = from; index < items.length; index++) {
    if (slice.over) await slice.next();
    work(items[index] as T, index);
  }
}
