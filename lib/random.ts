// SPDX-License-Identifier: MIT
import { invalidArgument } from './errors';

/**
 * xoshiro128** 1.1 by Blackman and Vigna (prng.di.unimi.it): a fast 32-bit generator with 128 bits of state. Its sequence
 * depends on nothing but the seed. It is not for secrets.
 */
export class Xoshiro128 {
  readonly #state: Int32Array;

  /**
   * @param state the four words of the state, not all 0
   * @throws ERR_INVALID_ARG_VALUE
   */
  constructor(state: readonly [number, number, number, number]) {
    if (state.every((word) => (word | 0) === 0)) {
      throw invalidArgument('The state of xoshiro128** needs a bit that is 1');
    }
    this.#state = Int32Array.from(state, (word) => word | 0);
  }

  /** A generator whose state comes from one 32-bit seed: values of a counter, mixed by the finaliser of MurmurHash3. */
  static fromSeed(seed: number): Xoshiro128 {
    let counter = seed | 0;
    const word = (): number => {
      counter = (counter + 0x9e3779b9) | 0;
      let z = counter;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      return z ^ (z >>> 16);
    };
    // The counter takes four values and only one of them maps to 0, so that the state is never all 0.
    return new Xoshiro128([word(), word(), word(), word()]);
  }

  /** 32 random bits as an integer from 0 to 2^32 - 1. */
  next(): number {
    return this.#draw() >>> 0;
  }

  /** 32 random bits as a signed integer, which V8 passes on without allocating a number for it. */
  #draw(): number {
    const state = this.#state;
    const s0 = state[0] as number;
    const s1 = state[1] as number;
    const s2 = (state[2] as number) ^ s0;
    const s3 = (state[3] as number) ^ s1;
    const scrambled = Math.imul(s1, 5);
    state[0] = s0 ^ s3;
    state[1] = s1 ^ s2;
    state[2] = s2 ^ (s1 << 9);
    state[3] = (s3 << 11) | (s3 >>> 21);
    return Math.imul((scrambled << 7) | (scrambled >>> 25), 9);
  }

  /** A uniform number from 0 to 1, less than 1. */
  fraction(): number {
    return ((this.#draw() >>> 5) * 2 ** 26 + (this.#draw() >>> 6)) / 2 ** 53;
  }

  /**
   * A uniform integer from 0 to `n` - 1. For `n` up to 2^32 no value is more than 2^-21 likelier than another; for larger ones all
   * are equally likely.
   *
   * @param n integer from 1 to 2^53; not checked
   */
  below(n: number): number {
    if (n <= 2 ** 32) {
      return Math.floor(this.fraction() * n);
    }
    const highest = Math.floor((n - 1) / 2 ** 32);
    const mask = 0xffffffff >>> Math.clz32(highest);
    for (;;) {
      const value = (this.#draw() & mask) * 2 ** 32 + (this.#draw() >>> 0);
      if (value < n) return value;
    }
  }
}
