// SPDX-License-Identifier: MIT

/** What sleeps, and is asked now and then whether there is work. */
export interface Sleeper {
  /**
   * Looks once.
   *
   * @param now `performance.now()`, in milliseconds
   * @returns milliseconds until the next look, one of {@link INTERVALS}; 0 when it does not sleep any more
   */
  glance(now: number): number;
}

/** Milliseconds between looks: a millisecond at first, and later as long as a host may be made to wait. */
const INTERVALS = [1, 2, 4, 8, 16] as const;
const LONGEST = 16;
/** A host waits for at most this part of the time during which it had no work. */
const PART = 64;

/** Sleepers with the same interval. One timer is for all of them, so that a thousand cost little more than one. */
class Level {
  readonly sleepers = new Set<Sleeper>();
  readonly #interval: number;
  readonly #look: (level: Level) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(interval: number, look: (level: Level) => void) {
    this.#interval = interval;
    this.#look = look;
  }

  add(sleeper: Sleeper): void {
    this.sleepers.add(sleeper);
    // Nothing keeps the process alive for a look: the socket of the client does.
    this.#timer ??= setInterval(() => {
      this.#look(this);
    }, this.#interval).unref();
  }

  delete(sleeper: Sleeper): void {
    if (!this.sleepers.delete(sleeper) || this.sleepers.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

/** The controllers of a thread that sleep. */
class IdlePollers {
  readonly #levels = new Map<number, Level>(
    INTERVALS.map((interval) => [
      interval,
      new Level(interval, (level) => {
        this.#look(interval, level);
      }),
    ]),
  );

  /** Looks at a sleeper from now on, `interval` milliseconds apart. */
  add(sleeper: Sleeper, interval: number): void {
    this.#levels.get(interval)?.add(sleeper);
  }

  /** Does not look at it any more. No effect on one that is not looked at. */
  delete(sleeper: Sleeper): void {
    for (const level of this.#levels.values()) level.delete(sleeper);
  }

  #look(interval: number, level: Level): void {
    const now = performance.now();
    for (const sleeper of level.sleepers) {
      const next = sleeper.glance(now);
      if (next === interval) continue;
      level.delete(sleeper);
      if (next > 0) this.add(sleeper, next);
    }
  }
}

export const idlePollers = new IdlePollers();

/** How far apart, in milliseconds, the looks at a controller are that had no work for `idle` milliseconds. */
export function idleInterval(idle: number): number {
  let interval = 1;
  while (interval < LONGEST && interval * 2 * PART <= idle) interval *= 2;
  return interval;
}
