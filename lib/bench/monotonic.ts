// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';

/**
 * The time in milliseconds by a clock that all threads share (CLOCK_MONOTONIC); `performance.now()` begins at 0 in each.
 *
 * @param at a moment by `performance.now()` of this thread. Default: now
 */
export function monotonicTime(at?: number): number {
  const now = Number(process.hrtime.bigint()) / 1e6;
  return at === undefined ? now : now - (performance.now() - at);
}
