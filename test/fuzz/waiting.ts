// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { PATIENCE, Violation } from './role';

/** Turns of the event loop before a wait sleeps in between: a peer in the same process answers within a few. */
const EAGER_TURNS = 200;

/** Gives the event loop turns until a condition holds; a {@link Violation} when it does not come true. */
export async function waitFor(condition: () => boolean, what: string): Promise<void> {
  let deadline = 0;
  for (let turns = 0; !condition(); turns++) {
    if (turns < EAGER_TURNS) {
      await turn();
      continue;
    }
    const now = performance.now();
    if (turns === EAGER_TURNS) deadline = now + PATIENCE;
    if (now > deadline) throw new Violation(`hangs: ${what} did not come within ${PATIENCE} ms`);
    await sleep(1);
  }
}

/** Lets happen what is ready to. */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await turn();
}
