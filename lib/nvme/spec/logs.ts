// SPDX-License-Identifier: MIT
import { outOfRange } from '../../errors';
import { bits, flag, type WordOf, wordCodec } from './bits';
import {
  type Decoded,
  ascii,
  byteBits,
  decodeLayout,
  encodeLayout,
  mnemonics,
  structView,
  u128,
  u16,
  u16List,
  u32,
  u64,
  u8,
} from './layout';

/** Log page identifiers (LID; NVMe base 2.0, figure "Get Log Page - Log Page Identifiers"). */
export const LogPage = {
  supportedLogPages: 0x00,
  error: 0x01,
  smart: 0x02,
  firmwareSlot: 0x03,
  changedNamespaces: 0x04,
  commandEffects: 0x05,
  selfTest: 0x06,
  telemetryHost: 0x07,
  telemetryController: 0x08,
  enduranceGroup: 0x09,
  asymmetricAccess: 0x0c,
  persistentEvents: 0x0d,
  featureEffects: 0x12,
  managementEffects: 0x13,
  reservation: 0x80,
  sanitize: 0x81,
} as const;

/** Error Information, an entry of log page 01h (NVMe base 2.0, 5.16.1.2). */
const errorLayout = {
  /** Number of the error since the controller was made; 0 for an unused entry. */
  errorCount: u64(0, 'error_count'),
  /** Submission queue; FFFFh when the error belongs to no command. */
  sqId: u16(8, 'sqid'),
  /** Command id; FFFFh when the error belongs to no command. */
  cid: u16(10, 'cmdid'),
  /** Status 15:1 as in the completion, and the phase tag in bit 0. */
  status: u16(12, 'status_field'),
  /** Byte 7:0 and bit 10:8 of the parameter in error; FFFFh when not known. */
  parameterLocation: u16(14, 'parm_error_location'),
  /** First block with an error. */
  lba: u64(16, 'lba'),
  nsid: u32(24, 'nsid'),
  /** Log page with vendor specific information. */
  vendorSpecific: u8(28, 'vs'),
  /** Transport type; 0 for a memory based transport. */
  transportType: u8(29, 'trtype'),
  /** Command specific information. */
  commandSpecific: u64(32, 'cs'),
  transportSpecific: u16(40, 'trtype_spec_info'),
};

/** A decoded entry of the error log. */
export type ErrorLogEntry = Decoded<typeof errorLayout>;
/** nvme-cli's JSON key of each field of {@link ErrorLogEntry}. */
export const ERROR_LOG_MNEMONICS = mnemonics(errorLayout);
/** Bytes of an entry of the error log. */
export const ERROR_LOG_ENTRY_BYTES = 64;

/** Decodes the entries of an error log, newest first; unused ones are left out. */
export function decodeErrorLog(bytes: Uint8Array): ErrorLogEntry[] {
  const entries: ErrorLogEntry[] = [];
  for (let offset = 0; offset + ERROR_LOG_ENTRY_BYTES <= bytes.byteLength; offset += ERROR_LOG_ENTRY_BYTES) {
    const entry = decodeLayout(errorLayout, entryView(bytes, offset, ERROR_LOG_ENTRY_BYTES));
    if (entry.errorCount !== 0n) entries.push(entry);
  }
  return entries;
}

/**
 * Encodes an error log of `capacity` entries.
 * @param entries newest first, at most `capacity`
 */
export function encodeErrorLog(entries: readonly Partial<ErrorLogEntry>[], capacity: number): Uint8Array {
  if (entries.length > capacity)
    throw outOfRange(`${entries.length} entries do not fit a log of ${capacity}`);
  const bytes = new Uint8Array(capacity * ERROR_LOG_ENTRY_BYTES);
  entries.forEach((entry, i) => {
    encodeLayout(errorLayout, entryView(bytes, i * ERROR_LOG_ENTRY_BYTES, ERROR_LOG_ENTRY_BYTES), entry);
  });
  return bytes;
}

function entryView(bytes: Uint8Array, offset: number, size: number): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset + offset, size);
}

/** SMART / Health Information, log page 02h (NVMe base 2.0, 5.16.1.3). */
const smartLayout = {
  /** A mask of {@link CriticalWarning}. */
  criticalWarning: u8(0, 'critical_warning'),
  /** Composite temperature in kelvins. */
  temperature: u16(1, 'temperature'),
  /** Available spare in percent. */
  availableSpare: u8(3, 'avail_spare'),
  /** Available spare in percent below which a warning is given. */
  availableSpareThreshold: u8(4, 'spare_thresh'),
  /** Life used in percent, up to 255. */
  percentageUsed: u8(5, 'percent_used'),
  enduranceGroupWarning: u8(6, 'endurance_grp_critical_warning_summary'),
  /** Thousands of units of 512 bytes read by the host, rounded up. */
  dataUnitsRead: u128(32, 'data_units_read'),
  /** Thousands of units of 512 bytes written by the host, rounded up. */
  dataUnitsWritten: u128(48, 'data_units_written'),
  hostReadCommands: u128(64, 'host_read_commands'),
  hostWriteCommands: u128(80, 'host_write_commands'),
  /** In minutes. */
  controllerBusyTime: u128(96, 'controller_busy_time'),
  powerCycles: u128(112, 'power_cycles'),
  powerOnHours: u128(128, 'power_on_hours'),
  unsafeShutdowns: u128(144, 'unsafe_shutdowns'),
  mediaErrors: u128(160, 'media_errors'),
  errorLogEntries: u128(176, 'num_err_log_entries'),
  /** In minutes. */
  warningTemperatureTime: u32(192, 'warning_temp_time'),
  /** In minutes. */
  criticalTemperatureTime: u32(196, 'critical_comp_time'),
  /** Sensors 1 to 8 in kelvins; 0 for one that does not exist. */
  temperatureSensors: u16List(200, 8, 'temperature_sensor'),
  thermalTransitions1: u32(216, 'thm_temp1_trans_count'),
  thermalTransitions2: u32(220, 'thm_temp2_trans_count'),
  /** In seconds. */
  thermalTime1: u32(224, 'thm_temp1_total_time'),
  /** In seconds. */
  thermalTime2: u32(228, 'thm_temp2_total_time'),
};

/** Decoded SMART / Health Information. */
export type SmartLog = Decoded<typeof smartLayout>;
/** nvme-cli's JSON key of each field of {@link SmartLog}. */
export const SMART_LOG_MNEMONICS = mnemonics(smartLayout);
/** Bytes of the SMART log. */
export const SMART_LOG_BYTES = 512;

/** Bits of {@link SmartLog.criticalWarning}. */
export const CriticalWarning = {
  spare: 0x01,
  temperature: 0x02,
  reliability: 0x04,
  readOnly: 0x08,
  volatileBackup: 0x10,
  persistentMemory: 0x20,
} as const;

/** Decodes SMART / Health Information. */
export function decodeSmartLog(bytes: Uint8Array): SmartLog {
  return decodeLayout(smartLayout, structView(bytes, SMART_LOG_BYTES, 'The SMART log'));
}

/** Encodes SMART / Health Information; fields that are not given are zero. */
export function encodeSmartLog(fields: Partial<SmartLog>): Uint8Array {
  const bytes = new Uint8Array(SMART_LOG_BYTES);
  encodeLayout(smartLayout, new DataView(bytes.buffer), fields);
  return bytes;
}

/** Firmware Slot Information, log page 03h (NVMe base 2.0, 5.16.1.4). */
export interface FirmwareSlotLog {
  /** AFI bits 2:0: slot that runs, 1 to 7. */
  readonly activeSlot: number;
  /** AFI bits 6:4: slot that the next reset activates; 0 when not reported. */
  readonly nextSlot: number;
  /** FRS1 to FRS7; empty text for an empty slot. */
  readonly revisions: readonly string[];
}

/** Bytes of the firmware slot log. */
export const FIRMWARE_SLOT_LOG_BYTES = 512;

const firmwareLayout = { activeSlot: byteBits(0, 0, 3, 'afi'), nextSlot: byteBits(0, 4, 3, 'afi') };
const revisionFields = [1, 2, 3, 4, 5, 6, 7].map((slot) => ascii(8 * slot, 8, `frs${slot}`));

/** Decodes Firmware Slot Information. */
export function decodeFirmwareSlotLog(bytes: Uint8Array): FirmwareSlotLog {
  const view = structView(bytes, FIRMWARE_SLOT_LOG_BYTES, 'The firmware slot log');
  return {
    ...decodeLayout(firmwareLayout, view),
    revisions: revisionFields.map((field) => field.get(view)),
  };
}

/** Encodes Firmware Slot Information with at most 7 revisions of at most 8 characters. */
export function encodeFirmwareSlotLog({ revisions, ...fields }: FirmwareSlotLog): Uint8Array {
  if (revisions.length > revisionFields.length)
    throw outOfRange(`${revisions.length} slots; there are at most 7`);
  const bytes = new Uint8Array(FIRMWARE_SLOT_LOG_BYTES);
  const view = new DataView(bytes.buffer);
  encodeLayout(firmwareLayout, view, fields);
  revisions.forEach((revision, i) => {
    if (revision !== '') revisionFields[i]?.set(view, revision);
  });
  return bytes;
}

/** Bytes of the changed namespace list, log page 04h. */
export const CHANGED_NAMESPACES_BYTES = 4096;

/** Decodes the Changed Namespace List, log page 04h: the ids, or `'all'` when there are more than 1024. */
export function decodeChangedNamespaces(bytes: Uint8Array): number[] | 'all' {
  const view = structView(bytes, CHANGED_NAMESPACES_BYTES, 'The changed namespace list');
  const ids: number[] = [];
  for (let offset = 0; offset < CHANGED_NAMESPACES_BYTES; offset += 4) {
    const id = view.getUint32(offset, true);
    if (id === 0) break;
    ids.push(id);
  }
  return ids[0] === 0xffff_ffff ? 'all' : ids;
}

/** Encodes the Changed Namespace List; more than 1024 ids become FFFFFFFFh, which means "ask for all". */
export function encodeChangedNamespaces(ids: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(CHANGED_NAMESPACES_BYTES);
  const view = new DataView(bytes.buffer);
  const listed = ids.length > CHANGED_NAMESPACES_BYTES / 4 ? [0xffff_ffff] : ids;
  listed.forEach((id, i) => {
    view.setUint32(4 * i, id, true);
  });
  return bytes;
}

/** Effects of a command (NVMe base 2.0, 5.16.1.6). */
const effectsWord = wordCodec({
  /** CSUPP */
  supported: flag(0),
  /** LBCC: content of logical blocks may change. */
  blockContentChange: flag(1),
  /** NCC */
  namespaceCapabilityChange: flag(2),
  /** NIC */
  namespaceInventoryChange: flag(3),
  /** CCC */
  controllerCapabilityChange: flag(4),
  /** CSE: 0 no restriction, 1 alone in the namespace, 2 alone in the controller. */
  execution: bits(16, 3),
  /** USS: UUID selection. */
  uuidSelection: flag(19),
  /** CSP: scope, a mask of namespace, controller, NVM set, endurance group, domain, subsystem. */
  scope: bits(20, 12),
});

/** Decoded effects of a command. */
export type CommandEffects = WordOf<typeof effectsWord>;

/** Commands Supported and Effects, log page 05h. Commands that are not supported are left out. */
export interface CommandEffectsLog {
  /** By admin opcode. */
  readonly admin: ReadonlyMap<number, Partial<CommandEffects>>;
  /** By I/O opcode. */
  readonly io: ReadonlyMap<number, Partial<CommandEffects>>;
}

/** Bytes of the commands supported and effects log. */
export const COMMAND_EFFECTS_LOG_BYTES = 4096;
const IO_EFFECTS = 1024;

/** Decodes Commands Supported and Effects. */
export function decodeCommandEffectsLog(bytes: Uint8Array): {
  admin: Map<number, CommandEffects>;
  io: Map<number, CommandEffects>;
} {
  const view = structView(bytes, COMMAND_EFFECTS_LOG_BYTES, 'The commands supported and effects log');
  const table = (start: number): Map<number, CommandEffects> => {
    const found = new Map<number, CommandEffects>();
    for (let opcode = 0; opcode < 256; opcode++) {
      const effects = effectsWord.decode(view.getUint32(start + 4 * opcode, true));
      if (effects.supported) found.set(opcode, effects);
    }
    return found;
  };
  return { admin: table(0), io: table(IO_EFFECTS) };
}

/** Encodes Commands Supported and Effects; every command in the maps is supported. */
export function encodeCommandEffectsLog(log: CommandEffectsLog): Uint8Array {
  const bytes = new Uint8Array(COMMAND_EFFECTS_LOG_BYTES);
  const view = new DataView(bytes.buffer);
  const store = (start: number, table: CommandEffectsLog['admin']): void => {
    for (const [opcode, effects] of table) {
      if (!Number.isInteger(opcode) || opcode < 0 || opcode > 255)
        throw outOfRange(`${opcode} is not an opcode`);
      view.setUint32(start + 4 * opcode, effectsWord.encode({ ...effects, supported: true }), true);
    }
  };
  store(0, log.admin);
  store(IO_EFFECTS, log.io);
  return bytes;
}

const supportedPageWord = wordCodec({ supported: flag(0), indexOffset: flag(1), parameter: bits(16, 16) });

/** Bytes of the supported log pages log. */
export const SUPPORTED_LOG_PAGES_BYTES = 1024;

/** Decodes Supported Log Pages, log page 00h: the identifiers in rising order. */
export function decodeSupportedLogPages(bytes: Uint8Array): number[] {
  const view = structView(bytes, SUPPORTED_LOG_PAGES_BYTES, 'The supported log pages log');
  const all = Array.from({ length: 256 }, (_, page) => page);
  return all.filter((page) => supportedPageWord.decode(view.getUint32(4 * page, true)).supported);
}

/** Encodes Supported Log Pages. */
export function encodeSupportedLogPages(pages: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(SUPPORTED_LOG_PAGES_BYTES);
  const view = new DataView(bytes.buffer);
  for (const page of pages) {
    if (!Number.isInteger(page) || page < 0 || page > 255)
      throw outOfRange(`${page} is not a log page identifier`);
    view.setUint32(4 * page, supportedPageWord.encode({ supported: true }), true);
  }
  return bytes;
}
