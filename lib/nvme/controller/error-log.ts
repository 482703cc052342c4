// SPDX-License-Identifier: MIT
import { type ErrorLogEntry, encodeErrorLog } from '../spec';

/** Entries that are kept. ELPE is this less one. */
export const ERROR_LOG_ENTRIES = 64;

/** Says in fields of 16 bits that there is no command, or that it is not known (NVMe base 2.0, 5.16.1.2). */
export const NOT_KNOWN = 0xffff;

/** The log page Error Information, 01h: the last errors, of which the newest comes first (NVMe base 2.0, 5.16.1.2). */
export class ErrorLog {
  readonly #entries: Partial<ErrorLogEntry>[] = [];
  #count = 0;

  /** Errors since the controller was made. */
  get count(): number {
    return this.#count;
  }

  /**
   * Logs an error.
   *
   * @param sqId queue of the command; {@link NOT_KNOWN} when no command has caused the error
   * @param cid id of the command; {@link NOT_KNOWN} when no command has caused the error
   * @param status 15-bit status field of its completion
   * @param lba first logical block of the command, if it has any
   * @param specific command specific information
   */
  add(sqId: number, cid: number, status: number, nsid: number, lba = 0, specific = 0): void {
    this.#count++;
    this.#entries.unshift({
      error_count: BigInt(this.#count),
      sqid: sqId,
      cmdid: cid,
      status_field: status,
      parm_error_location: NOT_KNOWN,
      nsid,
      lba: BigInt(lba),
      cs: BigInt(specific),
    });
    if (this.#entries.length > ERROR_LOG_ENTRIES) this.#entries.pop();
  }

  /** The log page. */
  encode(): Uint8Array {
    return encodeErrorLog(this.#entries, ERROR_LOG_ENTRIES);
  }
}
