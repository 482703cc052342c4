// SPDX-License-Identifier: MIT
import type { JobPlan } from './plan';
import { checkBlock, describeBlock, fillBlock } from './verify-pattern';

/** Pass number in the pattern of verified blocks. Every pass of a run writes the same, so that the order does not matter. */
const GENERATION = 1;

/**
 * What a job that verifies has written, and the comparison with what is read. Each logical block carries its own
 * address, the run's seed and a checksum, so that lost, misdirected and torn writes are told apart.
 */
export class Verification {
  /** I/O-sized blocks that were compared, and how many of them were not as written. */
  verified = 0;
  mismatches = 0;
  firstMismatch: string | undefined;
  /** I/O-sized blocks that were written and completed. */
  written = 0;
  readonly #plan: JobPlan;
  readonly #data: Uint32Array;
  readonly #lbasPerIo: number;
  /** One bit per I/O-sized block. */
  readonly #writtenBits: Uint8Array;
  #next = 0;

  /** @param data the buffers of all command ids, one after the other */
  constructor(plan: JobPlan, data: Uint32Array) {
    this.#plan = plan;
    this.#data = data;
    this.#lbasPerIo = plan.blockSize / plan.lbaSize;
    this.#writtenBits = new Uint8Array(Math.ceil(plan.ioBlocks / 8));
  }

  /** Puts the pattern of a block into the buffer of a command id. */
  fill(cid: number, block: number): void {
    const { lbaSize, firstLba, blockSize, seed } = this.#plan;
    const wordsPerLba = lbaSize / 4;
    const first = firstLba + block * this.#lbasPerIo;
    for (let index = 0; index < this.#lbasPerIo; index++) {
      const at = (cid * blockSize) / 4 + index * wordsPerLba;
      fillBlock(this.#data, at, wordsPerLba, first + index, GENERATION, seed);
    }
  }

  /** Compares the buffer of a command id with the pattern of a block. */
  check(cid: number, block: number): void {
    const { lbaSize, firstLba, blockSize, seed } = this.#plan;
    const wordsPerLba = lbaSize / 4;
    const first = firstLba + block * this.#lbasPerIo;
    this.verified++;
    for (let index = 0; index < this.#lbasPerIo; index++) {
      const at = (cid * blockSize) / 4 + index * wordsPerLba;
      if (checkBlock(this.#data, at, wordsPerLba, first + index, GENERATION, seed) === 'ok') continue;
      this.mismatches++;
      this.firstMismatch ??= describeBlock(this.#data, at, wordsPerLba, first + index, GENERATION, seed);
      return;
    }
  }

  isWritten(block: number): boolean {
    return ((this.#writtenBits[Math.floor(block / 8)] as number) & (1 << (block % 8))) !== 0;
  }

  markWritten(block: number): void {
    if (this.isWritten(block)) return;
    this.written++;
    const byte = Math.floor(block / 8);
    this.#writtenBits[byte] = (this.#writtenBits[byte] as number) | (1 << (block % 8));
  }

  /** The written blocks in rising order, one at each call; call it no more than {@link written} times. */
  nextWritten(): number {
    while (!this.isWritten(this.#next)) this.#next++;
    return this.#next++;
  }
}
