// SPDX-License-Identifier: MIT
import {
  BROADCAST_NSID,
  type Command,
  CommandSetId,
  NAMESPACE_DATA_BYTES,
  NamespaceAttachment,
  NamespaceManagement,
  type NamespaceToCreate,
  SecureErase,
  decodeControllerList,
  decodeNamespaceToCreate,
  formatCdw10,
  namespaceCdw10,
  namespaceManagementCdw11,
} from '../spec';
import type { ClientView } from './client-view';
import { type BlockSize, LBA_FORMATS } from './format';
import { CONTROLLER_ID } from './identify';
import type { Namespace } from './namespace';
import type { NamespaceSet } from './namespace-set';
import type { ResolvedOptions } from './options';
import { type Deferred, Outcome, type Reply } from './outcome';
import { type Alive, commandBytes, receive } from './transfer';

/** The index of an LBA format has its upper bits apart from the lower ones. */
const FORMAT_UPPER_SHIFT = 4;

/** The admin commands that change namespaces: Format NVM, Namespace Management, Namespace Attachment. */
export class NamespaceCommands {
  readonly #options: ResolvedOptions;
  readonly #namespaces: NamespaceSet;
  readonly #view: ClientView;

  constructor(options: ResolvedOptions, namespaces: NamespaceSet, view: ClientView) {
    this.#options = options;
    this.#namespaces = namespaces;
    this.#view = view;
  }

  /** Format NVM (NVMe base 2.0, 5.14). Blocks have no metadata, so that what is said of it does not matter. */
  format(nsid: number, cdw10: number, alive: Alive): Reply | Deferred {
    const { format, formatUpper, protection, secureErase } = formatCdw10.decode(cdw10);
    const namespaces = this.#formatted(nsid);
    if (typeof namespaces === 'number') return { outcome: namespaces };
    // FNA tells that nothing is encrypted.
    if (secureErase > SecureErase.userData) return { outcome: Outcome.invalidField };
    const blockSize = LBA_FORMATS[format | (formatUpper << FORMAT_UPPER_SHIFT)];
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
    const isKept = backend.identity === undefined || this.#namespaces.keepsFormat(namespace);
    const outcome = await this.#namespaces.format(namespace, blockSize, alive);
    if (outcome === Outcome.success && blockSize !== previous && !isKept) {
      this.#options.onWarning(
        `Namespace ${nsid} was formatted with blocks of ${blockSize} bytes. The ${backend.kind} backend does not keep that: say so when it is served the next time`,
      );
    }
    return outcome;
  }

  /** Namespace Management (NVMe base 2.0, 5.23): makes a namespace, or deletes one or all. */
  manage(command: Required<Command>, alive: Alive): Reply | Deferred {
    const { nsid, cdw10, cdw11 } = command;
    if (!this.#namespaces.manageable) return { outcome: Outcome.invalidOpcode };
    const { select } = namespaceCdw10.decode(cdw10);
    if (select === NamespaceManagement.delete) return this.#delete(nsid, alive);
    if (select !== NamespaceManagement.create || nsid !== 0) return { outcome: Outcome.invalidField };
    const { csi } = namespaceManagementCdw11.decode(cdw11);
    if (csi !== CommandSetId.nvm) return { outcome: Outcome.ioCommandSetNotSupported };
    return this.#withData(command, alive, (data) => this.#create(decodeNamespaceToCreate(data)));
  }

  /** Namespace Attachment (NVMe base 2.0, 5.22): gives a namespace to the only controller, or takes it. */
  attachment(command: Required<Command>, alive: Alive): Reply | Deferred {
    const namespaces = this.#namespaces;
    if (!namespaces.manageable) return { outcome: Outcome.invalidOpcode };
    const { nsid, cdw10 } = command;
    const { select } = namespaceCdw10.decode(cdw10);
    if (select > NamespaceAttachment.detach) return { outcome: Outcome.invalidField };
    return this.#withData(command, alive, async (data) => {
      const namespace = namespaces.findAllocated(nsid);
      if (namespace === null) return { outcome: namespaces.absence(nsid) };
      const controllers = decodeControllerList(data);
      if (controllers?.length !== 1 || controllers[0] !== CONTROLLER_ID) {
        return { outcome: Outcome.controllerListInvalid };
      }
      if (namespace.formatting !== null) return { outcome: Outcome.formatInProgress };
      const attached = select === NamespaceAttachment.attach;
      if (namespace.attached === attached)
        return { outcome: attached ? Outcome.namespaceAlreadyAttached : Outcome.namespaceNotAttached };
      return { outcome: await namespaces.setAttached(namespace, attached) };
    });
  }

  /** Runs a command that has data from the host. */
  #withData(
    { prp1, prp2 }: Required<Command>,
    alive: Alive,
    use: (data: Uint8Array) => Reply | Promise<Reply>,
  ): Deferred {
    const length = NAMESPACE_DATA_BYTES;
    const run = async (): Promise<Reply> => {
      const data = await receive(this.#view, { prp1, prp2 }, length, alive);
      if (typeof data === 'number') return { outcome: data };
      return alive.commit() ? use(data) : { outcome: Outcome.internalError };
    };
    return { bytes: commandBytes(length), run };
  }

  async #create({ nsze, ncap, flbas, ...fields }: NamespaceToCreate): Promise<Reply> {
    const { dps, nmic, anagrpid, nvmsetid, endgid } = fields;
    const blockSize = LBA_FORMATS[(flbas & 0xf) | (((flbas >>> 5) & 3) << FORMAT_UPPER_SHIFT)];
    if (blockSize === undefined || dps !== 0) return { outcome: Outcome.invalidFormat };
    if (anagrpid !== 0) return { outcome: Outcome.anaGroupIdInvalid };
    // There is one controller, which no namespace has to be shared with, and there are neither NVM sets nor endurance groups.
    if (nmic !== 0 || nvmsetid !== 0 || endgid !== 0) return { outcome: Outcome.invalidField };
    if (nsze === 0n || ncap > nsze) return { outcome: Outcome.invalidField };
    if (ncap < nsze) return { outcome: Outcome.thinProvisioningNotSupported };
    const size = Number(nsze) * blockSize;
    const made = await this.#namespaces.create(size, blockSize);
    if (typeof made !== 'number') return { outcome: Outcome.success, dw0: made.nsid };
    // The error log tells how much is needed. What it cannot tell is beyond every capacity.
    const specific = made === Outcome.insufficientCapacity ? Math.min(size, Number.MAX_SAFE_INTEGER) : 0;
    return { outcome: made, specific };
  }

  #delete(nsid: number, alive: Alive): Reply | Deferred {
    const set = this.#namespaces;
    const all = nsid === BROADCAST_NSID;
    const namespace = set.findAllocated(nsid);
    if (namespace === null && !all) return { outcome: set.absence(nsid) };
    const chosen = all ? set.allocated.filter((each) => set.isCreated(each)) : [namespace as Namespace];
    // The data of the others is that of whoever serves them.
    if (!chosen.every((each) => set.isCreated(each))) return { outcome: Outcome.operationDenied };
    if (chosen.some(({ formatting }) => formatting !== null)) return { outcome: Outcome.formatInProgress };
    const run = async (): Promise<Reply> => {
      if (!alive.commit()) return { outcome: Outcome.internalError };
      // That the data could not be made durable does not matter any more, nor that somebody else has deleted one.
      await Promise.allSettled(chosen.map((each) => set.remove(each.nsid)));
      return { outcome: Outcome.success };
    };
    return { bytes: commandBytes(0), run };
  }
}
