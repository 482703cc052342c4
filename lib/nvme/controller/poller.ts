// SPDX-License-Identifier: MIT
import { type Bell, idleInterval, idlePollers, type Sleeper } from './idle-pollers';

/** Work between two looks at the clock. A look costs as much as some rounds of an idle controller. */
const WORK_PER_LOOK = 64;
/** The work that a command counts for. A round without commands counts for 1. */
const WORK_PER_COMMAND = 4;

/** Milliseconds between two calls of {@link PollerWork.look} at least, while the loop is awake. */
const LOOK_INTERVAL = 50;
/** Milliseconds between two of them while the loop sleeps, in which it is to cost next to nothing. */
const SLEEPING_LOOK_INTERVAL = 1000;

/** What a {@link Poller} does. None of it throws. */
export interface PollerWork {
  /**
   * Looks at all doorbells once.
   * @returns the number of commands that it found, Infinity for more than should be done without a look at the clock
   */
  round(): number;
  /** The doorbells by which a loop that sleeps learns of work; null when it has to make a round for that. */
  bells(): readonly Bell[] | null;
  /** Looks at what does not matter to the speed, now and then. */
  look(): void;
  /** Called when a slice of the loop has found commands, with its milliseconds. */
  worked(milliseconds: number): void;
  /** Called when the loop falls asleep, and when it is awake again. */
  sleeps(asleep: boolean): void;
}

/**
 * The loop that looks at the doorbells: it spins for a slice, gives the event loop a turn, and so on. When nothing
 * was found for a while it looks now and then only, until it finds work or is woken.
 */
export class Poller implements Sleeper {
  readonly #work: PollerWork;
  readonly #slice: number;
  readonly #idleAfter: number;
  #immediate: NodeJS.Immediate | undefined;
  #running = false;
  #asleep = false;
  #lastWork = 0;
  #lastLook = 0;
  readonly #spin = (): void => {
    this.#immediate = undefined;
    this.#runSlice();
  };

  /**
   * @param slice milliseconds between turns of the event loop
   * @param idleAfter milliseconds without work after which the loop sleeps; Infinity for never
   */
  constructor(work: PollerWork, slice: number, idleAfter: number) {
    this.#work = work;
    this.#slice = slice;
    this.#idleAfter = idleAfter;
  }

  /** Starts, or goes on at full speed after something has happened. Work is looked for in the next turn. */
  wake(): void {
    this.#running = true;
    this.#lastWork = performance.now();
    this.#leaveSleep();
    this.#immediate ??= setImmediate(this.#spin);
  }

  stop(): void {
    this.#running = false;
    this.#leaveSleep();
    clearImmediate(this.#immediate);
    this.#immediate = undefined;
  }

  bells(): readonly Bell[] | null {
    return this.#work.bells();
  }

  /** One round of a loop that sleeps. */
  glance(now: number): number {
    const commands = this.#work.round();
    if (now - this.#lastLook >= SLEEPING_LOOK_INTERVAL) {
      this.#lastLook = now;
      this.#work.look();
    }
    // They may have stopped the loop, or woken it.
    if (!this.#asleep) return 0;
    if (commands === 0) return idleInterval(now - this.#lastWork);
    this.#asleep = false;
    this.#work.sleeps(false);
    this.#lastWork = now;
    this.#immediate = setImmediate(this.#spin);
    return 0;
  }

  #leaveSleep(): void {
    if (!this.#asleep) return;
    this.#asleep = false;
    this.#work.sleeps(false);
    idlePollers.delete(this);
  }

  #runSlice(): void {
    const polled = this.#work;
    const start = performance.now();
    let now = start;
    let worked = false;
    do {
      for (let work = 0; work < WORK_PER_LOOK; work++) {
        const commands = polled.round();
        if (!this.#running) return;
        if (commands > 0) {
          worked = true;
          work += commands * WORK_PER_COMMAND;
        }
      }
      now = performance.now();
    } while (now - start < this.#slice);
    if (worked) {
      this.#lastWork = now;
      polled.worked(now - start);
    }
    if (now - this.#lastLook >= LOOK_INTERVAL) {
      this.#lastLook = now;
      polled.look();
    }
    if (!this.#running || this.#immediate !== undefined) return; // Stopped, or woken by what a command did.
    const idle = now - this.#lastWork;
    if (idle < this.#idleAfter) {
      this.#immediate = setImmediate(this.#spin);
      return;
    }
    this.#asleep = true;
    polled.sleeps(true);
    // What the host has done before it learned that it has to wake the loop.
    idlePollers.add(this, this.glance(now));
  }
}
