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
  readonly #chunks = new Map<number, Uint8Array>();
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
      let bits = this.#chunks.get(index);
      if (bits === undefined) this.#chunks.set(index, (bits = new Uint8Array(CHUNK_BLOCKS / 8)));
      for (const chunkEnd = Math.min(end, start + CHUNK_BLOCKS); block < chunkEnd; block++) {
        this.#set(bits, block - start);
      }
    }
  }

  /** Removes the blocks that a range of bytes covers as a whole. */
  delete(offset: number, length: number): void {
    const end = Math.floor((offset + length) / BLOCK_BYTES);
    for (let block = Math.ceil(offset / BLOCK_BYTES); block < end && this.#size > 0; block++) {
      const index = Math.floor(block / CHUNK_BLOCKS);
      const bits = this.#chunks.get(index);
      if (bits !== undefined) this.#clear(bits, block - index * CHUNK_BLOCKS);
    }
  }

  /** Adds all blocks of another set. */
  addAll(other: BlockSet): void {
    for (const [index, theirs] of other.#chunks) {
      for (let block = 0; block < CHUNK_BLOCKS; block++) {
        const present = ((theirs[block >> 3] as number) >> (block & 7)) & 1;
        if (present) this.add((index * CHUNK_BLOCKS + block) * BLOCK_BYTES, BLOCK_BYTES);
      }
    }
  }

  #set(bits: Uint8Array, block: number): void {
    const byte = bits[block >> 3] as number;
    const bit = 1 << (block & 7);
    if ((byte & bit) !== 0) return;
    bits[block >> 3] = byte | bit;
    this.#size++;
  }

  #clear(bits: Uint8Array, block: number): void {
    const byte = bits[block >> 3] as number;
    const bit = 1 << (block & 7);
    if ((byte & bit) === 0) return;
    bits[block >> 3] = byte & ~bit;
    this.#size--;
  }
}
