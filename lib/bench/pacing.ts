// SPDX-License-Identifier: MIT
import type { Pace } from './job';

/** True when I/Os are sent as fast as they complete. */
export function isUnlimited({ iops, bandwidth, thinkMs }: Pace): boolean {
  return iops === Infinity && bandwidth === Infinity && thinkMs === 0;
}

/** Tells when the next I/O of a job may be sent. Rates are kept on average since the job began. Times are in milliseconds. */
export class Pacing {
  /** When the job began. A double from the beginning, so that V8 changes it in place. */
  started = 0.5;
  readonly #pace: Pace;
  readonly #thinks: boolean;
  #ios = 0;
  #bytes = 0;
  /** I/Os since the last pause. */
  #sincePause = 0;
  #pauseEnd = 0.5;

  constructor(pace: Pace) {
    this.#pace = pace;
    this.#thinks = pace.thinkMs > 0;
  }

  /** When the next I/O may be sent; Infinity while a pause waits for what is in flight. */
  get due(): number {
    const { iops, bandwidth, thinkIos } = this.#pace;
    if (this.#thinks && this.#sincePause >= thinkIos) return Infinity;
    const byRate = Math.max((this.#ios * 1000) / iops, (this.#bytes * 1000) / bandwidth);
    return Math.max(this.started + byRate, this.#pauseEnd);
  }

  /** Counts an I/O that was sent. */
  sent(bytes: number): void {
    this.#ios++;
    this.#bytes += bytes;
    this.#sincePause++;
  }

  /** Passes over time in which nothing could be sent: it is not made up for. */
  pass(milliseconds: number): void {
    this.started += milliseconds;
  }

  /** Begins a pause that was waited for. To be called when nothing is in flight. */
  drained(now: number): void {
    if (!this.#thinks || this.#sincePause < this.#pace.thinkIos) return;
    this.#sincePause = 0;
    this.#pauseEnd = now + this.#pace.thinkMs;
  }
}
