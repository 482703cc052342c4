// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';

/** Turns of the event loop that {@link until} gives before it lets time pass. */
const TURNS_FIRST = 50;

/**
 * Waits until `condition` holds, and fails by `what` after `milliseconds`: by default less than Jest gives a test, so that
 * the failure tells what was waited for.
 */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what = condition.toString(),
  milliseconds = 50_000,
): Promise<void> {
  const deadline = performance.now() + milliseconds;
  for (let tries = 0; !(await condition()); tries++) {
    if (performance.now() > deadline) throw new Error(`did not come true: ${what}`);
    // Most of what this process does itself is done within some turns of the event loop.
    await (tries < TURNS_FIRST ? turn() : sleep(1));
  }
}

/**
 * Lets happen what is ready to, for a test that something does not happen. A message or a signal that this process sends
 * to itself can be read as soon as it was sent, and every turn of the event loop serves each descriptor that can be read.
 * So it is turns that count, not time: what a few of them do not bring is not under way.
 */
export async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}

/**
 * Whether the event loop sleeps at all while a timer runs, which nothing but the passing of time can show. A busy machine
 * may leave it no time to: a test that needs sleep waits for it with {@link until}.
 */
export async function loopSleeps(): Promise<boolean> {
  const before = performance.eventLoopUtilization();
  await sleep(30);
  return performance.eventLoopUtilization(before).idle > 0;
}
