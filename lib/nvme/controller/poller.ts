// SPDX-License-Identifier: MIT
/** Work between two looks at the clock. A look costs as much as some rounds of an idle controller. */
const WORK_PER_LOOK = 64;
/** The work that a command counts for. A round without commands counts for 1. */
const WORK_PER_COMMAND = 4;

/**
 * The loop that looks at the doorbells: it spins for a slice, gives the event loop a turn, and so on. When nothing
 * was found for a while it looks once a millisecond only, until it is woken.
 */
export class Poller {
  readonly #round: () => number;
  readonly #slice: number;
  readonly #idleAfter: number;
  #immediate: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;
  #running = false;
  #lastWork = 0;
  readonly #spin = (): void => {
    this.#immediate = undefined;
    this.#runSlice(this.#slice);
  };
  readonly #glance = (): void => {
    this.#timer = undefined;
    this.#runSlice(0);
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
    if (this.#timer !== undefined) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
    }
    this.#immediate ??= setImmediate(this.#spin);
  }

  stop(): void {
    this.#running = false;
    clearImmediate(this.#immediate);
    clearTimeout(this.#timer);
    this.#immediate = undefined;
    this.#timer = undefined;
  }

  #runSlice(slice: number): void {
    const start = performance.now();
    let now = start;
    let worked = false;
    do {
      // A glance of a loop that sleeps is one round.
      for (let work = slice > 0 ? 0 : WORK_PER_LOOK - 1; work < WORK_PER_LOOK; work++) {
        const commands = this.#round();
        if (!this.#running) return;
        if (commands > 0) {
          worked = true;
          work += commands * WORK_PER_COMMAND;
        }
      }
      now = performance.now();
    } while (now - start < slice);
    if (worked) this.#lastWork = now;
    if (this.#immediate !== undefined || this.#timer !== undefined) return; // Woken by what a command did.
    if (now - this.#lastWork < this.#idleAfter) this.#immediate = setImmediate(this.#spin);
    // Nothing keeps the process alive for a poll: the socket of the client does.
    else this.#timer = setTimeout(this.#glance, 1).unref();
  }
}
