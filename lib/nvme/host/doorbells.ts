// SPDX-License-Identifier: MIT
import { VfioUserError, asError, type VfioUserErrorCode } from '../../errors';
import type { DeviceRegion } from '../../pci/device';
import { Register } from '../spec';

/** Errors of a message to a device that has stopped, has gone, or was closed. */
const UNANSWERED: ReadonlySet<VfioUserErrorCode> = new Set<VfioUserErrorCode>([
  'ERR_VFIO_USER_TIMEOUT',
  'ERR_VFIO_USER_DISCONNECTED',
  'ERR_VFIO_USER_CLOSED',
]);

/** Where a queue pair writes its doorbells. */
export interface Doorbells {
  /** Tells of new entries in a submission queue: after everything that was stored before. */
  tail(queueId: number, value: number): void;
  /** Tells of entries of a completion queue that are free again. */
  head(queueId: number, value: number): void;
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

  /** Index in the mapped words of a submission queue's tail. */
  tailIndex(queueId: number): number {
    return (queueId * 2) << this.#shift;
  }

  /** Index in the mapped words of a completion queue's head. */
  headIndex(queueId: number): number {
    return (queueId * 2 + 1) << this.#shift;
  }

  /** Atomics.store orders the doorbell after the submission entries on every architecture (NVMe base 2.0, 3.3.1.1). */
  tail(queueId: number, value: number): void {
    Atomics.store(this.#words, this.tailIndex(queueId), value);
  }

  /**
   * A plain store: the loads of the entries that it frees have decided that it is made, so no processor makes it before
   * them. Where a tail follows, both leave together; they share a cache line, which the controller polls.
   */
  head(queueId: number, value: number): void {
    this.#words[this.headIndex(queueId)] = value;
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

  tail(queueId: number, value: number): void {
    this.#write(queueId * 2, value);
  }

  head(queueId: number, value: number): void {
    this.#write(queueId * 2 + 1, value);
  }

  #write(slot: number, value: number): void {
    this.#region.write32Sync(Register.doorbells + slot * this.#stride, value);
  }
}

/**
 * Doorbells by REGION_WRITE messages whose answers are not waited for, so that a device that has stopped does not block the
 * thread. Without an answer there is no error: that commands are not completed, or the device's event `close`, tells the
 * same. The thread must get to its event loop every few milliseconds, where the answers are taken.
 */
export class SentDoorbells implements Doorbells {
  readonly #region: DeviceRegion;
  readonly #stride: number;
  #failure: Error | undefined;

  constructor(region: DeviceRegion, dstrd: number) {
    this.#region = region;
    this.#stride = 4 << dstrd;
  }

  /** @throws what the device had against an earlier doorbell */
  tail(queueId: number, value: number): void {
    this.#write(queueId * 2, value);
  }

  /** @throws as {@link tail} */
  head(queueId: number, value: number): void {
    this.#write(queueId * 2 + 1, value);
  }

  #write(slot: number, value: number): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#region.write32(Register.doorbells + slot * this.#stride, value).catch((error: unknown) => {
      if (error instanceof VfioUserError && UNANSWERED.has(error.code)) return;
      this.#failure ??= asError(error);
    });
  }
}
