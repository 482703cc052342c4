// SPDX-License-Identifier: MIT

/** The number of I/Os in flight that a job with a latency target has found. */
export interface FoundDepth {
  readonly depth: number;
  /** False when the target was missed even with one I/O in flight. */
  readonly met: boolean;
}

/** Looks for the largest number in flight that keeps a latency: doubled while it is kept, then halved in between (fio: `latency_target`). */
export class DepthSearch {
  readonly #most: number;
  /** The largest number that kept the target, and the smallest that did not. */
  #good = 0;
  #bad: number;
  #depth = 1;

  /** @param most largest number in flight */
  constructor(most: number) {
    this.#most = most;
    this.#bad = most + 1;
  }

  /** The number to try next, or the one that was found. */
  get depth(): number {
    return this.#depth;
  }

  /** What was found; undefined while the search goes on. */
  get found(): FoundDepth | undefined {
    if (this.#bad - this.#good > 1) return undefined;
    return { depth: Math.max(1, this.#good), met: this.#good > 0 };
  }

  /** Takes note of whether {@link depth} has kept the target. */
  judge(kept: boolean): void {
    if (kept) this.#good = this.#depth;
    else this.#bad = this.#depth;
    const untouched = this.#bad > this.#most;
    this.#depth =
      this.found?.depth ??
      (untouched ? Math.min(this.#depth * 2, this.#most) : Math.floor((this.#good + this.#bad) / 2));
  }
}
