// SPDX-License-Identifier: MIT
import {
  AdminOpcode,
  type CommandEffects,
  LogPage,
  NvmOpcode,
  encodeCommandEffectsLog,
  encodeFirmwareSlotLog,
  encodeNamespaceList,
  encodeSmartLog,
  encodeSupportedLogPages,
} from '../spec';
import type { BusyTime } from './busy-time';
import type { ErrorLog } from './error-log';
import { type FeatureSet, TEMPERATURE } from './feature-set';
import { FIRMWARE_REVISION } from './identify';
import type { NamespaceSet } from './namespace-set';
import type { Counters } from './statistics';

/** SMART counts data in thousands of units of 512 bytes, rounded up (NVMe base 2.0, 5.16.1.3). */
const DATA_UNIT = 512_000;

const SUPPORTED_PAGES = [
  LogPage.supportedLogPages,
  LogPage.error,
  LogPage.smart,
  LogPage.firmwareSlot,
  LogPage.changedNamespaces,
  LogPage.commandEffects,
];

const CHANGES_BLOCKS: Partial<CommandEffects> = { blockContentChange: true };
/** CSE: no other command for the namespace runs meanwhile. */
const ALONE_IN_NAMESPACE = 1;

const EFFECTS = {
  admin: new Map<number, Partial<CommandEffects>>([
    ...[
      AdminOpcode.deleteIoSubmissionQueue,
      AdminOpcode.createIoSubmissionQueue,
      AdminOpcode.getLogPage,
      AdminOpcode.deleteIoCompletionQueue,
      AdminOpcode.createIoCompletionQueue,
      AdminOpcode.identify,
      AdminOpcode.abort,
      AdminOpcode.setFeatures,
      AdminOpcode.getFeatures,
      AdminOpcode.asynchronousEventRequest,
      AdminOpcode.keepAlive,
    ].map((opcode): [number, Partial<CommandEffects>] => [opcode, {}]),
    [
      AdminOpcode.formatNvm,
      { blockContentChange: true, namespaceCapabilityChange: true, execution: ALONE_IN_NAMESPACE },
    ],
  ]),
  namespaces: [AdminOpcode.namespaceManagement, AdminOpcode.namespaceAttachment].map(
    (opcode): [number, Partial<CommandEffects>] => [opcode, { namespaceInventoryChange: true }],
  ),
  io: new Map<number, Partial<CommandEffects>>([
    [NvmOpcode.flush, {}],
    [NvmOpcode.write, CHANGES_BLOCKS],
    [NvmOpcode.read, {}],
    [NvmOpcode.writeUncorrectable, CHANGES_BLOCKS],
    [NvmOpcode.compare, {}],
    [NvmOpcode.writeZeroes, CHANGES_BLOCKS],
    [NvmOpcode.datasetManagement, CHANGES_BLOCKS],
    [NvmOpcode.verify, {}],
    [NvmOpcode.copy, CHANGES_BLOCKS],
  ]),
};

/** The log pages of the controller (NVMe base 2.0, 5.16). */
export class LogPages {
  readonly #errors: ErrorLog;
  readonly #features: FeatureSet;
  readonly #namespaces: NamespaceSet;
  readonly #counters: Counters;
  readonly #busy: BusyTime;
  /** Ids of the namespaces that changed since the host has read of it. */
  readonly #changed = new Set<number>();
  readonly #start = Date.now();
  readonly #effects: Uint8Array;

  /** @param shadows whether there is Doorbell Buffer Config */
  constructor(
    errors: ErrorLog,
    features: FeatureSet,
    namespaces: NamespaceSet,
    counters: Counters,
    busy: BusyTime,
    shadows: boolean,
  ) {
    const admin = new Map(EFFECTS.admin);
    if (shadows) admin.set(AdminOpcode.doorbellBufferConfig, {});
    if (namespaces.manageable) for (const [opcode, effects] of EFFECTS.namespaces) admin.set(opcode, effects);
    this.#effects = encodeCommandEffectsLog({ admin, io: EFFECTS.io });
    this.#counters = counters;
    this.#busy = busy;
    this.#errors = errors;
    this.#features = features;
    this.#namespaces = namespaces;
  }

  /** A namespace came, went or changed. */
  namespaceChanged(nsid: number): void {
    this.#changed.add(nsid);
  }

  /** A page was read without Retain Asynchronous Event. */
  pageRead(id: number): void {
    if (id === LogPage.changedNamespaces) this.#changed.clear();
  }

  /** Returns the content of a page; undefined when there is no page of that id. */
  page(id: number): Uint8Array | undefined {
    switch (id) {
      case LogPage.supportedLogPages:
        return encodeSupportedLogPages(SUPPORTED_PAGES);
      case LogPage.error:
        return this.#errors.encode();
      case LogPage.smart:
        return this.#smart();
      case LogPage.firmwareSlot:
        return encodeFirmwareSlotLog({ activeSlot: 1, nextSlot: 0, revisions: [FIRMWARE_REVISION] });
      case LogPage.changedNamespaces:
        return encodeNamespaceList(Array.from(this.#changed).sort((a, b) => a - b));
      case LogPage.commandEffects:
        return this.#effects;
      default:
        return undefined;
    }
  }

  #smart(): Uint8Array {
    const { bytesRead, bytesWritten, readCommands, writeCommands } = this.#namespaces.counters;
    return encodeSmartLog({
      critical_warning: this.#features.criticalWarning,
      temperature: TEMPERATURE,
      avail_spare: 100,
      spare_thresh: 10,
      data_units_read: BigInt(Math.ceil(bytesRead / DATA_UNIT)),
      data_units_written: BigInt(Math.ceil(bytesWritten / DATA_UNIT)),
      host_read_commands: BigInt(readCommands),
      host_write_commands: BigInt(writeCommands),
      controller_busy_time: BigInt(this.#busy.minutes),
      power_cycles: BigInt(this.#counters.powerCycles),
      unsafe_shutdowns: BigInt(this.#counters.unsafeShutdowns),
      media_errors: BigInt(this.#counters.mediaErrors),
      power_on_hours: BigInt(Math.floor((Date.now() - this.#start) / 3_600_000)),
      num_err_log_entries: BigInt(this.#errors.count),
    });
  }
}
