// SPDX-License-Identifier: MIT
import type { Job } from './job';
import { checkBlock, describeBlock, fillBlock } from './verify-pattern';

/** Every pass of a run writes the same pattern, so that it does not matter in which order two writes of a block are executed. */
const GENERATION = 1;

/**
 * What a job that verifies has written, and the comparison of what it reads. Each logical block carries its own address, the
 * run's seed and a checksum, so that lost, misdirected and torn writes are told apart.
 */
export class Verification {
  /** I/O-sized blocks that were compared. */
  verified = 0;
  /** How many of them were not as written. */
  mismatches = 0;
  /** Text about the first of these. */
  firstMismatch: string | undefined;
  /** I/O-sized blocks that were written and completed. */
  written = 0;
  readonly #job: Job;
  readonly #data: Uint32Array;
  readonly #lbasPerIo: number;
  readonly #wordsPerLba: number;
  /** The logical block at hand. */
  readonly #lba: { lba: number; readonly generation: number; readonly seed: number };
  /** One bit per I/O-sized block. */
  readonly #writtenBits: Uint8Array;
  #next = 0;

  /** @param data the buffers of all command ids, one after the other */
  constructor(job: Job, data: Uint32Array) {
    this.#job = job;
    this.#data = data;
    this.#lbasPerIo = job.blockSize / job.lbaSize;
    this.#wordsPerLba = job.lbaSize / 4;
    this.#lba = { lba: 0, generation: GENERATION, seed: job.seed };
    this.#writtenBits = new Uint8Array(Math.ceil(job.ioBlocks / 8));
  }

  /** Puts the pattern of a block into the buffer of a command id. */
  fill(cid: number, block: number): void {
    let at = this.#locate(cid, block);
    for (let index = 0; index < this.#lbasPerIo; index++) {
      fillBlock(this.#data, at, this.#wordsPerLba, this.#lba);
      at += this.#wordsPerLba;
      this.#lba.lba++;
    }
  }

  /** Compares the buffer of a command id with the pattern of a block. */
  check(cid: number, block: number): void {
    let at = this.#locate(cid, block);
    this.verified++;
    for (let index = 0; index < this.#lbasPerIo; index++) {
      if (checkBlock(this.#data, at, this.#wordsPerLba, this.#lba) !== 'ok') {
        this.mismatches++;
        this.firstMismatch ??= describeBlock(this.#data, at, this.#wordsPerLba, this.#lba);
        return;
      }
      at += this.#wordsPerLba;
      this.#lba.lba++;
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

  /** The next block that was written, in rising order. May be called {@link written} times. */
  nextWritten(): number {
    while (!this.isWritten(this.#next)) this.#next++;
    return this.#next++;
  }

  /** Takes the first logical block of a block at hand. Returns where the buffer of the command id begins, in words. */
  #locate(cid: number, block: number): number {
    this.#lba.lba = this.#job.firstLba + block * this.#lbasPerIo;
    return (cid * this.#job.blockSize) / 4;
  }
}
