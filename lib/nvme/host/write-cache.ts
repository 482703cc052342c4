// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../errors';

/**
 * What is known of a controller's volatile write cache: whether writes were acknowledged that no Flush has covered. When the
 * connection is lost they may be lost with it, and the Flush that would have covered them must not succeed on the controller that
 * comes back (NVMe base 2.0, 5.27.1.4: data in the cache is lost unless it was committed).
 */
export class WriteCache {
  readonly #name: string;
  /** Whether the controller has such a cache (VWC). Without one, what is acknowledged is there. */
  volatile = false;
  /** Writes that were acknowledged. */
  #acknowledged = 0;
  /** Those of them that a Flush covered. */
  #flushed = 0;
  #lost = false;

  /** @param name of the device, for messages */
  constructor(name: string) {
    this.#name = name;
  }

  /** A command that may have written was completed with success. */
  acknowledge(): void {
    this.#acknowledged++;
  }

  /** What a Flush that is sent now covers, to be told to {@link flushed}. */
  get covered(): number {
    return this.#acknowledged;
  }

  /** A Flush was completed with success. */
  flushed(covered: number): void {
    if (covered > this.#flushed) this.#flushed = covered;
  }

  /** The connection was lost. */
  disconnected(): void {
    if (this.volatile && this.#acknowledged > this.#flushed) this.#lost = true;
    this.#flushed = this.#acknowledged;
  }

  /** The error of the next Flush, once: null when nothing can have been lost. */
  takeLoss(): VfioUserError | null {
    if (!this.#lost) return null;
    this.#lost = false;
    return new VfioUserError(
      'ERR_VFIO_USER_DISCONNECTED',
      `Flush: ${this.#name} was lost, and came back, after writes that no Flush had covered; ` +
        'they may be gone. Write again what was written since the last Flush, and flush again',
    );
  }
}
