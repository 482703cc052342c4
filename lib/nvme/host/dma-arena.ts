// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../errors';
import type { DmaMemory } from '../../pci/device';

/** A part of a {@link DmaArena}. */
export interface DmaChunk {
  /** Address at which the device sees the first byte. */
  readonly iova: number;
  /** Offset of the first byte in the arena's memory, in bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

/** NVMe pages as this driver uses them (CC.MPS = 0). */
export const NVME_PAGE = 4096;

/**
 * Hands out whole pages of one DMA mapping: every mapping costs a message, and some servers take few of them.
 */
export class DmaArena {
  readonly memory: DmaMemory;
  /** Free chunks, sorted by offset, never adjacent. */
  #free: { offset: number; size: number }[];

  constructor(memory: DmaMemory) {
    this.memory = memory;
    this.#free = [{ offset: 0, size: memory.size }];
  }

  /**
   * Allocates zeroed, page-aligned memory.
   *
   * @param size bytes, rounded up to pages
   * @throws VfioUserError ERR_VFIO_USER_DMA when no part is large enough
   */
  allocate(size: number): DmaChunk {
    const rounded = Math.ceil(size / NVME_PAGE) * NVME_PAGE;
    const index = this.#free.findIndex((part) => part.size >= rounded);
    const part = this.#free[index];
    if (part === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${rounded} bytes are wanted of the controller's DMA memory of ${this.memory.size}, and no free part is so large; attach with a larger arenaSize`,
      );
    }
    const { offset } = part;
    part.offset += rounded;
    part.size -= rounded;
    if (part.size === 0) this.#free.splice(index, 1);
    new Uint8Array(this.memory.buffer, offset, rounded).fill(0);
    return { iova: this.memory.iova + offset, offset, size: rounded };
  }

  /** Gives a chunk back. */
  release({ offset, size }: DmaChunk): void {
    this.#free.push({ offset, size });
    this.#free.sort((a, b) => a.offset - b.offset);
    const merged: { offset: number; size: number }[] = [];
    for (const part of this.#free) {
      const last = merged.at(-1);
      if (last !== undefined && last.offset + last.size === part.offset) last.size += part.size;
      else merged.push(part);
    }
    this.#free = merged;
  }

  /** The bytes of a chunk as 32-bit words. */
  words(chunk: DmaChunk): Uint32Array {
    return new Uint32Array(this.memory.buffer, chunk.offset, chunk.size / 4);
  }

  /** The bytes of a chunk. */
  bytes(chunk: DmaChunk): Uint8Array {
    return new Uint8Array(this.memory.buffer, chunk.offset, chunk.size);
  }
}
