// SPDX-License-Identifier: MIT
import { Mapping, closeFd, createSharedMemory, duplicateFd, fileSize } from '../native';

/** When to use 2 MiB huge pages; see `DmaContainerOptions`. */
export type HugePages = 'auto' | 'always' | 'never';

/** A huge page, in bytes. */
export const HUGE_PAGE = 0x20_0000;

/** A descriptor of ours, closed when the last of the ranges that share it is. */
class SharedFile {
  readonly fd: number;
  /** Bytes; 0 for a device, which has no size. */
  readonly size: number;
  #users = 0;

  /** @param fd taken over, also when this throws */
  constructor(fd: number) {
    try {
      this.size = fileSize(fd);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    this.fd = fd;
  }

  use(): void {
    this.#users++;
  }

  leave(): void {
    if (--this.#users === 0) closeFd(this.fd);
  }
}

/** The memory of a range: a part of a file. Most of what a caller maps is read and written by devices only. */
export class RangeMemory {
  readonly #file: SharedFile;
  readonly #offset: number;
  readonly #size: number;
  #mapping: Mapping | null = null;
  #closed = false;

  constructor(file: SharedFile, offset: number, size: number) {
    this.#file = file;
    this.#offset = offset;
    this.#size = size;
    file.use();
  }

  /** Owned by this object, and perhaps the same as that of other ranges. */
  get fd(): number {
    return this.#file.fd;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Our view of it; mapped when it is asked for first. Without bytes once closed.
   *
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM when it cannot be mapped: ENXIO when the file has shrunk, ENOMEM
   */
  get buffer(): ArrayBuffer {
    if (this.#mapping !== null) return this.#mapping.buffer;
    return this.#closed ? new ArrayBuffer(0) : this.map().buffer;
  }

  /** Maps it now; to be called once. */
  map(alignment = 0): Mapping {
    return (this.#mapping = Mapping.map(this.#file.fd, this.#offset, this.#size, { alignment }));
  }

  /** Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#mapping?.close();
    this.#file.leave();
  }
}

/**
 * Allocates shared memory, and maps it.
 *
 * @param size bytes; a multiple of {@link HUGE_PAGE} unless `hugePages` is `never`
 * @param alignment of our own mapping, in bytes
 */
export function createMemory(size: number, alignment: number, hugePages: HugePages): RangeMemory {
  if (hugePages !== 'never') {
    try {
      return mapNow(
        new SharedFile(createSharedMemory(size, { hugePageSize: HUGE_PAGE })),
        0,
        size,
        alignment,
      );
    } catch (error) {
      // mmap reserves the huge pages, so a lack of them shows here and not as a fault later.
      if (hugePages === 'always') throw error;
    }
  }
  return mapNow(new SharedFile(createSharedMemory(size)), 0, size, alignment);
}

/**
 * Takes parts of the caller's files, through one duplicate of each descriptor. To be used within one turn, as the caller
 * may give a number to another file later.
 */
export class BorrowedFiles {
  readonly #files = new Map<number, SharedFile>();

  /**
   * A part of a file. The first part of each is mapped at once, which tells whether it can be; of the others it is
   * checked that they are within the file.
   *
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM (EBADF, EMFILE; ENXIO, EACCES and others of `mmap`); RangeError
   */
  take(fd: number, offset: number, size: number): RangeMemory {
    const known = this.#files.get(fd);
    if (known !== undefined && offset >= 0 && offset + size <= known.size)
      return new RangeMemory(known, offset, size);
    // Also the parts of a device, and those that are not within the file, for the error.
    const file = known ?? new SharedFile(duplicateFd(fd));
    const memory = mapNow(file, offset, size, 0);
    this.#files.set(fd, file);
    return memory;
  }
}

function mapNow(file: SharedFile, offset: number, size: number, alignment: number): RangeMemory {
  const memory = new RangeMemory(file, offset, size);
  try {
    memory.map(alignment);
    return memory;
  } catch (error) {
    memory.close();
    throw error;
  }
}
