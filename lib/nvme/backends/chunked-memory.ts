// SPDX-License-Identifier: MIT
import { freemem } from 'node:os';
import { PrivateMemory } from '../../native';

/** Bytes of a chunk. Offsets within it are small integers of V8. A process may have 65,530 mappings (vm.max_map_count). */
const CHUNK_BYTES = 2 ** 26;

interface Chunk {
  readonly memory: PrivateMemory;
  readonly buffer: ArrayBuffer;
  readonly bytes: Uint8Array;
}

/** Memory of any size, in chunks that are allocated when they are first touched. */
export class ChunkedMemory {
  readonly #chunkBytes: number;
  readonly #chunks: (Chunk | undefined)[];
  #size: number;
  /**
   * A huge page is taken for the first byte that is written in it: what is stored thinly must not take more than there is. Decided
   * for the whole, since the memory that is free becomes less as it fills.
   */
  #inHugePages: boolean;

  /**
   * @param size in bytes
   * @param chunkBytes a multiple of the page size
   */
  constructor(size: number, chunkBytes = CHUNK_BYTES) {
    this.#chunkBytes = chunkBytes;
    this.#size = size;
    this.#inHugePages = hasRoomTwice(size);
    this.#chunks = new Array<Chunk | undefined>(Math.ceil(size / chunkBytes)).fill(undefined);
  }

  /**
   * Copies `length` bytes at `offset` to `target` at `at`.
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (ENOMEM)
   */
  read(offset: number, target: Uint8Array, at: number, length: number): void {
    const index = Math.floor(offset / this.#chunkBytes);
    const start = offset - index * this.#chunkBytes;
    if (start + length > this.#chunkBytes) {
      const part = this.#chunkBytes - start;
      this.read(offset, target, at, part);
      this.read(offset + part, target, at + part, length - part);
      return;
    }
    const { buffer } = this.#chunks[index] ?? this.#allocate(index);
    // The cheapest copy there is, measured: a view and `set` take 90 ns for 512 bytes and 200 ns for 4 KiB.
    target.set(new Uint8Array(buffer, start, length), at);
  }

  /**
   * Copies `length` bytes of `source` at `at` to `offset`.
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (ENOMEM)
   */
  write(offset: number, source: Uint8Array, at: number, length: number): void {
    const index = Math.floor(offset / this.#chunkBytes);
    const start = offset - index * this.#chunkBytes;
    if (start + length > this.#chunkBytes) {
      const part = this.#chunkBytes - start;
      this.write(offset, source, at, part);
      this.write(offset + part, source, at + part, length - part);
      return;
    }
    const { bytes } = this.#chunks[index] ?? this.#allocate(index);
    bytes.set(new Uint8Array(source.buffer, source.byteOffset + at, length), start);
  }

  /** Makes bytes zero, and keeps their memory. */
  zero(offset: number, length: number): void {
    this.#each(offset, length, (chunk, start, end) => chunk.bytes.fill(0, start, end));
  }

  /** Makes bytes zero, and gives their whole pages back to the system. */
  discard(offset: number, length: number): void {
    this.#each(offset, length, ({ memory }, start, end) => {
      memory.discard(start, end - start);
    });
  }

  /**
   * Changes the size. What is cut off is given back: it is zeros when the memory grows again.
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (ENOMEM); the size is as it was
   */
  resize(size: number): void {
    if (size < this.#size) this.discard(size, this.#size - size);
    else {
      this.#inHugePages &&= hasRoomTwice(size - this.#size);
      this.#growLast(size);
    }
    const count = Math.ceil(size / this.#chunkBytes);
    for (const chunk of this.#chunks.splice(count)) chunk?.memory.close();
    while (this.#chunks.length < count) this.#chunks.push(undefined);
    this.#size = size;
  }

  /** Gives the memory back. Idempotent. */
  close(): void {
    this.resize(0);
  }

  /** Visits the chunks of a range that have memory: the others are zeros. */
  #each(offset: number, length: number, visit: (chunk: Chunk, start: number, end: number) => void): void {
    for (let done = 0; done < length;) {
      const index = Math.floor((offset + done) / this.#chunkBytes);
      const start = offset + done - index * this.#chunkBytes;
      const part = Math.min(length - done, this.#chunkBytes - start);
      const chunk = this.#chunks[index];
      if (chunk !== undefined) visit(chunk, start, start + part);
      done += part;
    }
  }

  #allocate(index: number): Chunk {
    const chunk = this.#chunkFor(index, this.#size);
    this.#chunks[index] = chunk;
    return chunk;
  }

  /** The last chunk ends where the size does: when that grows, its bytes move to a longer one. */
  #growLast(size: number): void {
    const index = this.#chunks.length - 1;
    const last = this.#chunks[index];
    if (last === undefined) return;
    const longer = this.#chunkFor(index, size);
    longer.bytes.set(last.bytes);
    last.memory.close();
    this.#chunks[index] = longer;
  }

  #chunkFor(index: number, size: number): Chunk {
    const bytes = Math.min(this.#chunkBytes, size - index * this.#chunkBytes);
    const memory = new PrivateMemory(bytes, this.#inHugePages ? bytes : 0);
    return { memory, buffer: memory.buffer, bytes: new Uint8Array(memory.buffer) };
  }
}

/** Whether the machine has memory for twice so many bytes. */
function hasRoomTwice(bytes: number): boolean {
  return bytes <= freemem() / 2;
}
