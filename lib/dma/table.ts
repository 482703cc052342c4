// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';

/** A range of I/O virtual addresses (IOVA). */
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

/** Neighbours of a table, sorted, at least one. */
interface Block<Range> {
  readonly ranges: Range[];
  /** Address behind each range. It is kept, since adding bigints is costly. */
  readonly ends: bigint[];
}

const LIMIT = 1n << 64n;
/** Most ranges of a block. An insertion or a removal moves no more than these, however many the table has. */
const BLOCK_SIZE = 128;

/**
 * The ranges of I/O virtual addresses that a device may access, sorted, without overlap. The client keeps one of what
 * it has mapped, the server one of what its client has mapped.
 */
export class IovaTable<Range extends IovaRange> {
  #blocks: Block<Range>[] = [];
  #size = 0;
  /** Where {@link findGap} begins: the gap that it found last, or the lowest range that was removed since. */
  #gap = 0n;

  /** Number of ranges. */
  get size(): number {
    return this.#size;
  }

  /** Iterates over the ranges that the table has now, by address. The table may change meanwhile. */
  [Symbol.iterator](): IterableIterator<Range> {
    const all: Range[] = [];
    for (const { ranges } of this.#blocks) all.push(...ranges);
    return all.values();
  }

  copy(): IovaTable<Range> {
    const copy = new IovaTable<Range>();
    copy.#blocks = this.#blocks.map(({ ranges, ends }) => ({ ranges: ranges.slice(), ends: ends.slice() }));
    copy.#size = this.#size;
    return copy;
  }

  /**
   * Enters a range.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when it is empty, leaves the 64-bit address space, or overlaps another
   */
  add(range: Range): void {
    const { iova, size } = range;
    const end = Number.isSafeInteger(size) && size > 0 ? iova + BigInt(size) : 0n;
    if (end === 0n || iova < 0n || end > LIMIT) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `DMA range ${formatRange(range)} is empty or not within 64 bits of address`,
      );
    }
    const at = this.#blockAfter(iova);
    const block = this.#blocks[at];
    if (block === undefined) this.#append(range, end);
    else {
      const index = firstAbove(block.ends, iova);
      const other = block.ranges[index] as Range;
      if (other.iova < end) {
        throw new VfioUserError(
          'ERR_VFIO_USER_DMA',
          `DMA range ${formatRange(range)} overlaps ${formatRange(other)}, which is mapped. Mapped: ${this.dump()}`,
        );
      }
      block.ranges.splice(index, 0, range);
      block.ends.splice(index, 0, end);
      if (block.ranges.length > BLOCK_SIZE) this.#split(at, block);
    }
    this.#size++;
  }

  /** Removes a range that {@link add} entered; false when it is not in the table. */
  delete(range: Range): boolean {
    const at = this.#blockAfter(range.iova);
    const block = this.#blocks[at];
    if (block === undefined) return false;
    const index = firstAbove(block.ends, range.iova);
    if (block.ranges[index] !== range) return false;
    if (block.ranges.length === 1) this.#blocks.splice(at, 1);
    else {
      block.ranges.splice(index, 1);
      block.ends.splice(index, 1);
    }
    this.#size--;
    if (range.iova < this.#gap) this.#gap = range.iova;
    return true;
  }

  clear(): void {
    this.#blocks = [];
    this.#size = 0;
    this.#gap = 0n;
  }

  /** The range that begins at `iova` and has exactly `size` bytes. */
  get(iova: bigint, size: number): Range | undefined {
    const range = this.#after(iova);
    return range?.iova === iova && range.size === size ? range : undefined;
  }

  /** The range that holds an address. */
  at(iova: bigint): Range | undefined {
    const range = this.#after(iova);
    return range !== undefined && range.iova <= iova ? range : undefined;
  }

  /** The first range that overlaps `iova … iova+size`, if any. */
  overlap(iova: bigint, size: number): Range | undefined {
    const range = this.#after(iova);
    return range !== undefined && range.iova < iova + BigInt(size) ? range : undefined;
  }

  /**
   * The ranges that lie within `iova … iova+size`, by address.
   *
   * @returns the ranges, and one that is within it in part only, if any
   */
  within(iova: bigint, size: bigint): { ranges: Range[]; cut: Range | undefined } {
    const ranges = this.overlapping(iova, size);
    // Only the outermost can be beyond it.
    const cut = [ranges[0], ranges.at(-1)].find(
      (range) => range !== undefined && (range.iova < iova || range.iova + BigInt(range.size) > iova + size),
    );
    return { ranges, cut };
  }

  /** The ranges that overlap `iova … iova+size`, by address. The first and the last may be beyond it in part. */
  overlapping(iova: bigint, size: bigint): Range[] {
    const found: Range[] = [];
    const end = iova + size;
    for (let range = this.#after(iova); range !== undefined && range.iova < end;) {
      found.push(range);
      range = this.#after(range.iova + BigInt(range.size));
    }
    return found;
  }

  /**
   * The parts of ranges that `length` bytes from `iova` on lie in, in order, also across adjacent ranges; undefined
   * when any byte is not mapped.
   */
  lookup(iova: bigint, length: number): IovaSegment<Range>[] | undefined {
    const segments: IovaSegment<Range>[] = [];
    let address = iova;
    for (let left = length; left > 0;) {
      const range = this.at(address);
      if (range === undefined) return undefined;
      const offset = Number(address - range.iova);
      const part = Math.min(left, range.size - offset);
      segments.push({ range, offset, length: part });
      address += BigInt(part);
      left -= part;
    }
    return segments;
  }

  /** An address of at least `from`, a multiple of `alignment`, with `size` free bytes below `limit`. */
  findGap(size: number, alignment: number, from: bigint, limit: bigint): bigint | undefined {
    // Gaps below the last one were too small before, so they are tried only when there is no other.
    const starts = this.#gap > from ? [this.#gap, from] : [from];
    for (const start of starts) {
      const found = this.#gapFrom(start, BigInt(size), BigInt(alignment));
      if (found + BigInt(size) > limit) continue;
      this.#gap = found;
      return found;
    }
    return undefined;
  }

  /** What is mapped, in one line. */
  dump(): string {
    if (this.#size === 0) return 'nothing';
    const shown: string[] = [];
    for (let range = this.#after(0n); range !== undefined && shown.length < 8;) {
      shown.push(formatRange(range));
      range = this.#after(range.iova + BigInt(range.size));
    }
    const more = this.#size - shown.length;
    return more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(', ');
  }

  #gapFrom(from: bigint, size: bigint, step: bigint): bigint {
    const alignUp = (address: bigint): bigint => ((address + step - 1n) / step) * step;
    let candidate = alignUp(from);
    for (;;) {
      const range = this.#after(candidate);
      if (range === undefined || range.iova >= candidate + size) return candidate;
      candidate = alignUp(range.iova + BigInt(range.size));
    }
  }

  /** The first range whose last byte is at or after an address. */
  #after(address: bigint): Range | undefined {
    const block = this.#blocks[this.#blockAfter(address)];
    return block?.ranges[firstAbove(block.ends, address)];
  }

  /** Index of the first block that ends after an address; the number of blocks when none does. */
  #blockAfter(address: bigint): number {
    const blocks = this.#blocks;
    let high = blocks.length;
    // Ranges often come in the order of their addresses.
    if (high === 0 || endOf(blocks[high - 1] as Block<Range>) <= address) return high;
    let low = 0;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (endOf(blocks[middle] as Block<Range>) <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #append(range: Range, end: bigint): void {
    const last = this.#blocks.at(-1);
    if (last === undefined || last.ranges.length >= BLOCK_SIZE)
      this.#blocks.push({ ranges: [range], ends: [end] });
    else {
      last.ranges.push(range);
      last.ends.push(end);
    }
  }

  /** Makes two blocks of one. */
  #split(at: number, { ranges, ends }: Block<Range>): void {
    const half = ranges.length >>> 1;
    this.#blocks.splice(at + 1, 0, { ranges: ranges.splice(half), ends: ends.splice(half) });
  }
}

function endOf({ ends }: Block<unknown>): bigint {
  return ends[ends.length - 1] as bigint;
}

/** Index of the first of ascending values that is above another; their number when none is. */
function firstAbove(values: readonly bigint[], value: bigint): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((values[middle] as bigint) <= value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** A range for messages, such as `0x100000000+0x200000`. */
export function formatRange(range: IovaRange): string {
  return `0x${range.iova.toString(16)}+0x${range.size.toString(16)}`;
}
