// SPDX-License-Identifier: MIT
import { dirtyBitmapSize } from './feature-data';
import type { U64 } from './u64';

/** Smallest granularity of {@link DirtyPages}: with it, the number of a page within 64 bits of address is a safe integer. */
export const MIN_DIRTY_PAGE_SIZE = 4096;

/** Pages of one block of {@link DirtyPages}; a block is a bitmap of 4 KiB. */
const BLOCK_PAGES = 32768;

/** The dirty pages of a range of I/O addresses, as VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT tells them: one bit a page. */
export class DirtyBitmap {
  /** First address of the range. */
  readonly iova: bigint;
  /** Bytes of the range. */
  readonly length: number;
  /** Bytes that one bit stands for. */
  readonly pageSize: number;
  /** The bits, in whole 64-bit words: bit 0 of the first byte is the page at {@link iova}. */
  readonly bytes: Uint8Array;

  /** @param bytes of the size that `dirtyBitmapSize` tells; zeroes when absent */
  constructor(iova: U64, length: number, pageSize: number, bytes?: Uint8Array) {
    this.iova = BigInt(iova);
    this.length = length;
    this.pageSize = pageSize;
    this.bytes = bytes ?? new Uint8Array(dirtyBitmapSize(length, pageSize));
  }

  /** Number of dirty pages. */
  get count(): number {
    let count = 0;
    for (const pages = this.pages(); pages.next().done !== true;) count++;
    return count;
  }

  /** Whether the page with this address is dirty; false for an address outside the range. */
  has(iova: U64): boolean {
    const offset = Number(BigInt(iova) - this.iova);
    if (offset < 0 || offset >= this.length) return false;
    const page = Math.floor(offset / this.pageSize);
    return (((this.bytes[page >>> 3] as number) >>> (page & 7)) & 1) !== 0;
  }

  /** The address of each dirty page, ascending. */
  *[Symbol.iterator](): Generator<bigint> {
    for (const page of this.pages()) yield this.iova + BigInt(page) * BigInt(this.pageSize);
  }

  /** The number of each dirty page, ascending from 0. Bits beyond the range, which must be zero, are ignored. */
  *pages(): Generator<number> {
    const end = Math.ceil(this.length / this.pageSize);
    for (let index = 0; index * 8 < end; index++) {
      const byte = this.bytes[index] as number;
      if (byte === 0) continue;
      for (let bit = 0; bit < 8 && index * 8 + bit < end; bit++) {
        if (((byte >>> bit) & 1) !== 0) yield index * 8 + bit;
      }
    }
  }

  /** Marks the pages that `offset … offset+length` touches, as far as they are within the range. */
  mark(offset: number, length: number): void {
    const end = Math.min(offset + length, this.length);
    const start = Math.max(offset, 0);
    if (end <= start) return;
    const last = Math.floor((end - 1) / this.pageSize);
    for (let page = Math.floor(start / this.pageSize); page <= last; page++) {
      const at = page >>> 3;
      this.bytes[at] = (this.bytes[at] as number) | (1 << (page & 7));
    }
  }
}

/** What has been written since it was last asked for, by page; knows nothing of what is mapped. */
export class DirtyPages {
  /** Bytes of a page: a power of two, at least {@link MIN_DIRTY_PAGE_SIZE}. */
  readonly pageSize: number;
  /** By page number divided by {@link BLOCK_PAGES}. */
  readonly #blocks = new Map<number, Uint8Array>();
  readonly #maxBlocks: number;
  #overflow = false;

  /**
   * @param pageSize bytes of a page, a power of two; {@link MIN_DIRTY_PAGE_SIZE} when it is less
   * @param maxBlocks most blocks of 32768 pages, 4 KiB of memory each, in which pages are dirty. When there are more, all pages
   *   are dirty from then on: too many are told, and none is lost
   */
  constructor(pageSize: number, maxBlocks = Infinity) {
    this.pageSize = Math.max(pageSize, MIN_DIRTY_PAGE_SIZE);
    this.#maxBlocks = maxBlocks;
  }

  /** Marks the pages that `length` bytes from `iova` on touch. */
  mark(iova: U64, length: number): void {
    if (length < 1 || this.#overflow) return;
    const last = this.#page(BigInt(iova) + BigInt(length - 1));
    for (let page = this.#page(BigInt(iova)); page <= last; page++) {
      const key = Math.floor(page / BLOCK_PAGES);
      let block = this.#blocks.get(key);
      if (block === undefined) {
        if (this.#blocks.size >= this.#maxBlocks) {
          this.#overflow = true;
          this.#blocks.clear();
          return;
        }
        this.#blocks.set(key, (block = new Uint8Array(BLOCK_PAGES / 8)));
      }
      const bit = page % BLOCK_PAGES;
      block[bit >>> 3] = (block[bit >>> 3] as number) | (1 << (bit & 7));
    }
  }

  /** Marks what a bitmap tells, which is nothing beyond its range: a peer may have chosen a page size of petabytes. */
  merge(bitmap: DirtyBitmap): void {
    const end = bitmap.iova + BigInt(bitmap.length);
    for (const iova of bitmap) this.mark(iova, Math.min(bitmap.pageSize, Number(end - iova)));
  }

  /**
   * The dirty pages of a range, which become clean. A page of which only a part is within the range stays dirty: its
   * other part may be asked for later.
   */
  take(iova: U64, length: number, pageSize: number): DirtyBitmap {
    const start = BigInt(iova);
    const bitmap = new DirtyBitmap(start, length, pageSize);
    if (this.#overflow) {
      bitmap.mark(0, length);
      return bitmap;
    }
    // A report may be about millions of pages, which are asked for as they are kept, most often.
    const eights = BigInt(8 * this.pageSize);
    if (pageSize === this.pageSize && start % eights === 0n && BigInt(length) % eights === 0n) {
      this.#move(start, length, bitmap.bytes);
      return bitmap;
    }
    this.#visit(start, length, (offset) => {
      bitmap.mark(offset, this.pageSize);
      return offset >= 0 && offset + this.pageSize <= length;
    });
    return bitmap;
  }

  /** Forgets the pages of a range. */
  clear(iova: U64, length: number): void {
    this.#visit(BigInt(iova), length, () => true);
  }

  /** Calls `visit` with the offset from `start` of each dirty page that the range touches; one for which it returns true becomes clean. */
  #visit(start: bigint, length: number, visit: (offset: number) => boolean): void {
    if (length < 1) return;
    const first = this.#page(start);
    const last = this.#page(start + BigInt(length - 1));
    for (const key of this.#keys(first, last)) {
      const block = this.#blocks.get(key) as Uint8Array;
      const from = Math.max(first - key * BLOCK_PAGES, 0);
      const to = Math.min(last - key * BLOCK_PAGES, BLOCK_PAGES - 1);
      // Within a block, and the range, numbers are exact.
      const base = Number(BigInt(key * BLOCK_PAGES) * BigInt(this.pageSize) - start);
      for (let index = from >>> 3; index <= to >>> 3; index++) {
        for (let bits = block[index] as number, bit = 0; bits !== 0; bits >>>= 1, bit++) {
          const page = index * 8 + bit;
          if ((bits & 1) === 0 || page < from || page > to) continue;
          if (visit(base + page * this.pageSize)) block[index] = (block[index] as number) & ~(1 << bit);
        }
      }
      if (block.every((byte) => byte === 0)) this.#blocks.delete(key);
    }
  }

  /** Moves the bits of a range, which begins and ends with a byte of them, to `into`. */
  #move(start: bigint, length: number, into: Uint8Array): void {
    if (length < 1) return;
    const first = this.#page(start);
    const end = first + length / this.pageSize;
    for (const key of this.#keys(first, end - 1)) {
      const block = this.#blocks.get(key) as Uint8Array;
      const from = Math.max(first - key * BLOCK_PAGES, 0) / 8;
      const to = Math.min(end - key * BLOCK_PAGES, BLOCK_PAGES) / 8;
      into.set(block.subarray(from, to), (key * BLOCK_PAGES - first) / 8 + from);
      block.fill(0, from, to);
      if (block.every((byte) => byte === 0)) this.#blocks.delete(key);
    }
  }

  /** Keys of the blocks that have pages from `first` to `last`: all are looked at, or all that there could be, what is less. */
  #keys(first: number, last: number): number[] {
    const from = Math.floor(first / BLOCK_PAGES);
    const to = Math.floor(last / BLOCK_PAGES);
    if (to - from > this.#blocks.size)
      return [...this.#blocks.keys()].filter((key) => key >= from && key <= to);
    const keys: number[] = [];
    for (let key = from; key <= to; key++) if (this.#blocks.has(key)) keys.push(key);
    return keys;
  }

  #page(iova: bigint): number {
    return Number(iova / BigInt(this.pageSize));
  }
}
