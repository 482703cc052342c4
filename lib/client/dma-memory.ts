// SPDX-License-Identifier: MIT
import { Mapping, closeFd, createSharedMemory, duplicateFd } from '../native';

/** When to use 2 MiB huge pages; see `DmaContainerOptions`. */
export type HugePages = 'auto' | 'always' | 'never';

/** A huge page, in bytes. */
export const HUGE_PAGE = 0x20_0000;

/** Memory of ours with the descriptor behind it. */
export interface OwnedMemory {
  readonly fd: number;
  readonly mapping: Mapping;
}

/**
 * Allocates shared memory.
 *
 * @param size bytes; a multiple of {@link HUGE_PAGE} unless `hugePages` is `never`
 * @param alignment of our own mapping, in bytes
 */
export function createMemory(size: number, alignment: number, hugePages: HugePages): OwnedMemory {
  if (hugePages !== 'never') {
    try {
      return mapOwned(createSharedMemory(size, { hugePageSize: HUGE_PAGE }), 0, size, alignment);
    } catch (error) {
      // mmap reserves the huge pages, so a lack of them shows here and not as a fault later.
      if (hugePages === 'always') throw error;
    }
  }
  return mapOwned(createSharedMemory(size), 0, size, alignment);
}

/** Maps a part of the caller's file, through a duplicate of its descriptor. */
export function borrowMemory(fd: number, offset: number, size: number): OwnedMemory {
  return mapOwned(duplicateFd(fd), offset, size, 0);
}

function mapOwned(fd: number, offset: number, size: number, alignment: number): OwnedMemory {
  try {
    return { fd, mapping: Mapping.map(fd, offset, size, { alignment }) };
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}
