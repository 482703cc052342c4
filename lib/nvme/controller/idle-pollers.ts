// SPDX-License-Identifier: MIT

/** A doorbell, or its shadow, in memory that is shared with the host. */
export interface Bell {
  readonly bell: Int32Array;
  readonly bellWord: number;
}

/** What sleeps, and is asked now and then whether there is work. */
export interface Sleeper {
  /** The doorbells by which work comes; null while it may come by other ways. */
  bells(): readonly Bell[] | null;
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
/** Of so many looks, one asks every sleeper. The others ask those whose doorbells have changed. */
const LOOKS_PER_GLANCE = 64;

/**
 * The doorbells of sleepers side by side, so that a thousand are looked at in one loop: all that belongs to a controller that
 * sleeps has left the caches, and each piece of it that is touched costs as much as some hundred instructions.
 */
class BellList {
  readonly #bells: Int32Array[] = [];
  readonly #words: number[] = [];
  /** What the doorbells held. */
  readonly #seen: number[] = [];
  readonly #sleepers: Sleeper[] = [];
  /** The sleepers of which the doorbells do not tell everything. */
  readonly #others: Sleeper[] = [];

  /** Begins anew. What the doorbells hold now counts as seen. */
  gather(sleepers: Iterable<Sleeper>): void {
    this.clear();
    for (const sleeper of sleepers) {
      const bells = sleeper.bells();
      if (bells === null) this.#others.push(sleeper);
      for (const { bell, bellWord } of bells ?? []) {
        this.#bells.push(bell);
        this.#words.push(bellWord);
        this.#seen.push(bell[bellWord] as number);
        this.#sleepers.push(sleeper);
      }
    }
  }

  clear(): void {
    for (const list of [this.#bells, this.#words, this.#seen, this.#sleepers, this.#others]) list.length = 0;
  }

  /** The sleepers that may have work. */
  due(): Set<Sleeper> {
    const due = new Set(this.#others);
    for (let index = 0; index < this.#bells.length; index++) {
      const now = (this.#bells[index] as Int32Array)[this.#words[index] as number];
      if (now !== this.#seen[index]) due.add(this.#sleepers[index] as Sleeper);
    }
    return due;
  }
}

/** Sleepers with the same interval. One timer is for all of them, so that a thousand cost little more than one. */
class Level {
  readonly #sleepers = new Set<Sleeper>();
  readonly #bells = new BellList();
  /** Looks until every sleeper is asked. */
  #left = 0;
  readonly #interval: number;
  readonly #look: (level: Level) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(interval: number, look: (level: Level) => void) {
    this.#interval = interval;
    this.#look = look;
  }

  add(sleeper: Sleeper): void {
    this.#sleepers.add(sleeper);
    this.#left = 0;
    // Nothing keeps the process alive for a look: the socket of the client does.
    this.#timer ??= setInterval(() => {
      this.#look(this);
    }, this.#interval).unref();
  }

  delete(sleeper: Sleeper): void {
    if (!this.#sleepers.delete(sleeper)) return;
    this.#left = 0;
    if (this.#sleepers.size > 0) return;
    this.#bells.clear();
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** The sleepers that are to be asked at this look. */
  due(): ReadonlySet<Sleeper> {
    if (this.#left-- > 0) return this.#bells.due();
    this.#left = LOOKS_PER_GLANCE - 1;
    // What changes from now on is seen at the next look, if it is not found by those that are asked now.
    this.#bells.gather(this.#sleepers);
    return this.#sleepers;
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
    for (const sleeper of level.due()) {
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
