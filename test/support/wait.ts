// SPDX-License-Identifier: MIT
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';

/** Looks that an {@link until} takes without a pause between them. */
const EAGER_LOOKS = 20;

/**
 * Waits until `condition` holds, and fails by `what` after `milliseconds`: by default less than Jest gives a test, so that
 * the failure tells what was waited for.
 */
export async function until(
  condition: () => boolean,
  what = condition.toString(),
  milliseconds = 15_000,
): Promise<void> {
  const deadline = performance.now() + milliseconds;
  for (let looks = 1; !condition(); looks++) {
    if (performance.now() > deadline) throw new Error(`did not come true: ${what}`);
    await (looks < EAGER_LOOKS ? turn() : sleep(1));
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
