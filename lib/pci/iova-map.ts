// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';

/** A mapped range of I/O virtual addresses. */
export interface IovaRange {
  /** First address, 0 to 2^64 - 1. */
  readonly iova: bigint;
  /** Bytes, at least 1; at most 2^53 - 1. */
  readonly size: number;
}

/** A part of a range that a lookup touched. */
export interface IovaSegment<Range extends IovaRange> {
  readonly range: Range;
  /** Offset of the part in the range, in bytes. */
  readonly offset: number;
  /** Bytes of the part. */
  readonly length: number;
}

const LIMIT = 1n << 64n;

/**
 * The ranges of I/O virtual addresses that a device may access, sorted, without overlap. The client keeps one of what
 * it has mapped, the server one of what its client has mapped.
 */
export class IovaMap<Range extends IovaRange> {
  #ranges: Range[] = [];
  /** Of each range, the address behind it: kept, as sums of bigints are costly. */
  #ends: bigint[] = [];

  get size(): number {
    return this.#ranges.length;
  }

  [Symbol.iterator](): IterableIterator<Range> {
    return this.#ranges.values();
  }

  /** The range that overlaps `iova … iova+size`, if any. */
  overlap(iova: bigint, size: number): Range | undefined {
    const index = this.#firstEndingAfter(iova);
    const range = this.#ranges[index];
    return range !== undefined && range.iova < iova + BigInt(size) ? range : undefined;
  }

  /**
   * Enters a range.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when it is empty, leaves the 64-bit address space, or overlaps another
   */
  add(range: Range): void {
    if (this.tryAdd(range)) return;
    const other = this.overlap(range.iova, range.size) as Range;
    throw new VfioUserError(
      'ERR_VFIO_USER_DMA',
      `DMA range ${formatRange(range)} overlaps ${formatRange(other)}, which is mapped. Mapped: ${this.dump()}`,
    );
  }

  /**
   * The same, but false when it overlaps another.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when it is empty or leaves the 64-bit address space
   */
  tryAdd(range: Range): boolean {
    const { iova, size } = range;
    const end = Number.isSafeInteger(size) && size > 0 ? iova + BigInt(size) : 0n;
    if (end === 0n || iova < 0n || end > LIMIT) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `DMA range ${formatRange(range)} is empty or not within 64 bits of address`,
      );
    }
    const index = this.#firstEndingAfter(iova);
    const other = this.#ranges[index];
    if (other === undefined) {
      this.#ranges.push(range);
      this.#ends.push(end);
      return true;
    }
    if (other.iova < end) return false;
    this.#ranges.splice(index, 0, range);
    this.#ends.splice(index, 0, end);
    return true;
  }

  /** The range that begins at `iova` and has exactly `size` bytes. */
  get(iova: bigint, size: number): Range | undefined {
    const range = this.#ranges[this.#firstEndingAfter(iova)];
    return range?.iova === iova && range.size === size ? range : undefined;
  }

  /** Removes a range that {@link add} entered. */
  delete(range: Range): boolean {
    const index = this.#firstEndingAfter(range.iova);
    if (this.#ranges[index] !== range) return false;
    this.#ranges.splice(index, 1);
    this.#ends.splice(index, 1);
    return true;
  }

  clear(): void {
    this.#ranges = [];
    this.#ends = [];
  }

  /**
   * The parts of ranges that `length` bytes from `iova` on lie in, in order, also across adjacent ranges; undefined
   * when any byte is not mapped.
   */
  lookup(iova: bigint, length: number): IovaSegment<Range>[] | undefined {
    const segments: IovaSegment<Range>[] = [];
    let address = iova;
    let left = length;
    for (let index = this.#firstEndingAfter(iova); left > 0; index++) {
      const range = this.#ranges[index];
      if (range === undefined || range.iova > address) return undefined;
      const offset = Number(address - range.iova);
      const part = Math.min(left, range.size - offset);
      segments.push({ range, offset, length: part });
      address += BigInt(part);
      left -= part;
    }
    return segments;
  }

  /** Lowest free address of at least `from`, a multiple of `alignment`, with `size` free bytes below `limit`. */
  findGap(size: number, alignment: number, from: bigint, limit: bigint): bigint | undefined {
    const step = BigInt(alignment);
    const alignUp = (address: bigint): bigint => ((address + step - 1n) / step) * step;
    let candidate = alignUp(from);
    for (let index = this.#firstEndingAfter(candidate); index < this.#ranges.length; index++) {
      const range = this.#ranges[index];
      if (range === undefined || range.iova >= candidate + BigInt(size)) break;
      candidate = alignUp(range.iova + BigInt(range.size));
    }
    return candidate + BigInt(size) <= limit ? candidate : undefined;
  }

  /** What is mapped, in one line. */
  dump(): string {
    if (this.#ranges.length === 0) return 'nothing';
    const shown = this.#ranges.slice(0, 8).map(formatRange).join(', ');
    const more = this.#ranges.length - 8;
    return more > 0 ? `${shown} and ${String(more)} more` : shown;
  }

  /** Index of the first range whose last byte is at or after `address`. */
  #firstEndingAfter(address: bigint): number {
    const ends = this.#ends;
    let low = 0;
    let high = ends.length;
    // Ranges often come in the order of their addresses.
    if (high === 0 || (ends[high - 1] as bigint) <= address) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((ends[middle] as bigint) <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** A range for messages, such as `0x100000000+0x200000`. */
export function formatRange(range: IovaRange): string {
  return `0x${range.iova.toString(16)}+0x${range.size.toString(16)}`;
}
