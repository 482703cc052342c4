// SPDX-License-Identifier: MIT
import type { ClientView } from './client-view';

const NO_BELL = new Int32Array(1);

/** Where the entries of a queue are. */
export interface QueuePlace {
  readonly view: ClientView;
  /** Address of the first entry. */
  readonly iova: number;
  readonly entries: number;
}

/**
 * The entries of a queue in the client's memory. Their addresses follow each other, but their memory need not: the pages of a guest
 * with a virtual IOMMU are maps of their own. So {@link words} is the part around the entry that is used next. It is the whole queue
 * most often.
 *
 * Words are signed, because signed words are small integers of V8, which are stored and returned without allocation.
 */
export class QueueMemory {
  readonly iova: number;
  readonly entries: number;
  /** The entries from {@link first} on; null until {@link locate} has found them. */
  words: Int32Array | null = null;
  /** Index of the first entry in {@link words}. */
  first = 0;
  /** Index after the last entry in {@link words}. */
  end = 0;
  /** Since when an entry that is needed is missing, by `performance.now()`; -1 when it is not. */
  missingSince = -1;
  /** Memory with the doorbell of the queue, and its index there. */
  bell: Int32Array = NO_BELL;
  bellWord = 0;
  readonly #view: ClientView;
  readonly #entryBytes: number;
  readonly #writes: boolean;

  /** @param writes whether the controller writes the entries, rather than to read them */
  constructor({ view, iova, entries }: QueuePlace, entryBytes: number, writes: boolean) {
    this.#view = view;
    this.iova = iova;
    this.entries = entries;
    this.#entryBytes = entryBytes;
    this.#writes = writes;
  }

  /** Takes the host's end of the queue from another place: a doorbell, or its shadow. */
  listen(bell: Int32Array, word: number): void {
    this.bell = bell;
    this.bellWord = word;
  }

  /** Address of an entry. */
  address(index: number): number {
    return this.iova + index * this.#entryBytes;
  }

  /** Finds the part that holds an entry. False when the entry is not mapped here, within one range. */
  locate(index: number): boolean {
    this.words = null;
    const bytes = this.#entryBytes;
    const range = this.#view.find(this.address(index), bytes);
    if (range === null || !(this.#writes ? range.writable : range.readable)) return false;
    this.first = Math.max(0, Math.ceil((range.start - this.iova) / bytes));
    this.end = Math.min(this.entries, Math.floor((range.end - this.iova) / bytes));
    const offset = range.bias + this.address(this.first);
    if (offset % 4 !== 0) return false;
    this.words = new Int32Array(range.buffer, offset, ((this.end - this.first) * bytes) / 4);
    this.missingSince = -1;
    return true;
  }

  /** Looks for all entries. Returns the first that {@link locate} does not find; -1 when it finds all. */
  missing(): number {
    for (let index = 0; index < this.entries; index = this.end) {
      if (!this.locate(index)) return index;
    }
    return this.locate(0) ? -1 : 0;
  }

  /** Returns the entry after the last of {@link words}, and finds the part that holds it. */
  protected beyond(): number {
    const next = this.end === this.entries ? 0 : this.end;
    if (this.first > 0 || this.end < this.entries) this.locate(next);
    return next;
  }
}
