// SPDX-License-Identifier: MIT

/** Opcodes of admin commands (NVMe base 2.0, figure "Opcodes for Admin Commands"). @enum */
export const AdminOpcode = {
  deleteIoSubmissionQueue: 0x00,
  createIoSubmissionQueue: 0x01,
  getLogPage: 0x02,
  deleteIoCompletionQueue: 0x04,
  createIoCompletionQueue: 0x05,
  identify: 0x06,
  abort: 0x08,
  setFeatures: 0x09,
  getFeatures: 0x0a,
  asynchronousEventRequest: 0x0c,
  namespaceManagement: 0x0d,
  firmwareCommit: 0x10,
  firmwareImageDownload: 0x11,
  deviceSelfTest: 0x14,
  namespaceAttachment: 0x15,
  keepAlive: 0x18,
  directiveSend: 0x19,
  directiveReceive: 0x1a,
  virtualizationManagement: 0x1c,
  nvmeMiSend: 0x1d,
  nvmeMiReceive: 0x1e,
  doorbellBufferConfig: 0x7c,
  formatNvm: 0x80,
  securitySend: 0x81,
  securityReceive: 0x82,
  sanitize: 0x84,
  getLbaStatus: 0x86,
} as const;

/** Opcodes of the NVM command set (NVM command set 1.0, figure "Opcodes for NVM Commands"). @enum */
export const NvmOpcode = {
  flush: 0x00,
  write: 0x01,
  read: 0x02,
  writeUncorrectable: 0x04,
  compare: 0x05,
  writeZeroes: 0x08,
  datasetManagement: 0x09,
  verify: 0x0c,
  reservationRegister: 0x0d,
  reservationReport: 0x0e,
  reservationAcquire: 0x11,
  ioManagementReceive: 0x12,
  reservationRelease: 0x15,
  copy: 0x19,
  ioManagementSend: 0x1d,
} as const;

/** Words of the names that do not follow from the camel case of the tables. */
const WORDS: Readonly<Record<string, string>> = {
  io: 'I/O',
  nvm: 'NVM',
  nvme: 'NVMe',
  mi: 'MI',
  lba: 'LBA',
};

function nameTable(opcodes: Readonly<Record<string, number>>): ReadonlyMap<number, string> {
  return new Map(
    Object.entries(opcodes).map(([key, opcode]) => [
      opcode,
      key
        .replace(/[A-Z]/g, (letter) => ` ${letter}`)
        .split(' ')
        .map((word) => WORDS[word.toLowerCase()] ?? word.charAt(0).toUpperCase() + word.slice(1))
        .join(' '),
    ]),
  );
}

const adminNames = nameTable(AdminOpcode);
const nvmNames = nameTable(NvmOpcode);

/** A code as the specification writes it, such as `0Bh`. */
export function hexCode(code: number): string {
  return `${code.toString(16).padStart(2, '0').toUpperCase()}h`;
}

/** Name of an admin opcode, such as `Identify`; `Opcode C1h` when it has none. */
export function adminOpcodeName(opcode: number): string {
  return adminNames.get(opcode) ?? `Opcode ${hexCode(opcode)}`;
}

/** Name of an opcode of the NVM command set, such as `Write Zeroes`; `Opcode 7Fh` when it has none. */
export function nvmOpcodeName(opcode: number): string {
  return nvmNames.get(opcode) ?? `Opcode ${hexCode(opcode)}`;
}

/** Namespace id that means all namespaces (NVMe base 2.0, 3.2.1.2). */
export const BROADCAST_NSID = 0xffff_ffff;
