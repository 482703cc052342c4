// SPDX-License-Identifier: MIT
import { idleInterval, idlePollers, type Sleeper } from './idle-pollers';

/** Work between two looks at the clock. A look costs as much as some rounds of an idle controller. */
const WORK_PER_LOOK = 64;
/** The work that a command counts for. A round without commands counts for 1. */
const WORK_PER_COMMAND = 4;

/**
 * The loop that looks at the doorbells: it spins for a slice, gives the event loop a turn, and so on. When nothing
 * was found for a while it looks now and then only, until it finds work or is woken.
 */
export class Poller implements Sleeper {
  readonly #round: () => number;
  readonly #slice: number;
  readonly #idleAfter: number;
  #immediate: NodeJS.Immediate | undefined;
  #running = false;
  #asleep = false;
  #lastWork = 0;
  readonly #spin = (): void => {
    this.#immediate = undefined;
    this.#runSlice();
  };

  /**
   * @param round looks at all doorbells once, and returns the number of commands that it found, Infinity for more than
   *   should be done without a look at the clock. It does not throw
   * @param slice milliseconds between turns of the event loop
   * @param idleAfter milliseconds without work after which the loop sleeps; Infinity for never
   */
  constructor(round: () => number, slice: number, idleAfter: number) {
    this.#round = round;
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

  /** One round of a loop that sleeps. */
  glance(now: number): number {
    const commands = this.#round();
    // The round may have stopped the loop, or woken it.
    if (!this.#asleep) return 0;
    if (commands === 0) return idleInterval(now - this.#lastWork);
    this.#asleep = false;
    this.#lastWork = now;
    this.#immediate = setImmediate(this.#spin);
    return 0;
  }

  #leaveSleep(): void {
    if (!this.#asleep) return;
    this.#asleep = false;
    idlePollers.delete(this);
  }

  #runSlice(): void {
    const start = performance.now();
    let now = start;
    let worked = false;
    do {
      for (let work = 0; work < WORK_PER_LOOK; work++) {
        const commands = this.#round();
        if (!this.#running) return;
        if (commands > 0) {
          worked = true;
          work += commands * WORK_PER_COMMAND;
        }
      }
      now = performance.now();
    } while (now - start < this.#slice);
    if (worked) this.#lastWork = now;
    if (this.#immediate !== undefined) return; // Woken by what a command did.
    const idle = now - this.#lastWork;
    if (idle < this.#idleAfter) {
      this.#immediate = setImmediate(this.#spin);
      return;
    }
    this.#asleep = true;
    idlePollers.add(this, idleInterval(idle));
  }
}
