// SPDX-License-Identifier: MIT
import type { DeviceRegion } from '../../pci/device';
import { Register } from '../spec';

/** Where a queue pair writes its doorbells. `slot` is `2 * queueId`, plus 1 for the completion queue's head. */
export interface Doorbells {
  write(slot: number, value: number): void;
}

/** Doorbells in a mapped page of BAR 0: one store, no message. */
export class MappedDoorbells implements Doorbells {
  readonly #words: Uint32Array;
  readonly #shift: number;

  /**
   * @param words the mapped doorbells; word 0 is the admin submission queue's tail
   * @param dstrd CAP.DSTRD
   */
  constructor(words: Uint32Array, dstrd: number) {
    this.#words = words;
    this.#shift = dstrd;
  }

  /** Atomics.store orders the doorbell after the submission entries on every architecture (NVMe base 2.0, 3.3.1.1). */
  write(slot: number, value: number): void {
    Atomics.store(this.#words, slot << this.#shift, value);
  }
}

/** Doorbells by REGION_WRITE messages, for devices that do not let BAR 0 be mapped. Blocks until the device has answered. */
export class MessageDoorbells implements Doorbells {
  readonly #region: DeviceRegion;
  readonly #stride: number;

  constructor(region: DeviceRegion, dstrd: number) {
    this.#region = region;
    this.#stride = 4 << dstrd;
  }

  write(slot: number, value: number): void {
    this.#region.writeSync(Register.doorbells + slot * this.#stride, 4, value);
  }
}
