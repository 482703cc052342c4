// SPDX-License-Identifier: MIT
import { type ErrorLogEntry, encodeErrorLog } from '../spec';

/** Entries that are kept; ELPE is this less one. */
export const ERROR_LOG_ENTRIES = 64;

/** "No command" and "not known" in fields of 16 bits (NVMe base 2.0, 5.16.1.2). */
export const NOT_KNOWN = 0xffff;

/** Error Information, log page 01h: the last errors, newest first. */
export class ErrorLog {
  readonly #entries: Partial<ErrorLogEntry>[] = [];
  #count = 0;

  /** Errors since the controller was made. */
  get count(): number {
    return this.#count;
  }

  /**
   * @param sqId {@link NOT_KNOWN} when no command caused it
   * @param cid as `sqId`
   * @param status 15-bit status field
   */
  add(sqId: number, cid: number, status: number, nsid: number, lba = 0): void {
    this.#count++;
    this.#entries.unshift({
      error_count: BigInt(this.#count),
      sqid: sqId,
      cmdid: cid,
      status_field: status,
      parm_error_location: NOT_KNOWN,
      nsid,
      lba: BigInt(lba),
    });
    if (this.#entries.length > ERROR_LOG_ENTRIES) this.#entries.pop();
  }

  encode(): Uint8Array {
    return encodeErrorLog(this.#entries, ERROR_LOG_ENTRIES);
  }
}
