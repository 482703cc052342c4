// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import { Xoshiro128 } from '../random';

/** Chooses the block of the next I/O. */
export interface BlockSequence {
  /**
   * The number of a block, from 0 to the number of blocks less `span`.
   *
   * @param span number of blocks that the I/O covers, at most all
   */
  next(span: number): number;
}

/** Blocks chosen uniformly at random, with repetition (fio: `norandommap`). */
export class RandomSequence implements BlockSequence {
  readonly #random: Xoshiro128;
  readonly #blocks: number;

  /**
   * @param blocks number of blocks, 1 … 2^53
   * @param seed 32 bits; the same seed gives the same sequence
   * @throws ERR_OUT_OF_RANGE
   */
  constructor(blocks: number, seed: number) {
    checkBlocks(blocks);
    this.#random = Xoshiro128.fromSeed(seed);
    this.#blocks = blocks;
  }

  next(span: number): number {
    return this.#random.below(this.#blocks - span + 1);
  }
}

/** Rounds of the Feistel network; four make the order look random. */
const ROUNDS = 4;

/**
 * A permutation of the numbers below `count` that needs no table: a Feistel network over the next power of four. A number
 * that it maps beyond `count` is mapped again, until it is below.
 */
class Permutation {
  readonly #count: number;
  readonly #halfMask: number;
  readonly #half: number;
  readonly #keys: Int32Array;

  constructor(count: number, random: Xoshiro128) {
    this.#count = count;
    const halfBits = Math.max(1, Math.ceil(Math.log2(count) / 2));
    this.#half = 2 ** halfBits;
    this.#halfMask = this.#half - 1;
    this.#keys = Int32Array.from({ length: ROUNDS }, () => random.next());
  }

  at(index: number): number {
    let value = this.#permute(index);
    while (value >= this.#count) value = this.#permute(value);
    return value;
  }

  #permute(value: number): number {
    let left = Math.floor(value / this.#half);
    let right = value % this.#half;
    for (let round = 0; round < ROUNDS; round++) {
      let mixed = Math.imul(right ^ (this.#keys[round] as number), 0x9e3779b1);
      mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b);
      const swapped = left ^ ((mixed ^ (mixed >>> 13)) & this.#halfMask);
      left = right;
      right = swapped;
    }
    return left * this.#half + right;
  }
}

/** Every block once, in random order, which begins again after the last. For I/Os of one block. */
export class ShuffledSequence implements BlockSequence {
  readonly #blocks: number;
  readonly #order: Permutation;
  #next = 0;

  /**
   * @param blocks number of blocks, 1 … 2^53
   * @param seed 32 bits; the same seed gives the same order
   * @throws ERR_OUT_OF_RANGE
   */
  constructor(blocks: number, seed: number) {
    checkBlocks(blocks);
    this.#blocks = blocks;
    this.#order = new Permutation(blocks, Xoshiro128.fromSeed(seed));
  }

  next(): number {
    const block = this.#order.at(this.#next);
    this.#next = this.#next + 1 === this.#blocks ? 0 : this.#next + 1;
    return block;
  }
}

/**
 * Blocks by Zipf's law: the one of rank n is drawn in proportion to 1 / n^theta (fio: `random_distribution=zipf`). The
 * ranks are scattered over the region, so that the blocks drawn often do not lie together. I/Os that would reach beyond the
 * end begin earlier.
 *
 * They are drawn by rejection-inversion (Hörmann and Derflinger, ACM TOMACS 6(3), 1996), which needs no table, however many
 * blocks there are.
 */
export class ZipfSequence implements BlockSequence {
  readonly #blocks: number;
  readonly #theta: number;
  readonly #random: Xoshiro128;
  readonly #order: Permutation;
  /** The integral of the density at the two ends: just below the first rank, and just above the last one. */
  readonly #low: number;
  readonly #high: number;
  /** A draw that lies so close to its rank is always accepted. */
  readonly #squeeze: number;

  /**
   * @param blocks number of blocks, 1 … 2^53
   * @param theta skew, above 0 and up to 10; 1 is Zipf's own law
   * @param seed 32 bits; the same seed gives the same sequence
   * @throws ERR_OUT_OF_RANGE
   */
  constructor(blocks: number, theta: number, seed: number) {
    checkBlocks(blocks);
    if (!(theta > 0 && theta <= 10)) {
      throw outOfRange(`The skew of a Zipf distribution is above 0 and at most 10, not ${theta}`);
    }
    this.#blocks = blocks;
    this.#theta = theta;
    this.#random = Xoshiro128.fromSeed(seed);
    this.#order = new Permutation(blocks, this.#random);
    this.#low = this.#integral(1.5) - 1;
    this.#high = this.#integral(blocks + 0.5);
    this.#squeeze = 2 - this.#inverse(this.#integral(2.5) - 2 ** -theta);
  }

  next(span: number): number {
    for (;;) {
      const u = this.#high + this.#random.fraction() * (this.#low - this.#high);
      const x = this.#inverse(u);
      const rank = Math.min(this.#blocks, Math.max(1, Math.round(x)));
      if (rank - x <= this.#squeeze || u >= this.#integral(rank + 0.5) - rank ** -this.#theta)
        return Math.min(this.#order.at(rank - 1), this.#blocks - span);
    }
  }

  /** The integral of x^-theta from 1 on. */
  #integral(x: number): number {
    const power = 1 - this.#theta;
    return power === 0 ? Math.log(x) : Math.expm1(power * Math.log(x)) / power;
  }

  #inverse(area: number): number {
    const power = 1 - this.#theta;
    return power === 0 ? Math.exp(area) : Math.exp(Math.log1p(Math.max(-1, power * area)) / power);
  }
}

/** Blocks in rising order. After the last, and when an I/O does not fit before the end, comes the first again. */
export class SequentialSequence implements BlockSequence {
  readonly #blocks: number;
  #next: number;

  /**
   * @param blocks number of blocks, 1 … 2^53
   * @param start the first block to return, so that several jobs can begin at different places
   * @throws ERR_OUT_OF_RANGE
   */
  constructor(blocks: number, start = 0) {
    checkBlocks(blocks);
    if (!Number.isInteger(start) || start < 0 || start >= blocks) {
      throw outOfRange(`The first block, ${start}, is not one of ${blocks} blocks`);
    }
    this.#blocks = blocks;
    this.#next = start;
  }

  next(span: number): number {
    const block = this.#next + span > this.#blocks ? 0 : this.#next;
    this.#next = block + span;
    return block;
  }
}

function checkBlocks(blocks: number): void {
  if (!Number.isInteger(blocks) || blocks < 1 || blocks > 2 ** 53) {
    throw outOfRange(`The number of blocks must be an integer from 1 to 2^53, not ${blocks}`);
  }
}
