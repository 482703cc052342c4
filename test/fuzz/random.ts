// SPDX-License-Identifier: MIT

/** Powers of two around which fields change their meaning: bytes, pages, 16, 31, 32, 53 and 64 bits. */
const EDGES = [0, 1, 8, 16, 256, 4096, 65536, 2 ** 20, 2 ** 31, 2 ** 32 - 1];
const EDGES64 = [0n, 1n, 4096n, 1n << 31n, 1n << 32n, 1n << 52n, 1n << 53n, 1n << 63n, (1n << 64n) - 4096n];

/** Random numbers that follow from a seed: sfc32 of PractRand, which is fast and passes its tests. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** @param seed and `stream`: any integers. Each pair gives a sequence of its own */
  constructor(seed: number, stream = 0) {
    this.#a = seed | 0;
    this.#b = stream | 0;
    this.#c = Math.floor(stream / 2 ** 32) | 0;
    for (let i = 0; i < 12; i++) this.u32();
  }

  /** 0 to 2^32 - 1. */
  u32(): number {
    const sum = (this.#a + this.#b + this.#counter++) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum;
    return sum >>> 0;
  }

  /** 0 to `bound` - 1. */
  below(bound: number): number {
    return Math.floor((this.u32() / 2 ** 32) * bound);
  }

  /** True once in `times`. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T;
  }

  /** One of the limits, or up to two beside it; not below 0. */
  near(...limits: number[]): number {
    return Math.max(0, this.pick(limits) + this.below(5) - 2);
  }

  /** A 32-bit value of the kind that breaks things. */
  odd32(): number {
    return this.once(3) ? this.u32() : (this.pick(EDGES) + this.below(5) - 2) >>> 0;
  }

  /** A 64-bit value of the kind that breaks things. */
  odd64(): bigint {
    if (this.once(3)) return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
    return BigInt.asUintN(64, this.pick(EDGES64) + BigInt(this.below(5) - 2));
  }

  bytes(count: number): Uint8Array {
    const words = new Uint32Array(Math.ceil(count / 4));
    for (let i = 0; i < words.length; i++) words[i] = this.u32();
    return new Uint8Array(words.buffer, 0, count);
  }
}
