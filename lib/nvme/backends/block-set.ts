// SPDX-License-Identifier: MIT
/** Bytes of a block: the smallest logical block of NVMe, and what a disk writes as a whole at least. */
const BLOCK_BYTES = 512;
/** Blocks of a chunk, which is 16 MiB. */
const CHUNK_BLOCKS = 2 ** 15;

/**
 * A set of blocks of 512 bytes, as a bitmap that exists where blocks were added: it takes up to a 4096th of the bytes
 * that were added, and 4 KiB for the first block of each 16 MiB.
 */
export class BlockSet {
  readonly #chunks = new Map<number, Int32Array>();
  #size = 0;

  /** Number of blocks in the set. */
  get size(): number {
    return this.#size;
  }

  /** Adds every block that a range of bytes touches. */
  add(offset: number, length: number): void {
    const end = Math.ceil((offset + length) / BLOCK_BYTES);
    for (let block = Math.floor(offset / BLOCK_BYTES); block < end;) {
      const index = Math.floor(block / CHUNK_BLOCKS);
      const start = index * CHUNK_BLOCKS;
      const words = this.#chunk(index);
      for (const chunkEnd = Math.min(end, start + CHUNK_BLOCKS); block < chunkEnd; block++) {
        const at = (block - start) >> 5;
        this.#put(words, at, (words[at] as number) | (1 << (block & 31)));
      }
    }
  }

  /** Removes the blocks that a range of bytes covers as a whole. */
  delete(offset: number, length: number): void {
    const end = Math.floor((offset + length) / BLOCK_BYTES);
    for (let block = Math.ceil(offset / BLOCK_BYTES); block < end && this.#size > 0; block++) {
      const index = Math.floor(block / CHUNK_BLOCKS);
      const words = this.#chunks.get(index);
      const at = (block - index * CHUNK_BLOCKS) >> 5;
      if (words !== undefined) this.#put(words, at, (words[at] as number) & ~(1 << (block & 31)));
    }
  }

  /** Adds all blocks of another set. */
  addAll(other: BlockSet): void {
    for (const [index, theirs] of other.#chunks) {
      const words = this.#chunk(index);
      for (let at = 0; at < words.length; at++) {
        this.#put(words, at, (words[at] as number) | (theirs[at] as number));
      }
    }
  }

  #chunk(index: number): Int32Array {
    let words = this.#chunks.get(index);
    if (words === undefined) this.#chunks.set(index, (words = new Int32Array(CHUNK_BLOCKS / 32)));
    return words;
  }

  #put(words: Int32Array, at: number, bits: number): void {
    const before = words[at] as number;
    if (bits === before) return;
    words[at] = bits;
    this.#size += bitCount(bits) - bitCount(before);
  }
}

/** The number of ones in 32 bits. */
function bitCount(bits: number): number {
  let count = bits - ((bits >>> 1) & 0x5555_5555);
  count = (count & 0x3333_3333) + ((count >>> 2) & 0x3333_3333);
  count = (count + (count >>> 4)) & 0x0f0f_0f0f;
  return Math.imul(count, 0x0101_0101) >>> 24;
}
