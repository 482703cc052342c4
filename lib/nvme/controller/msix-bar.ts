// SPDX-License-Identifier: MIT
import { CommandError, Errno } from '../../transport';
import type { ServedRegion } from '../../server/device-model';

/** Offset of the pending bit array in the BAR: a page of its own, so that a hypervisor can trap it alone. */
export const PBA_OFFSET = 0x1000;
/** Bytes of the BAR. */
export const MSIX_BAR_BYTES = 0x2000;

const ENTRY_BYTES = 16;

/**
 * The BAR with the MSI-X table and the pending bit array (PCI Local Bus 3.0, 6.8.2).
 *
 * A client of vfio-user delivers interrupts itself: the table only keeps what is written, and nothing is pending
 * here, since the server keeps masked vectors.
 */
export class MsixBar implements ServedRegion {
  readonly size = MSIX_BAR_BYTES;
  readonly #table: Uint8Array;

  /** @param vectors 1 to 256 */
  constructor(vectors: number) {
    this.#table = new Uint8Array(vectors * ENTRY_BYTES);
    this.reset();
  }

  /** All vectors are masked, by bit 0 of Vector Control. */
  reset(): void {
    this.#table.fill(0);
    for (let at = 12; at < this.#table.length; at += ENTRY_BYTES) this.#table[at] = 1;
  }

  read(offset: number, data: Uint8Array): void {
    data.set(this.#table.subarray(offset, offset + data.length));
  }

  /** @throws CommandError EINVAL for other accesses than of 4 or 8 aligned bytes */
  write(offset: number, data: Uint8Array): void {
    if ((data.length !== 4 && data.length !== 8) || offset % data.length !== 0) {
      throw new CommandError(
        Errno.EINVAL,
        `The MSI-X table is written by 4 or 8 aligned bytes, not by ${data.length} at ${offset}`,
      );
    }
    if (offset + data.length <= this.#table.length) this.#table.set(data, offset);
  }
}
