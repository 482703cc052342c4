// SPDX-License-Identifier: MIT
import type { ClientMemory, ClientRange } from '../../server/device-model';

/** A range of the client's memory that is mapped here and has addresses below 2^53. */
export interface ViewRange {
  /** First address. */
  readonly start: number;
  /** Address after the last one; {@link start} once the range is about to be unmapped. */
  end: number;
  readonly buffer: ArrayBuffer;
  /** All of {@link buffer}. */
  readonly bytes: Uint8Array;
  /** What an address needs added to be an index in {@link bytes}. */
  readonly bias: number;
  readonly readable: boolean;
  readonly writable: boolean;
}

/**
 * The client's mapped memory, where the hot path finds addresses by number arithmetic, without allocation. It learns of a range
 * when an address in it is looked for, so that a client pays for the ranges that it uses, and not for those that it has.
 */
export class ClientView {
  #memory: ClientMemory | null = null;
  #generation = -1;
  /** What has been found since the memory changed last, by address. */
  #ranges: ViewRange[] = [];
  /** The range of the last hit, which is most often the range of the next. */
  #last: ViewRange | null = null;
  #leaving = new WeakSet<ClientRange>();
  #waiting: (() => void)[] = [];

  /** The client's memory as the server gave it; null without a client. */
  get memory(): ClientMemory | null {
    return this.#memory;
  }

  /** Whether the controller may reach memory now (Bus Master Enable). */
  get reachable(): boolean {
    return this.#memory?.busMaster === true;
  }

  /** Resolves when memory can be reached, or {@link release} is called. */
  async untilReachable(): Promise<void> {
    if (!this.reachable) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Lets go on what waits in {@link untilReachable}. */
  release(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  attach(memory: ClientMemory): void {
    this.#memory = memory;
    this.#generation = memory.generation;
    this.#leaving = new WeakSet();
    this.#forget();
  }

  detach(): void {
    this.#memory = null;
    this.#forget();
  }

  /** Never finds the range again: it is about to be unmapped, perhaps with all others, so that it is emptied in its place. */
  leave(range: ClientRange): void {
    this.#leaving.add(range);
    this.#last = null;
    if (this.#ranges.length === 0) return;
    const start = Number(range.iova);
    const found = this.#ranges[this.#indexAfter(start)];
    if (found?.start === start) found.end = start;
  }

  /** Follows changes of the client's memory. Returns whether there were any: then what was found before is void. */
  refresh(): boolean {
    if (this.#memory === null || this.#memory.generation === this.#generation) return false;
    this.#generation = this.#memory.generation;
    this.#forget();
    return true;
  }

  /** Returns the range that holds all of `length` bytes at `address`; null when no single mapped range does. */
  find(address: number, length: number): ViewRange | null {
    const last = this.#last;
    if (last !== null && address >= last.start && address + length <= last.end) return last;
    return this.#search(address, length);
  }

  #search(address: number, length: number): ViewRange | null {
    const index = this.#indexAfter(address);
    const range = this.#ranges[index];
    if (range === undefined || address < range.start) return this.#learn(address, length, index);
    if (address + length > range.end) return null;
    this.#last = range;
    return range;
  }

  /** Index of the first range that ends after an address. */
  #indexAfter(address: number): number {
    const ranges = this.#ranges;
    let low = 0;
    let high = ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((ranges[middle] as ViewRange).end <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Asks the memory for a range that was not looked for before, whose place is at `index`. */
  #learn(address: number, length: number, index: number): ViewRange | null {
    const memory = this.#memory;
    const place = memory?.place(address, length, 'read') ?? memory?.place(address, length, 'write') ?? null;
    if (place === null || this.#leaving.has(place.range)) return null;
    const { readable, writable, iova, size } = place.range;
    const start = Number(iova);
    if (start + size > Number.MAX_SAFE_INTEGER) return null;
    const { buffer } = place;
    const bytes = new Uint8Array(buffer);
    const range = {
      start,
      end: start + size,
      buffer,
      bytes,
      bias: place.offset - address,
      readable,
      writable,
    };
    this.#ranges.splice(index, 0, range);
    this.#last = range;
    return range;
  }

  #forget(): void {
    this.#ranges = [];
    this.#last = null;
  }
}
