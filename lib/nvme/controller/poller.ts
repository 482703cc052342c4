// SPDX-License-Identifier: MIT
/** Rounds between looks at the clock, which costs as much as some rounds of an idle controller. */
const ROUNDS_PER_LOOK = 32;

/**
 * The loop that looks at the doorbells: it spins for a slice, gives the event loop a turn, and so on. When nothing
 * was found for a while it looks once a millisecond only, until it is woken.
 */
export class Poller {
  readonly #round: () => boolean;
  readonly #slice: number;
  readonly #idleAfter: number;
  #immediate: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;
  #running = false;
  #lastWork = 0;
  readonly #spin = (): void => {
    this.#immediate = undefined;
    this.#timer = undefined;
    this.#runSlice();
  };

  /**
   * @param round one look at all doorbells; true when there was work. It does not throw
   * @param slice milliseconds between turns of the event loop
   * @param idleAfter milliseconds without work after which the loop sleeps; Infinity for never
   */
  constructor(round: () => boolean, slice: number, idleAfter: number) {
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

  #runSlice(): void {
    const start = performance.now();
    let now = start;
    let worked = false;
    do {
      for (let i = 0; i < ROUNDS_PER_LOOK; i++) {
        if (this.#round()) worked = true;
        if (!this.#running) return;
      }
      now = performance.now();
    } while (now - start < this.#slice);
    if (worked) this.#lastWork = now;
    // Nothing keeps the process alive for a poll: the socket of the client does.
    if (now - this.#lastWork < this.#idleAfter) this.#immediate = setImmediate(this.#spin);
    else this.#timer = setTimeout(this.#spin, 1).unref();
  }
}
