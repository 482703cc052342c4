// SPDX-License-Identifier: MIT

/**
 * How long I/O commands were outstanding (NVMe base 2.0, 5.16.1.3): those that are completed where they are taken, to a slice of the
 * loop, and those that take their time.
 */
export class BusyTime {
  /** Commands that take their time. */
  #commands = 0;
  /** When the first of them began. */
  #since = 0;
  #milliseconds = 0;
  readonly #now: () => number;

  /** @param now tells the time in milliseconds */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** The whole minutes so far. */
  get minutes(): number {
    const running = this.#commands > 0 ? this.#now() - this.#since : 0;
    return Math.floor((this.#milliseconds + running) / 60_000);
  }

  /** A command takes its time from now on. */
  begin(): void {
    if (this.#commands++ === 0) this.#since = this.#now();
  }

  /** A command that {@link begin} was called for is completed. */
  end(): void {
    if (--this.#commands === 0) this.#milliseconds += this.#now() - this.#since;
  }

  /** Nothing is outstanding any more. */
  endAll(): void {
    if (this.#commands === 0) return;
    this.#commands = 1;
    this.end();
  }

  /** The loop was at work for so many milliseconds, which count already if a command takes its time. */
  worked(milliseconds: number): void {
    if (this.#commands === 0) this.#milliseconds += milliseconds;
  }
}
