// SPDX-License-Identifier: MIT
import { outOfRange } from '../../errors';
import { bits, flag, type WordOf, wordCodec } from './bits';
import {
  type Decoded,
  ascii,
  bits16,
  decodeLayout,
  encodeLayout,
  structView,
  u128,
  u16,
  u16List,
  u32,
  u64,
  u8,
} from './layout';

/** Log page identifiers (LID; NVMe base 2.0, figure "Get Log Page - Log Page Identifiers"). @enum */
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

const errorLayout = {
  /** Number of the error since the controller was made; 0 for an unused entry. */
  error_count: u64(0),
  /** Submission queue; FFFFh when the error belongs to no command. */
  sqid: u16(8),
  /** Command id; FFFFh when the error belongs to no command. */
  cmdid: u16(10),
  /** Phase tag of the completion. */
  phase_tag: bits16(12, 0, 1),
  /** The 15-bit status field of the completion. */
  status_field: bits16(12, 1, 15),
  /** Byte in bits 7:0 and bit in 10:8 of the parameter in error; FFFFh when not known. */
  parm_error_location: u16(14),
  /** First block with an error. */
  lba: u64(16),
  /** Namespace of the command. */
  nsid: u32(24),
  /** Log page with vendor specific information; 0 for none. */
  vs: u8(28),
  /** Transport type; 0 for a memory based transport. */
  trtype: u8(29),
  /** Command set of the command, for an I/O command (version 2.0). */
  csi: u8(30),
  /** Opcode of the command (version 2.0). */
  opcode: u8(31),
  /** Command specific information. */
  cs: u64(32),
  /** Transport specific information. */
  trtype_spec_info: u16(40),
};

/**
 * An entry of the error log, page 01h (NVMe base 2.0, 5.16.1.2). The fields have nvme-cli's JSON keys.
 */
export interface ErrorLogEntry extends Decoded<typeof errorLayout> {}
/** Bytes of an entry of the error log. */
export const ERROR_LOG_ENTRY_BYTES = 64;

/** Decodes the entries of an error log, newest first; unused ones are left out. */
export function decodeErrorLog(bytes: Uint8Array): ErrorLogEntry[] {
  const entries: ErrorLogEntry[] = [];
  for (let offset = 0; offset + ERROR_LOG_ENTRY_BYTES <= bytes.byteLength; offset += ERROR_LOG_ENTRY_BYTES) {
    const entry = decodeLayout(errorLayout, entryView(bytes, offset, ERROR_LOG_ENTRY_BYTES));
    if (entry.error_count !== 0n) entries.push(entry);
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

const smartLayout = {
  /** What is wrong, a mask of {@link CriticalWarning}. */
  critical_warning: u8(0),
  /** Composite temperature in kelvins. */
  temperature: u16(1),
  /** Available spare in percent. */
  avail_spare: u8(3),
  /** Available spare in percent below which a warning is given. */
  spare_thresh: u8(4),
  /** Life used in percent, up to 255. */
  percent_used: u8(5),
  /** Critical warnings of the endurance groups, a mask as of their own log page. */
  endurance_grp_critical_warning_summary: u8(6),
  /** Thousands of units of 512 bytes read by the host, rounded up. */
  data_units_read: u128(32),
  /** Thousands of units of 512 bytes written by the host, rounded up. */
  data_units_written: u128(48),
  /** Read commands completed, Compare among them. */
  host_read_commands: u128(64),
  /** Write commands completed. */
  host_write_commands: u128(80),
  /** Time with I/O commands outstanding, in minutes. */
  controller_busy_time: u128(96),
  /** Times that the controller was powered on. */
  power_cycles: u128(112),
  /** Hours with power. */
  power_on_hours: u128(128),
  /** Losses of power without a shutdown before. */
  unsafe_shutdowns: u128(144),
  /** Unrecovered errors of data integrity. */
  media_errors: u128(160),
  /** Entries that the error log has had, over the life of the controller. */
  num_err_log_entries: u128(176),
  /** Time above the warning temperature, in minutes. */
  warning_temp_time: u32(192),
  /** Time above the critical temperature, in minutes. */
  critical_comp_time: u32(196),
  /** Sensors 1 to 8 in kelvins; 0 for one that does not exist. */
  temperature_sensors: u16List(200, 8),
  /** Transitions to lower power at thermal management temperature 1. */
  thm_temp1_trans_count: u32(216),
  /** Transitions to lower power at thermal management temperature 2. */
  thm_temp2_trans_count: u32(220),
  /** Time above thermal management temperature 1, in seconds. */
  thm_temp1_total_time: u32(224),
  /** Time above thermal management temperature 2, in seconds. */
  thm_temp2_total_time: u32(228),
};

/**
 * SMART / Health Information, log page 02h (NVMe base 2.0, 5.16.1.3). The fields have nvme-cli's JSON keys, but for the sensors,
 * which are a list.
 */
export interface SmartLog extends Decoded<typeof smartLayout> {}
/** Bytes of the SMART log. */
export const SMART_LOG_BYTES = 512;

/** Bits of `critical_warning` of {@link SmartLog}. @enum */
export const CriticalWarning = {
  /** The available spare capacity is below its threshold. */
  spare: 0x01,
  /** A temperature is beyond a threshold. */
  temperature: 0x02,
  /** Errors have made the subsystem less reliable. */
  reliability: 0x04,
  /** The media takes no writes any more. */
  readOnly: 0x08,
  /** The backup of the volatile memory has failed. */
  volatileBackup: 0x10,
  /** The persistent memory region is read-only or unreliable. */
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

const firmwareLayout = { activeSlot: bits16(0, 0, 3), nextSlot: bits16(0, 4, 3) };
const revisionFields = [1, 2, 3, 4, 5, 6, 7].map((slot) => ascii(8 * slot, 8));

/** Decodes Firmware Slot Information. */
export function decodeFirmwareSlotLog(bytes: Uint8Array): FirmwareSlotLog {
  const view = structView(bytes, FIRMWARE_SLOT_LOG_BYTES, 'The firmware slot log');
  return {
    ...decodeLayout(firmwareLayout, view),
    revisions: revisionFields.map((field, i) => field.get(view, `revision ${i + 1}`)),
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
    if (revision !== '') revisionFields[i]?.set(view, revision, `revision ${i + 1}`);
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

const effectsWord = wordCodec({
  /** CSUPP: the controller has the command. */
  supported: flag(0),
  /** LBCC: content of logical blocks may change. */
  blockContentChange: flag(1),
  /** NCC: what a namespace can do may change. */
  namespaceCapabilityChange: flag(2),
  /** NIC: the list of namespaces may change. */
  namespaceInventoryChange: flag(3),
  /** CCC: what the controller can do may change. */
  controllerCapabilityChange: flag(4),
  /** CSE: 0 no restriction, 1 alone in the namespace, 2 alone in the controller. */
  execution: bits(16, 3),
  /** USS: UUID selection. */
  uuidSelection: flag(19),
  /** CSP: scope, a mask of namespace, controller, NVM set, endurance group, domain, subsystem. */
  scope: bits(20, 12),
});

/**
 * What a command affects (NVMe base 2.0, 5.16.1.6).
 */
export interface CommandEffects extends WordOf<typeof effectsWord> {}

/** Commands Supported and Effects, log page 05h. Commands that are not supported are left out. */
export interface CommandEffectsLog<Effects = CommandEffects> {
  /** By admin opcode. */
  readonly admin: ReadonlyMap<number, Effects>;
  /** By I/O opcode. */
  readonly io: ReadonlyMap<number, Effects>;
}

/** Bytes of the commands supported and effects log. */
export const COMMAND_EFFECTS_LOG_BYTES = 4096;
const IO_EFFECTS = 1024;

/** Decodes Commands Supported and Effects. */
export function decodeCommandEffectsLog(bytes: Uint8Array): CommandEffectsLog {
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
export function encodeCommandEffectsLog(log: CommandEffectsLog<Partial<CommandEffects>>): Uint8Array {
  const bytes = new Uint8Array(COMMAND_EFFECTS_LOG_BYTES);
  const view = new DataView(bytes.buffer);
  const store = (start: number, table: ReadonlyMap<number, Partial<CommandEffects>>): void => {
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
