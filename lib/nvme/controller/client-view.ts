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

/** The client's mapped memory, where the hot path finds addresses by number arithmetic, without allocation. */
export class ClientView {
  #memory: ClientMemory | null = null;
  #generation = -1;
  #ranges: readonly ViewRange[] = [];
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
    this.#leaving = new WeakSet();
    this.#rebuild();
  }

  detach(): void {
    this.#memory = null;
    this.#ranges = [];
    this.#last = null;
  }

  /** Never finds the range again: it is about to be unmapped, perhaps with all others, so that it is emptied in its place. */
  leave(range: ClientRange): void {
    this.#leaving.add(range);
    this.#last = null;
    const start = Number(range.iova);
    const found = this.#search(start, 1);
    if (found?.start === start) found.end = start;
    this.#last = null;
  }

  /** Follows changes of the client's memory. Returns whether there were any: then what was found before is void. */
  refresh(): boolean {
    if (this.#memory === null || this.#memory.generation === this.#generation) return false;
    this.#rebuild();
    return true;
  }

  /** Returns the range that holds all of `length` bytes at `address`; null when no single mapped range does. */
  find(address: number, length: number): ViewRange | null {
    const last = this.#last;
    if (last !== null && address >= last.start && address + length <= last.end) return last;
    return this.#search(address, length);
  }

  #search(address: number, length: number): ViewRange | null {
    const ranges = this.#ranges;
    let low = 0;
    let high = ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((ranges[middle] as ViewRange).end <= address) low = middle + 1;
      else high = middle;
    }
    const range = ranges[low];
    if (range === undefined || address < range.start || address + length > range.end) return null;
    this.#last = range;
    return range;
  }

  #rebuild(): void {
    const memory = this.#memory;
    this.#last = null;
    if (memory === null) return;
    this.#generation = memory.generation;
    const ranges: ViewRange[] = [];
    for (const range of memory.ranges) {
      const { iova, size, readable, writable } = range;
      if (this.#leaving.has(range) || iova + BigInt(size) > BigInt(Number.MAX_SAFE_INTEGER)) continue;
      const place = memory.place(iova, size, readable ? 'read' : 'write');
      if (place === null) continue;
      const start = Number(iova);
      ranges.push({
        start,
        end: start + size,
        buffer: place.buffer,
        bytes: new Uint8Array(place.buffer),
        bias: place.offset - start,
        readable,
        writable,
      });
    }
    this.#ranges = ranges.sort((a, b) => a.start - b.start);
  }
}
