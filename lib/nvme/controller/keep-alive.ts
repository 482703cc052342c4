// SPDX-License-Identifier: MIT
import { DeadlineTimer } from '../../transport/deadline-timer';

/** The Keep Alive Timer: a host that sends no Keep Alive for so long is taken to be gone (NVMe base 2.0, 3.9). */
export class KeepAlive {
  readonly #expired: (milliseconds: number) => void;
  #timer: DeadlineTimer | undefined;
  #milliseconds = 0;
  #deadline = 0;

  /** @param expired called when no Keep Alive came in time; the timer is stopped by then */
  constructor(expired: (milliseconds: number) => void) {
    this.#expired = expired;
  }

  /** Sets the timer, in place of what it was set to before; 0 turns it off. */
  start(milliseconds: number): void {
    this.stop();
    if (milliseconds === 0) return;
    this.#milliseconds = milliseconds;
    this.restart();
    this.#timer = new DeadlineTimer((now) => this.#expire(now));
    this.#timer.arm(this.#deadline);
  }

  /** Keep Alive arrived, so that the time begins anew. */
  restart(): void {
    this.#deadline = performance.now() + this.#milliseconds;
  }

  stop(): void {
    this.#timer?.clear();
    this.#timer = undefined;
  }

  #expire(now: number): number {
    if (now < this.#deadline) return this.#deadline;
    this.#timer = undefined;
    this.#expired(this.#milliseconds);
    return Infinity;
  }
}
