// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';

/** Milliseconds that pass whenever the time is asked for. */
const TICK = 0.01;

/** A clock that the test moves, so that no machine is too slow or too fast for it. */
export const clock = {
  /** Milliseconds. */
  now: 0,
  /** Milliseconds that pass whenever the time is asked for. */
  tick: TICK,
};

/** Lets {@link clock} be the time of each test of a file, as this thread tells it and as all threads share it. */
export function useClock(): void {
  beforeEach(() => {
    clock.now = 5000;
    clock.tick = TICK;
    const pass = (): number => (clock.now += clock.tick);
    jest.spyOn(performance, 'now').mockImplementation(pass);
    jest.spyOn(process.hrtime, 'bigint').mockImplementation(() => BigInt(Math.round(pass() * 1e6)));
  });
  afterEach(() => {
    jest.restoreAllMocks();
  });
}
