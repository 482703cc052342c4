// SPDX-License-Identifier: MIT
import { Mapping, zeroRange } from '../../native';
import { BackendResult } from './backend';

/**
 * Bytes of the longest mapping. Offsets within it are small integers of V8, and 4 GiB is the longest ArrayBuffer of
 * Node.js 20.
 */
const CHUNK_BYTES = 2 ** 30;

interface Chunk {
  readonly mapping: Mapping;
  readonly buffer: ArrayBuffer;
  readonly bytes: Uint8Array;
}

/** The bytes of shared memory, mapped in chunks when they are first touched. */
export class MappedStorage {
  readonly #fd: number;
  #size: number;
  readonly #chunks: (Chunk | undefined)[];
  readonly #chunkBytes: number;
  /** How the accesses end: with success until memory was lost. */
  #result: BackendResult = BackendResult.success;

  /**
   * @param fd stays the caller's, and open as long as this object is used
   * @param size bytes of the memory
   * @param chunkBytes a multiple of the page size
   */
  constructor(fd: number, size: number, chunkBytes = CHUNK_BYTES) {
    this.#fd = fd;
    this.#size = size;
    this.#chunkBytes = chunkBytes;
    this.#chunks = new Array<Chunk | undefined>(Math.ceil(size / chunkBytes)).fill(undefined);
  }

  /** Does what `Backend.read` tells. A medium error once pages could not be had. */
  read(offset: number, target: Uint8Array, at: number, length: number): BackendResult {
    const index = Math.floor(offset / this.#chunkBytes);
    const start = offset - index * this.#chunkBytes;
    if (start + length > this.#chunkBytes) {
      const part = this.#chunkBytes - start;
      this.read(offset, target, at, part);
      return this.read(offset + part, target, at + part, length - part);
    }
    const chunk = this.#chunks[index] ?? this.#map(index);
    // The cheapest copy there is, measured: a view and `set` take 90 ns for 512 bytes and 200 ns for 4 KiB.
    target.set(new Uint8Array(chunk.buffer, start, length), at);
    return this.#result;
  }

  /** Does what `Backend.write` tells. Its result is as that of {@link read}. */
  write(offset: number, source: Uint8Array, at: number, length: number): BackendResult {
    const index = Math.floor(offset / this.#chunkBytes);
    const start = offset - index * this.#chunkBytes;
    if (start + length > this.#chunkBytes) {
      const part = this.#chunkBytes - start;
      this.write(offset, source, at, part);
      return this.write(offset + part, source, at + part, length - part);
    }
    const chunk = this.#chunks[index] ?? this.#map(index);
    chunk.bytes.set(new Uint8Array(source.buffer, source.byteOffset + at, length), start);
    return this.#result;
  }

  /** Does what `Backend.zero` tells. Its result is as that of {@link read}. */
  zero(offset: number, length: number): BackendResult {
    for (let done = 0; done < length;) {
      const index = Math.floor((offset + done) / this.#chunkBytes);
      const start = offset + done - index * this.#chunkBytes;
      const part = Math.min(length - done, this.#chunkBytes - start);
      (this.#chunks[index] ?? this.#map(index)).bytes.fill(0, start, start + part);
      done += part;
    }
    return this.#result;
  }

  /** Makes bytes zero, and gives whole pages back to the system. Its result is as that of {@link read}. */
  deallocate(offset: number, length: number): BackendResult {
    return zeroRange(this.#fd, offset, length, true) === 0 ? this.#result : this.zero(offset, length);
  }

  /**
   * Follows a change of the size: what is beyond it, or reached to the end before, is mapped anew when it is touched.
   * @param change changes the size of the memory
   */
  resize(size: number, change: () => void): void {
    const kept = Math.floor(Math.min(size, this.#size) / this.#chunkBytes);
    for (const chunk of this.#chunks.splice(kept)) chunk?.mapping.close();
    change();
    this.#size = size;
    while (this.#chunks.length < Math.ceil(size / this.#chunkBytes)) this.#chunks.push(undefined);
  }

  /** Unmaps the memory. Idempotent. */
  close(): void {
    for (const chunk of this.#chunks) chunk?.mapping.close();
    this.#chunks.fill(undefined);
  }

  #map(index: number): Chunk {
    const offset = index * this.#chunkBytes;
    const mapping = Mapping.map(this.#fd, offset, Math.min(this.#chunkBytes, this.#size - offset));
    mapping.onLost = () => {
      this.#result = BackendResult.mediumError;
    };
    const chunk = { mapping, buffer: mapping.buffer, bytes: new Uint8Array(mapping.buffer) };
    this.#chunks[index] = chunk;
    return chunk;
  }
}
