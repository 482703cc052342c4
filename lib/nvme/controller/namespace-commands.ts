// SPDX-License-Identifier: MIT
import { BROADCAST_NSID, SecureErase, formatCdw10 } from '../spec';
import { type BlockSize, LBA_FORMATS } from './format';
import type { Namespace } from './namespace';
import type { NamespaceSet } from './namespace-set';
import type { ResolvedOptions } from './options';
import { type Deferred, Outcome, type Reply } from './outcome';
import { type Alive, commandBytes } from './transfer';

/** The admin commands that change namespaces: Format NVM. */
export class NamespaceCommands {
  readonly #options: ResolvedOptions;
  readonly #namespaces: NamespaceSet;

  constructor(options: ResolvedOptions, namespaces: NamespaceSet) {
    this.#options = options;
    this.#namespaces = namespaces;
  }

  /** Format NVM (NVMe base 2.0, 5.14). Blocks have no metadata, so that what is said of it does not matter. */
  format(nsid: number, cdw10: number, alive: Alive): Reply | Deferred {
    const { format, formatUpper, protection, secureErase } = formatCdw10.decode(cdw10);
    const namespaces = this.#formatted(nsid);
    if (typeof namespaces === 'number') return { outcome: namespaces };
    // FNA tells that nothing is encrypted.
    if (secureErase > SecureErase.userData) return { outcome: Outcome.invalidField };
    const blockSize = LBA_FORMATS[format | (formatUpper << 4)];
    if (blockSize === undefined || protection !== 0) return { outcome: Outcome.invalidFormat };
    if (!namespaces.every((namespace) => namespace.offers(blockSize)))
      return { outcome: Outcome.invalidFormat };
    if (namespaces.some(({ formatting }) => formatting !== null))
      return { outcome: Outcome.formatInProgress };
    const run = async (): Promise<Reply> => {
      if (!alive.commit()) return { outcome: Outcome.internalError };
      const outcomes = await Promise.all(
        namespaces.map((namespace) => this.#format(namespace, blockSize, alive)),
      );
      return { outcome: outcomes.find((outcome) => outcome !== Outcome.success) ?? Outcome.success };
    };
    return { bytes: commandBytes(0), run };
  }

  /** The namespaces that a format is of: one, attached or not, or all that are attached. An {@link Outcome} when there is none. */
  #formatted(nsid: number): readonly Namespace[] | number {
    if (nsid === BROADCAST_NSID) return this.#namespaces.active;
    const namespace = this.#namespaces.findAllocated(nsid);
    return namespace === null ? this.#namespaces.absence(nsid) : [namespace];
  }

  async #format(namespace: Namespace, blockSize: BlockSize, alive: Alive): Promise<number> {
    const { blockSize: previous, backend, nsid } = namespace;
    const outcome = await this.#namespaces.format(namespace, blockSize, alive);
    if (outcome === Outcome.success && blockSize !== previous && backend.identity !== undefined) {
      this.#options.onWarning(
        `Namespace ${nsid} was formatted with blocks of ${blockSize} bytes. The ${backend.kind} backend does not keep that: say so when it is served the next time`,
      );
    }
    return outcome;
  }
}
