// SPDX-License-Identifier: MIT
/** Most ranges of a set: a host could make any number of them. */
const MAX_RANGES = 4096;

/**
 * Blocks that cannot be read until they are written again, as Write Uncorrectable leaves them (NVM command set 1.0, 3.2.7): ranges in
 * rising order, which do not touch each other.
 */
export class BadBlocks {
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  /** Whether there are none, as nearly always. */
  get empty(): boolean {
    return this.#starts.length === 0;
  }

  /** Removes all blocks. */
  clear(): void {
    this.#starts.length = 0;
    this.#ends.length = 0;
  }

  /** Adds blocks. False when there are too many ranges; then nothing is added. */
  add(start: number, end: number): boolean {
    const first = this.#firstAfter(start - 1);
    let last = first;
    let [from, to] = [start, end];
    for (; last < this.#starts.length && (this.#starts[last] as number) <= end; last++) {
      from = Math.min(from, this.#starts[last] as number);
      to = Math.max(to, this.#ends[last] as number);
    }
    if (first === last && this.#starts.length >= MAX_RANGES) return false;
    this.#starts.splice(first, last - first, from);
    this.#ends.splice(first, last - first, to);
    return true;
  }

  /** Removes blocks, which were written. Ranges beyond the limit, which that makes of others, are removed with them. */
  delete(start: number, end: number): void {
    for (let i = this.#firstAfter(start); i < this.#starts.length;) {
      const from = this.#starts[i] as number;
      const to = this.#ends[i] as number;
      if (from >= end) return;
      const starts: number[] = [];
      const ends: number[] = [];
      if (from < start) {
        starts.push(from);
        ends.push(start);
      }
      if (to > end && this.#starts.length < MAX_RANGES + starts.length) {
        starts.push(end);
        ends.push(to);
      }
      this.#starts.splice(i, 1, ...starts);
      this.#ends.splice(i, 1, ...ends);
      i += starts.length;
    }
  }

  /** The first of the blocks that is in the set; -1 when none is. */
  firstIn(start: number, end: number): number {
    const i = this.#firstAfter(start);
    const from = this.#starts[i];
    return from === undefined || from >= end ? -1 : Math.max(from, start);
  }

  /** Index of the first range that ends after a block. */
  #firstAfter(block: number): number {
    let low = 0;
    let high = this.#ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ends[middle] as number) <= block) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
