// SPDX-License-Identifier: MIT
import { asError } from '../../errors';
import type { FeatureSet } from './feature-set';
import type { Namespace } from './namespace';
import { Outcome } from './outcome';

/** FUA, bit 30 of CDW12. */
const FORCE_UNIT_ACCESS = 1 << 30;

/** Which writes are complete only when they are durable (NVMe base 2.0, 5.27.1.4; NVM command set 1.0, 3.2.6), and making them so. */
export class Durability {
  readonly #features: Pick<FeatureSet, 'writeThrough'>;
  readonly #onWarning: (reason: string) => void;

  /** @param onWarning told why a flush has failed */
  constructor(features: Pick<FeatureSet, 'writeThrough'>, onWarning: (reason: string) => void) {
    this.#features = features;
    this.#onWarning = onWarning;
  }

  /** Whether a write is complete only when it is durable. */
  isAsked(namespace: Namespace, cdw12: number): boolean {
    return (
      namespace.backend.volatileCache && ((cdw12 & FORCE_UNIT_ACCESS) !== 0 || this.#features.writeThrough)
    );
  }

  /** Makes durable what was written to a namespace. Returns an {@link Outcome}: that is all that the host can be told. */
  async make(namespace: Namespace): Promise<number> {
    try {
      await namespace.flush();
      return Outcome.success;
    } catch (error) {
      this.#onWarning(`Namespace ${namespace.nsid} was not made durable: ${asError(error).message}`);
      return Outcome.writeFault;
    }
  }
}
