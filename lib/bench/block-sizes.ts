// SPDX-License-Identifier: MIT
import {
  directionsOf,
  trimsAndWrites,
  type BlockSplit,
  type Direction,
  type Job,
  type SizeShare,
  type Workload,
} from './job';
import { Xoshiro128 } from '../random';

/** All sizes of a split that occur in some directions, rising, each once. */
function sizesOf(split: BlockSplit, directions: readonly Direction[]): number[] {
  const sizes = directions.flatMap((direction) =>
    split[direction].filter(({ share }) => share > 0).map(({ bytes }) => bytes),
  );
  return [...new Set(sizes)].sort((a, b) => a - b);
}

/** The largest size that divides all of these. */
export function commonUnit(sizes: readonly number[]): number {
  const divisor = (a: number, b: number): number => (b === 0 ? a : divisor(b, a % b));
  return sizes.reduce((unit, bytes) => divisor(unit, bytes), 0);
}

/** The directions whose sizes a workload uses. A trim has the size of the write that follows it. */
function sizingDirections(workload: Workload): readonly Direction[] {
  return trimsAndWrites(workload) ? ['write'] : directionsOf(workload);
}

/** The sizes of the I/Os of a workload, rising, each once. */
export function ioSizes(workload: Workload, blockSize: number, split: BlockSplit | null): number[] {
  return split === null ? [blockSize] : sizesOf(split, sizingDirections(workload));
}

/** Draws the sizes of I/Os by their shares, as indexes into the list of {@link ioSizes}. */
export class SizeDraw {
  readonly #random: Xoshiro128;
  /** For each direction the share of I/Os of each size and those before it. */
  readonly #read: Float64Array;
  readonly #write: Float64Array;
  readonly #trim: Float64Array;

  constructor({ workload, seed, index }: Job, split: BlockSplit, sizes: readonly number[]) {
    // A seed of its own, so that positions do not depend on sizes.
    this.#random = Xoshiro128.fromSeed((seed + index) ^ 0x512e);
    this.#read = cumulative(split.read, sizes);
    this.#write = cumulative(split.write, sizes);
    this.#trim = trimsAndWrites(workload) ? this.#write : cumulative(split.trim, sizes);
  }

  /** The size of the next I/O of a direction. */
  read(): number {
    return this.#draw(this.#read);
  }

  write(): number {
    return this.#draw(this.#write);
  }

  trim(): number {
    return this.#draw(this.#trim);
  }

  #draw(shares: Float64Array): number {
    const fraction = this.#random.fraction();
    const last = shares.length - 1;
    let size = 0;
    while (size < last && fraction >= (shares[size] as number)) size++;
    return size;
  }
}

function cumulative(shares: readonly SizeShare[], sizes: readonly number[]): Float64Array {
  let sum = 0;
  const sums = sizes.map((size) => {
    for (const { bytes, share } of shares) if (bytes === size) sum += share;
    return sum;
  });
  // What rounding leaves at the end belongs to the last size that has a share.
  return Float64Array.from(sums, (each) => (each >= sum ? Infinity : each));
}
