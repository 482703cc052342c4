// SPDX-License-Identifier: MIT
import { Feature } from '../spec';
import { Outcome } from './outcome';

const HOST_BEHAVIOR_BYTES = 512;
/** ACRE, ETDAS and LBAFEE: each is 0 or 1, and what follows is reserved (NVMe base 2.0, 5.27.1.18). */
const HOST_BEHAVIOR_FIELDS = 3;
const TIMESTAMP_BYTES = 8;
/** Bytes of the milliseconds of a timestamp, and what the byte behind them says: a host has set it (NVMe base 2.0, 5.27.1.11). */
const MILLISECONDS_BYTES = 6;
const SET_BY_HOST = 0x02;

/** The features whose value is a data structure, which a command transfers. */
export class DataFeatures {
  #hostBehavior = new Uint8Array(HOST_BEHAVIOR_BYTES);
  /** What has to be added to the clock for the timestamp, in milliseconds: it counts from when the controller was made, until it is set. */
  #offset = -performance.now();
  #timestampSet = false;

  /** Bytes of a feature; 0 for one that has no data structure. */
  bytes(feature: number): number {
    if (feature === Feature.hostBehavior) return HOST_BEHAVIOR_BYTES;
    return feature === Feature.timestamp ? TIMESTAMP_BYTES : 0;
  }

  /** The value of a feature: the one in use, or the one after power-on. */
  get(feature: number, inUse: boolean): Uint8Array {
    if (feature === Feature.hostBehavior) {
      return inUse ? this.#hostBehavior : new Uint8Array(HOST_BEHAVIOR_BYTES);
    }
    const bytes = new Uint8Array(TIMESTAMP_BYTES);
    if (!inUse) return bytes;
    const milliseconds = BigInt(Math.floor(performance.now() + this.#offset));
    new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(8 * MILLISECONDS_BYTES, milliseconds), true);
    bytes[MILLISECONDS_BYTES] = this.#timestampSet ? SET_BY_HOST : 0;
    return bytes;
  }

  /** Sets a feature. Returns an {@link Outcome}. */
  set(feature: number, data: Uint8Array): number {
    if (feature === Feature.hostBehavior) {
      const valid = data.every((byte, index) => byte <= (index < HOST_BEHAVIOR_FIELDS ? 1 : 0));
      if (valid) this.#hostBehavior = data.slice();
      return valid ? Outcome.success : Outcome.invalidField;
    }
    const view = new DataView(data.buffer, data.byteOffset, TIMESTAMP_BYTES);
    const milliseconds = BigInt.asUintN(8 * MILLISECONDS_BYTES, view.getBigUint64(0, true));
    this.#offset = Number(milliseconds) - performance.now();
    this.#timestampSet = true;
    return Outcome.success;
  }

  /** A controller reset. The timestamp goes on. */
  reset(): void {
    this.#hostBehavior = new Uint8Array(HOST_BEHAVIOR_BYTES);
  }
}
