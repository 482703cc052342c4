// SPDX-License-Identifier: MIT
import { writeSync } from 'node:fs';
import { checkBlock, describeBlock } from '../../lib/bench/verify-pattern';

/** Bytes of a cell: what a write covers at least. */
export const CELL_BYTES = 4096;
export const BLOCK_BYTES = 512;
export const BLOCKS_PER_CELL = CELL_BYTES / BLOCK_BYTES;
export const WORDS_PER_BLOCK = BLOCK_BYTES / 4;
export const WORDS_PER_CELL = CELL_BYTES / 4;
/** Words before those of the cells, for whoever shares a ledger's file. */
export const HEADER_WORDS = 16;

/** What a cell holds. */
export interface Found {
  /** The lowest generation of its blocks; 0 when one was never written. */
  readonly generation: number;
  /** What is wrong with it; undefined when nothing is. */
  readonly mistake?: string;
}

/**
 * What was written to the cells of a namespace, and what became of it. Each write of a cell has a generation, from 1 on, and
 * there is one at a time. After a write was acknowledged the cell holds its generation, or one that was issued since and
 * whose fate is not known: anything older is a lost write.
 */
export class Ledger {
  readonly cells: number;
  readonly seed: number;
  /** The header, then three words for each cell, as a file holds it. */
  readonly words: Uint32Array;
  readonly #issued: Uint32Array;
  readonly #acknowledged: Uint32Array;
  readonly #flushed: Uint32Array;
  readonly #fd: number | undefined;
  readonly #bytes: Uint8Array;

  /**
   * @param cells number of cells
   * @param seed in all blocks, so that data of another run is told apart
   * @param file with what is known already, to which every change is written at once: it outlives a process that is killed
   */
  constructor(cells: number, seed: number, file?: { readonly fd: number; readonly words: Uint32Array }) {
    this.cells = cells;
    this.seed = seed;
    this.words = file?.words ?? new Uint32Array(Ledger.wordsOf(cells));
    this.#fd = file?.fd;
    this.#bytes = new Uint8Array(this.words.buffer);
    const part = (index: number): Uint32Array =>
      this.words.subarray(HEADER_WORDS + index * cells, HEADER_WORDS + (index + 1) * cells);
    this.#issued = part(0);
    this.#acknowledged = part(1);
    this.#flushed = part(2);
  }

  static wordsOf(cells: number): number {
    return HEADER_WORDS + 3 * cells;
  }

  /** The generation of the next write of a cell, which is about to be sent. */
  issue(cell: number): number {
    return this.#set(this.#issued, cell, (this.#issued[cell] as number) + 1);
  }

  acknowledge(cell: number, generation: number): void {
    this.#set(this.#acknowledged, cell, generation);
  }

  acknowledgedOf(cell: number): number {
    return this.#acknowledged[cell] as number;
  }

  flushedOf(cell: number): number {
    return this.#flushed[cell] as number;
  }

  /** What a flush that is sent now must make durable. */
  beforeFlush(): Uint32Array {
    return this.#acknowledged.slice();
  }

  /** A flush succeeded. */
  flush(before: Uint32Array): void {
    for (let cell = 0; cell < this.cells; cell++) this.flushCell(cell, before[cell] as number);
  }

  flushCell(cell: number, generation: number): void {
    if (generation > (this.#flushed[cell] as number)) this.#set(this.#flushed, cell, generation);
  }

  /** Cells of which a write, whatever became of it, was not flushed. */
  unflushed(): number[] {
    const all = Array.from({ length: this.cells }, (_, cell) => cell);
    return all.filter((cell) => (this.#issued[cell] as number) > (this.#flushed[cell] as number));
  }

  /** The tool itself has destroyed a cell: it may hold anything that was ever written to it, or zeros. */
  forget(cell: number): void {
    this.#set(this.#acknowledged, cell, 0);
    this.#set(this.#flushed, cell, 0);
  }

  /** What was not flushed was allowed to be lost, and what a cell holds now was found out. */
  settle(cell: number, generation: number): void {
    this.#set(this.#acknowledged, cell, generation);
    this.#set(this.#flushed, cell, Math.min(generation, this.#flushed[cell] as number));
  }

  /**
   * Compares a cell with what it may hold.
   *
   * @param words memory with the cell at index `at`
   * @param least the oldest generation that is right
   */
  inspect(words: Uint32Array, at: number, cell: number, least = this.acknowledgedOf(cell)): Found {
    let lowest = Infinity;
    for (let index = 0; index < BLOCKS_PER_CELL; index++, at += WORDS_PER_BLOCK) {
      const lba = cell * BLOCKS_PER_CELL + index;
      const generation = words[at + 3] as number;
      const block = { lba, generation, seed: this.seed };
      const known = generation > 0 && generation >= least && generation <= (this.#issued[cell] as number);
      if (known && checkBlock(words, at, WORDS_PER_BLOCK, block) === 'ok') {
        lowest = Math.min(lowest, generation);
      } else if (least === 0 && words.subarray(at, at + WORDS_PER_BLOCK).every((word) => word === 0)) {
        lowest = 0;
      } else {
        const expected = { lba, generation: least, seed: this.seed };
        return { generation: 0, mistake: describeBlock(words, at, WORDS_PER_BLOCK, expected) };
      }
    }
    return { generation: lowest };
  }

  /** A word of the header, for those who share the file. */
  setHeader(index: number, value: number): void {
    this.words[index] = value;
    this.#publish(index * 4);
  }

  #publish(offset: number): void {
    if (this.#fd !== undefined) writeSync(this.#fd, this.#bytes, offset, 4, offset);
  }

  #set(part: Uint32Array, cell: number, value: number): number {
    part[cell] = value;
    this.#publish(part.byteOffset + cell * 4);
    return value;
  }
}
