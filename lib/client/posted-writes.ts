// SPDX-License-Identifier: MIT
import {
  Command,
  encodeRegionWriteMultiRequest,
  encodeRegionWriteRequest,
  type SmallRegionWrite,
} from '../protocol';
import type { Link } from './link';

/** How many writes to regions were posted (vfio-user, "Header", No_reply). */
export interface PostedWriteStatistics {
  /** Writes that were sent without asking for a reply. */
  postedWrites: number;
  /** Those of them that shared a REGION_WRITE_MULTI with others. */
  coalescedWrites: number;
}

/** Largest write that fits into a REGION_WRITE_MULTI, in bytes. */
const MAX_COALESCED = 8;
/** Writes in one REGION_WRITE_MULTI: as many as QEMU puts into one (`VFIO_USER_MULTI_MAX`). */
const MAX_WRITES = 200;

/**
 * Region writes that no reply is asked for (vfio-user, "Header", No_reply).
 *
 * When the server takes REGION_WRITE_MULTI, small writes that would have to wait for the socket are collected into one
 * message. It leaves before any other message, so that the order of the calls holds.
 */
export class PostedWrites {
  readonly statistics: PostedWriteStatistics = { postedWrites: 0, coalescedWrites: 0 };
  readonly #link: Link;
  readonly #multiple: boolean;
  #waiting: SmallRegionWrite[] = [];

  /** @param multiple whether the server takes REGION_WRITE_MULTI */
  constructor(link: Link, multiple: boolean) {
    this.#link = link;
    this.#multiple = multiple;
  }

  /**
   * Sends a write. `data` may be reused at once.
   *
   * @returns false when much is queued and the caller should wait for room
   * @throws VfioUserError ERR_VFIO_USER_DISCONNECTED or CLOSED
   */
  write(region: number, offset: number, data: Uint8Array): boolean {
    const { connection } = this.#link;
    const collects =
      this.#multiple && data.byteLength <= MAX_COALESCED && connection.backlogged && !connection.closed;
    if (collects) this.#collect({ region, offset, data: data.slice() });
    else this.#post(region, offset, data);
    this.statistics.postedWrites++;
    return !connection.full;
  }

  /** Drops what was collected, when the connection has ended. */
  drop(): void {
    this.#waiting = [];
  }

  #collect(write: SmallRegionWrite): void {
    if (this.#waiting.length === MAX_WRITES) this.#emit();
    if (this.#waiting.length === 0) {
      this.#link.connection.hold(() => {
        this.#emit();
      });
    }
    this.#waiting.push(write);
  }

  #emit(): void {
    const writes = this.#waiting;
    this.#waiting = [];
    const [first, second] = writes;
    if (first === undefined) return;
    if (second === undefined) {
      this.#post(first.region, first.offset, first.data);
      return;
    }
    this.statistics.coalescedWrites += writes.length;
    this.#link.post(Command.regionWriteMulti, encodeRegionWriteMultiRequest(writes));
  }

  #post(region: number, offset: number, data: Uint8Array): void {
    const access = encodeRegionWriteRequest({ region, offset, count: data.byteLength });
    this.#link.post(Command.regionWrite, access, data);
  }
}
