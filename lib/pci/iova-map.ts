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
    const { iova, size } = range;
    if (!Number.isSafeInteger(size) || size < 1 || iova < 0n || iova + BigInt(size) > LIMIT) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `DMA range ${formatRange(range)} is empty or not within 64 bits of address`,
      );
    }
    const index = this.#firstEndingAfter(iova);
    const other = this.#ranges[index];
    if (other !== undefined && other.iova < iova + BigInt(size)) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `DMA range ${formatRange(range)} overlaps ${formatRange(other)}, which is mapped. Mapped: ${this.dump()}`,
      );
    }
    this.#ranges.splice(index, 0, range);
  }

  /** The range that begins at `iova` and has exactly `size` bytes. */
  get(iova: bigint, size: number): Range | undefined {
    const range = this.#ranges[this.#firstEndingAfter(iova)];
    return range?.iova === iova && range.size === size ? range : undefined;
  }

  /** Removes a range that {@link add} entered. */
  delete(range: Range): boolean {
    const index = this.#ranges.indexOf(range);
    if (index >= 0) this.#ranges.splice(index, 1);
    return index >= 0;
  }

  clear(): void {
    this.#ranges = [];
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
    let low = 0;
    let high = this.#ranges.length;
    // Ranges often come in the order of their addresses.
    const last = this.#ranges[high - 1];
    if (last !== undefined && last.iova + BigInt(last.size) <= address) return high;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const range = this.#ranges[middle];
      if (range !== undefined && range.iova + BigInt(range.size) <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

/** A range for messages, such as `0x100000000+0x200000`. */
export function formatRange(range: IovaRange): string {
  return `0x${range.iova.toString(16)}+0x${range.size.toString(16)}`;
}
