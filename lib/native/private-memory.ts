// SPDX-License-Identifier: MIT
import { constants } from 'node:buffer';
import { outOfRange, systemError } from '../errors';
import { addon, checked } from './addon';
import { NO_MEMORY, noExternalBuffers } from './memory';

const ENOMEM = 12;
/** Bytes of a huge page that the system makes of ordinary ones: of x86-64, and of arm64 with pages of 4 KiB. */
const HUGE_PAGE = 2 ** 21;
const slotOut = new Int32Array(1);

/** Zeroed memory of this process alone. Its pages are taken from the system when they are touched. */
export class PrivateMemory {
  /** The bytes. Detached once closed. */
  readonly buffer: ArrayBuffer;
  readonly #slot: number;
  #closed = false;

  /**
   * @param length in bytes; 1 to `buffer.constants.MAX_LENGTH`
   * @param inHugePages bytes from the first on that may be taken 2 MiB at a time (transparent huge pages), which makes a random
   *   access cheaper; rounded down to whole huge pages. The system may take ordinary pages nevertheless
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (ENOMEM); `ERR_VFIO_USER_ADDON` when this runtime allows no ArrayBuffer over it
   * @throws RangeError `ERR_OUT_OF_RANGE` for another length
   */
  constructor(length: number, inHugePages = 0) {
    if (!Number.isSafeInteger(length) || length <= 0 || length > constants.MAX_LENGTH)
      throw outOfRange(`The length of memory is an integer from 1 to ${constants.MAX_LENGTH}, got ${length}`);
    const result = addon().allocate(length, inHugePages - (inHugePages % HUGE_PAGE), slotOut);
    if (result === 0) throw noExternalBuffers();
    if (typeof result === 'number')
      throw systemError(
        'mmap',
        -result,
        `Allocating ${length} bytes`,
        result === -ENOMEM ? NO_MEMORY : undefined,
      );
    this.buffer = result;
    this.#slot = slotOut[0] as number;
  }

  /** Makes bytes zero, and gives whole pages back to the system. They must lie within {@link buffer}. */
  discard(offset: number, length: number): void {
    const result = addon().discard(this.buffer, this.#slot, offset, length);
    checked(result, 'madvise', `Discarding ${length} bytes from ${offset} on`);
  }

  /** Detaches {@link buffer}, and gives the memory back. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    checked(addon().unmap(this.buffer, this.#slot), 'munmap', 'Closing memory whose buffer was detached');
  }
}
