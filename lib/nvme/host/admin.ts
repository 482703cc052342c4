// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../../errors';
import {
  AdminOpcode,
  BROADCAST_NSID,
  CHANGED_NAMESPACES_BYTES,
  COMMAND_EFFECTS_LOG_BYTES,
  CommandSetId,
  ERROR_LOG_ENTRY_BYTES,
  FIRMWARE_SLOT_LOG_BYTES,
  Feature,
  FeatureSelect,
  IDENTIFY_BYTES,
  IdentifyCns,
  LogPage,
  SMART_LOG_BYTES,
  SUPPORTED_LOG_PAGES_BYTES,
  asyncEvent,
  decodeChangedNamespaces,
  decodeCommandEffectsLog,
  decodeErrorLog,
  decodeFirmwareSlotLog,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeIdentifyNvmController,
  decodeNamespaceDescriptors,
  decodeNamespaceList,
  decodeSmartLog,
  decodeSupportedLogPages,
  encodeLogPageRequest,
  featureCapabilities,
  featureWords,
  getFeaturesCdw10,
  getLogPageCdw14,
  identifyCdw10,
  identifyCdw11,
  setFeaturesCdw10,
  type AsyncEvent,
  type CommandEffectsLog,
  type ErrorLogEntry,
  type FeatureCapabilities,
  type FeatureName,
  type FeatureValues,
  type FirmwareSlotLog,
  type IdentifyController,
  type IdentifyNamespace,
  type IdentifyNvmController,
  type NamespaceDescriptors,
  type SmartLog,
  type WordCodec,
} from '../spec';
import type {
  CreateNamespaceOptions,
  FormatOptions,
  GetFeatureOptions,
  IdentifyOptions,
  LogPageOptions,
  SetFeatureOptions,
} from './admin-options';
import type { AdminCommand, AdminCompletion, AdminQueue, AdminWait } from './admin-queue';
import { NVME_PAGE } from './dma-arena';
import { attachmentCommand, createCommand, deleteCommand, formatCommand } from './namespace-commands';

/** Bytes of a log page that are asked for at once: what every controller transfers, whatever its MDTS. */
const LOG_CHUNK = NVME_PAGE;

/**
 * The admin commands of a controller, by name (NVMe base 2.0, 5). Made by the controller: `nvme.admin`.
 *
 * All of them reject with an `NvmeStatusError` when the controller completes the command with an error status, with a
 * `VfioUserError` when it does not complete it in time (`ERR_VFIO_USER_TIMEOUT`), has failed or is closed, and with a
 * `RangeError` when an argument does not fit its field of the command.
 *
 * @example
 * const { mn, sn } = await nvme.admin.identifyController();
 * const { temperature, percent_used } = await nvme.admin.smartLog();
 * console.log(`${mn} ${sn}: ${temperature - 273} degrees, ${percent_used} % used`);
 * await nvme.admin.setFeature('temperatureThreshold', { threshold: 273 + 60 });
 * const { threshold } = await nvme.admin.getFeature('temperatureThreshold', { select: 'default' });
 * // Any command, word by word: Identify, the list of the active namespaces.
 * const { data } = await nvme.admin.command({ opcode: AdminOpcode.identify, cdw10: IdentifyCns.activeNamespaces, read: 4096 });
 */
export class NvmeAdmin {
  readonly #queue: AdminQueue;

  /** @internal */
  constructor(queue: AdminQueue) {
    this.#queue = queue;
  }

  /**
   * Runs any admin command. Beyond the ranges of its fields it is not checked, and the driver does not learn what it changes: a
   * command that deletes the driver's queues breaks it.
   *
   * @throws TypeError when more than one of `read`, `write` and PRPs is given; VfioUserError ERR_VFIO_USER_DMA when the memory of
   *   the controller (`arenaSize` of `attach`) has no room for the data
   */
  command(command: AdminCommand): Promise<AdminCompletion> {
    return this.#queue.transfer(command);
  }

  /**
   * Reads any data structure of Identify (NVMe base 2.0, 5.17).
   *
   * @param cns a value of `IdentifyCns`, 0 to 255
   * @returns its 4096 bytes
   */
  async identify(cns: number, options: IdentifyOptions = {}): Promise<Uint8Array> {
    const { nsid = 0, controllerId = 0, csi = CommandSetId.nvm, cnsSpecific = 0, timeout, signal } = options;
    const { data } = await this.command({
      opcode: AdminOpcode.identify,
      nsid,
      cdw10: identifyCdw10.encode({ cns, controllerId }),
      cdw11: identifyCdw11.encode({ csi, cnsSpecific }),
      read: IDENTIFY_BYTES,
      timeout,
      signal,
    });
    return data;
  }

  /** What the controller is and can do (CNS 01h; NVMe base 2.0, 5.17.2.1). */
  async identifyController(): Promise<IdentifyController> {
    return decodeIdentifyController(await this.identify(IdentifyCns.controller));
  }

  /** Limits of the commands of the NVM command set (CNS 06h). Controllers older than version 2.0 do not have it. */
  async identifyNvmController(): Promise<IdentifyNvmController> {
    return decodeIdentifyNvmController(await this.identify(IdentifyCns.commandSetController));
  }

  /**
   * Size and formats of a namespace (CNS 00h).
   *
   * @param nsid 1 to FFFFFFFEh; FFFFFFFFh for what all namespaces have in common
   * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED when a size is above 2^53 - 1 blocks
   */
  async identifyNamespace(nsid: number): Promise<IdentifyNamespace> {
    return decodeIdentifyNamespace(await this.identify(IdentifyCns.namespace, { nsid }));
  }

  /**
   * Ids of the active namespaces in rising order (CNS 02h; NVMe base 2.0, 5.17.2.2).
   *
   * @param after only ids above this one are listed; default 0
   * @returns at most 1024 ids. Ask again with the last one as `after` for those that follow
   */
  async activeNamespaces(after = 0): Promise<number[]> {
    return decodeNamespaceList(await this.identify(IdentifyCns.activeNamespaces, { nsid: after }));
  }

  /** EUI64, NGUID, UUID and command set of a namespace, as far as it has them (CNS 03h; NVMe base 2.0, 5.17.2.3). */
  async namespaceDescriptors(nsid: number): Promise<NamespaceDescriptors> {
    return decodeNamespaceDescriptors(await this.identify(IdentifyCns.namespaceDescriptors, { nsid }));
  }

  /**
   * Reads any log page (NVMe base 2.0, 5.16), 4 KiB at a time.
   *
   * @param page a value of `LogPage`, 0 to 255
   * @param length bytes to read, a multiple of 4
   */
  async getLogPage(page: number, length: number, options: LogPageOptions = {}): Promise<Uint8Array> {
    const { nsid = 0, offset = 0, specific = 0, specificId = 0, csi = CommandSetId.nvm } = options;
    if (!Number.isSafeInteger(length / 4) || length < 4) {
      throw outOfRange(`${length} bytes of a log page are wanted; the length is a multiple of 4`);
    }
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; at += LOG_CHUNK) {
      const part = Math.min(LOG_CHUNK, length - at);
      const [cdw10, cdw11, cdw12, cdw13] = encodeLogPageRequest({
        page,
        specific,
        specificId,
        // The event stands for the whole page.
        retainEvent: options.retainEvent === true || at + part < length,
        length: part,
        offset: offset + at,
      });
      const cdw14 = getLogPageCdw14.encode({ csi });
      const { timeout, signal } = options;
      const command = { opcode: AdminOpcode.getLogPage, nsid, cdw10, cdw11, cdw12, cdw13, cdw14 };
      bytes.set((await this.command({ ...command, read: part, timeout, signal })).data, at);
    }
    return bytes;
  }

  /**
   * The last errors, newest first (log page 01h; NVMe base 2.0, 5.16.1.2).
   *
   * @param entries how many of them at most. Default: as many as the controller keeps (ELPE), which takes another command
   */
  async errorLog(entries?: number): Promise<ErrorLogEntry[]> {
    const count = entries ?? (await this.identifyController()).elpe + 1;
    return decodeErrorLog(await this.getLogPage(LogPage.error, count * ERROR_LOG_ENTRY_BYTES));
  }

  /**
   * Health and usage (log page 02h; NVMe base 2.0, 5.16.1.3).
   *
   * @param nsid default FFFFFFFFh, the controller. Some controllers keep it for each namespace (bit 0 of `lpa`)
   */
  async smartLog(nsid: number = BROADCAST_NSID): Promise<SmartLog> {
    return decodeSmartLog(await this.getLogPage(LogPage.smart, SMART_LOG_BYTES, { nsid }));
  }

  /** The firmware slots and what is in them (log page 03h; NVMe base 2.0, 5.16.1.4). */
  async firmwareSlotLog(): Promise<FirmwareSlotLog> {
    return decodeFirmwareSlotLog(await this.getLogPage(LogPage.firmwareSlot, FIRMWARE_SLOT_LOG_BYTES));
  }

  /**
   * Ids of the namespaces that have changed since this page was read last, which clears it (log page 04h; NVMe base 2.0,
   * 5.16.1.5). `all` when there are more than 1024.
   */
  async changedNamespaces(): Promise<number[] | 'all'> {
    const page = await this.getLogPage(LogPage.changedNamespaces, CHANGED_NAMESPACES_BYTES);
    return decodeChangedNamespaces(page);
  }

  /**
   * The commands that the controller has, and what they affect (log page 05h; NVMe base 2.0, 5.16.1.6).
   *
   * @param csi the command set whose I/O commands are told, a value of `CommandSetId`; default 0, the NVM command set
   */
  async commandEffectsLog(csi: number = CommandSetId.nvm): Promise<CommandEffectsLog> {
    const page = await this.getLogPage(LogPage.commandEffects, COMMAND_EFFECTS_LOG_BYTES, { csi });
    return decodeCommandEffectsLog(page);
  }

  /** Identifiers of the log pages that the controller has, in rising order (log page 00h; NVMe base 2.0, 5.16.1.1). */
  async supportedLogPages(): Promise<number[]> {
    const page = await this.getLogPage(LogPage.supportedLogPages, SUPPORTED_LOG_PAGES_BYTES);
    return decodeSupportedLogPages(page);
  }

  /**
   * Reads a feature (Get Features; NVMe base 2.0, 5.15).
   *
   * @param feature its name, or its identifier, 0 to 255
   * @returns the decoded value; for an identifier dword 0 of the completion. Features whose value is a data structure, such as
   *   Timestamp, are read with {@link command}
   */
  async getFeature<N extends FeatureName>(
    feature: N,
    options?: GetFeatureOptions<Partial<FeatureValues[N]>>,
  ): Promise<FeatureValues[N]>;
  async getFeature(feature: number, options?: GetFeatureOptions): Promise<number>;
  async getFeature(
    feature: FeatureName | number,
    options: GetFeatureOptions<object | number> = {},
  ): Promise<unknown> {
    const { select = 'current', nsid = 0, argument = 0 } = options;
    const { id, word } = featureOf(feature);
    const cdw10 = getFeaturesCdw10.encode({ feature: id, select: FeatureSelect[select] });
    const cdw11 = word.encode(argument);
    return word.decode(
      await this.#queue.run({ opcode: AdminOpcode.getFeatures, nsid, cdw10, cdw11 }, options),
    );
  }

  /**
   * What can be done with a feature (Get Features with SEL 3; NVMe base 2.0, 5.15).
   *
   * @param feature its name, or its identifier, 0 to 255
   */
  async featureCapabilities(feature: FeatureName | number): Promise<FeatureCapabilities> {
    const cdw10 = getFeaturesCdw10.encode({
      feature: featureOf(feature).id,
      select: FeatureSelect.supported,
    });
    return featureCapabilities.decode(await this.#queue.run({ opcode: AdminOpcode.getFeatures, cdw10 }));
  }

  /**
   * Sets a feature (Set Features; NVMe base 2.0, 5.27).
   *
   * @param feature its name, or its identifier, 0 to 255. Features whose value is a data structure, such as Timestamp, are set
   *   with {@link command}
   * @param value fields that are not given become 0, or 1 where they are counts; for an identifier CDW11
   * @returns dword 0 of the completion, which has a meaning for Number of Queues only
   */
  async setFeature<N extends FeatureName>(
    feature: N,
    value: Partial<FeatureValues[N]>,
    options?: SetFeatureOptions,
  ): Promise<number>;
  async setFeature(feature: number, value: number, options?: SetFeatureOptions): Promise<number>;
  async setFeature(
    feature: FeatureName | number,
    value: object | number,
    options: SetFeatureOptions = {},
  ): Promise<number> {
    const { save = false, nsid = 0 } = options;
    const { id, word } = featureOf(feature);
    const cdw10 = setFeaturesCdw10.encode({ feature: id, save });
    const cdw11 = word.encode(value);
    return this.#queue.run({ opcode: AdminOpcode.setFeatures, nsid, cdw10, cdw11 }, options);
  }

  /**
   * Formats namespaces: all their data is gone, and their blocks may have another size (Format NVM; NVMe base 2.0, 5.14). Controllers have
   * it or not (`oacs` of Identify Controller, bit 1). `NvmeController.rescan` learns of the new size.
   *
   * @param nsid the namespace; FFFFFFFFh for all, where `fna` of Identify Controller says so
   */
  async format(nsid: number, options: FormatOptions = {}): Promise<void> {
    await this.#queue.run(formatCommand(nsid, options), options);
  }

  /**
   * Makes a namespace, which has to be attached before it can be used (Namespace Management; NVMe base 2.0, 5.23). Controllers have
   * it or not (`oacs` of Identify Controller, bit 3); `unvmcap` tells the bytes that are left.
   *
   * @returns its id
   */
  async createNamespace(options: CreateNamespaceOptions): Promise<number> {
    return (await this.command(createCommand(options))).result;
  }

  /**
   * Deletes a namespace with all its data (Namespace Management; NVMe base 2.0, 5.23).
   *
   * @param nsid the namespace; FFFFFFFFh for all
   */
  async deleteNamespace(nsid: number, wait: AdminWait = {}): Promise<void> {
    await this.#queue.run(deleteCommand(nsid), wait);
  }

  /**
   * Attaches a namespace to controllers, which see it from then on (Namespace Attachment; NVMe base 2.0, 5.22). `NvmeController.rescan`
   * makes it one of the `namespaces`.
   *
   * @param controllers their ids (`cntlid`) in rising order. Default: this one, which takes another command
   */
  async attachNamespace(nsid: number, controllers?: readonly number[], wait: AdminWait = {}): Promise<void> {
    const ids = controllers ?? [(await this.identifyController()).cntlid];
    await this.command({ ...attachmentCommand('attach', nsid, ids), ...wait });
  }

  /** Detaches a namespace from controllers, as {@link attachNamespace} attaches it. Its data stays. */
  async detachNamespace(nsid: number, controllers?: readonly number[], wait: AdminWait = {}): Promise<void> {
    const ids = controllers ?? [(await this.identifyController()).cntlid];
    await this.command({ ...attachmentCommand('detach', nsid, ids), ...wait });
  }

  /**
   * Asks the controller to abort a command (NVMe base 2.0, 5.1). For commands of this class, a `signal` does it.
   *
   * @param sqid submission queue of the command, 0 for the admin queue
   * @param cid its command id, 0 to 65535
   * @returns whether it was aborted
   */
  abort(sqid: number, cid: number): Promise<boolean> {
    return this.#queue.abort(sqid, cid);
  }

  /** Tells the controller that the host is there, which starts the Keep Alive Timer anew (NVMe base 2.0, 5.18). */
  async keepAlive(): Promise<void> {
    await this.#queue.run({ opcode: AdminOpcode.keepAlive });
  }

  /**
   * Waits for an asynchronous event (NVMe base 2.0, 5.2), without a time-out unless one is given. `AERL` of Identify Controller
   * tells how many may be waited for. While one is, the process stays alive and looks for it a thousand times a second.
   */
  async asynchronousEvent({ timeout = Infinity, signal }: AdminWait = {}): Promise<AsyncEvent> {
    const command = { opcode: AdminOpcode.asynchronousEventRequest };
    return asyncEvent.decode(await this.#queue.run(command, { timeout, signal }));
  }
}

/** CDW11 of a feature that is given by its identifier. */
const RAW_WORD: WordCodec<number> = { decode: (word) => word, encode: (value) => value };

/** Identifier and value of a feature. */
function featureOf(feature: FeatureName | number): { id: number; word: WordCodec<unknown> } {
  if (typeof feature === 'number') return { id: feature, word: RAW_WORD };
  if (Object.hasOwn(featureWords, feature)) return { id: Feature[feature], word: featureWords[feature] };
  const names = Object.keys(featureWords).join(', ');
  throw invalidArgument(`"${feature}" is no name of a feature; there are ${names}, and identifiers`);
}
