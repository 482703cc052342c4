// SPDX-License-Identifier: MIT
import { type WordOf, bits, flag, wordCodec } from './bits';

/** Status code types (SCT; NVMe base 2.0, 3.3.3.2.1). @enum */
export const StatusCodeType = { generic: 0, commandSpecific: 1, media: 2, path: 3, vendor: 7 } as const;

/** Generic status codes, SCT 0 (NVMe base 2.0, figure "Status Code - Generic Command Status Values"). @enum */
export const GenericStatus = {
  success: 0x00,
  invalidOpcode: 0x01,
  invalidField: 0x02,
  commandIdConflict: 0x03,
  dataTransferError: 0x04,
  abortedPowerLoss: 0x05,
  internalError: 0x06,
  abortRequested: 0x07,
  abortedSqDeletion: 0x08,
  abortedFailedFused: 0x09,
  abortedMissingFused: 0x0a,
  invalidNamespace: 0x0b,
  commandSequenceError: 0x0c,
  invalidSglSegment: 0x0d,
  invalidSglCount: 0x0e,
  dataSglLengthInvalid: 0x0f,
  metadataSglLengthInvalid: 0x10,
  sglTypeInvalid: 0x11,
  invalidCmbUse: 0x12,
  prpOffsetInvalid: 0x13,
  atomicWriteUnitExceeded: 0x14,
  operationDenied: 0x15,
  sglOffsetInvalid: 0x16,
  hostIdInconsistent: 0x18,
  keepAliveExpired: 0x19,
  keepAliveInvalid: 0x1a,
  abortedPreempt: 0x1b,
  sanitizeFailed: 0x1c,
  sanitizeInProgress: 0x1d,
  sglGranularityInvalid: 0x1e,
  commandInCmbNotSupported: 0x1f,
  namespaceWriteProtected: 0x20,
  commandInterrupted: 0x21,
  transientTransportError: 0x22,
  prohibitedByLockdown: 0x23,
  mediaNotReady: 0x24,
  fdpDisabled: 0x29,
  invalidPlacementHandleList: 0x2a,
  lbaOutOfRange: 0x80,
  capacityExceeded: 0x81,
  namespaceNotReady: 0x82,
  reservationConflict: 0x83,
  formatInProgress: 0x84,
} as const;

/**
 * Command specific status codes, SCT 1 (NVMe base 2.0, figure "Status Code - Command Specific Status Values"). Those from 80h on
 * belong to the NVM command set.
 *
 * @enum
 */
export const CommandStatus = {
  completionQueueInvalid: 0x00,
  invalidQueueId: 0x01,
  invalidQueueSize: 0x02,
  abortLimitExceeded: 0x03,
  asyncEventLimitExceeded: 0x05,
  invalidFirmwareSlot: 0x06,
  invalidFirmwareImage: 0x07,
  invalidInterruptVector: 0x08,
  invalidLogPage: 0x09,
  invalidFormat: 0x0a,
  firmwareNeedsConventionalReset: 0x0b,
  invalidQueueDeletion: 0x0c,
  featureNotSaveable: 0x0d,
  featureNotChangeable: 0x0e,
  featureNotNamespaceSpecific: 0x0f,
  firmwareNeedsSubsystemReset: 0x10,
  firmwareNeedsControllerReset: 0x11,
  firmwareNeedsMaxTimeViolation: 0x12,
  firmwareActivationProhibited: 0x13,
  overlappingRange: 0x14,
  insufficientCapacity: 0x15,
  namespaceIdUnavailable: 0x16,
  namespaceAlreadyAttached: 0x18,
  namespaceIsPrivate: 0x19,
  namespaceNotAttached: 0x1a,
  thinProvisioningNotSupported: 0x1b,
  controllerListInvalid: 0x1c,
  selfTestInProgress: 0x1d,
  bootPartitionWriteProhibited: 0x1e,
  invalidControllerId: 0x1f,
  invalidSecondaryControllerState: 0x20,
  invalidNumberOfResources: 0x21,
  invalidResourceId: 0x22,
  sanitizeProhibited: 0x23,
  anaGroupIdInvalid: 0x24,
  anaAttachFailed: 0x25,
  ioCommandSetNotSupported: 0x29,
  ioCommandSetNotEnabled: 0x2a,
  ioCommandSetCombinationRejected: 0x2b,
  invalidIoCommandSet: 0x2c,
  identifierUnavailable: 0x2d,
  conflictingAttributes: 0x80,
  invalidProtectionInformation: 0x81,
  writeToReadOnlyRange: 0x82,
  commandSizeLimitExceeded: 0x83,
} as const;

/** Media and data integrity errors, SCT 2 (NVMe base 2.0, figure "Status Code - Media and Data Integrity Error Values"). @enum */
export const MediaStatus = {
  writeFault: 0x80,
  unrecoveredReadError: 0x81,
  guardCheckError: 0x82,
  applicationTagCheckError: 0x83,
  referenceTagCheckError: 0x84,
  compareFailure: 0x85,
  accessDenied: 0x86,
  deallocatedOrUnwrittenBlock: 0x87,
  storageTagCheckError: 0x88,
} as const;

/** Path related status codes, SCT 3 (NVMe base 2.0, figure "Status Code - Path Related Status Values"). @enum */
export const PathStatus = {
  internalPathError: 0x00,
  anaPersistentLoss: 0x01,
  anaInaccessible: 0x02,
  anaTransition: 0x03,
  controllerPathError: 0x60,
  hostPathError: 0x70,
  abortedByHost: 0x71,
} as const;

type Texts<T> = Readonly<Record<keyof T, string>>;

const GENERIC_TEXTS: Texts<typeof GenericStatus> = {
  success: 'Successful completion',
  invalidOpcode: 'Invalid command opcode',
  invalidField: 'Invalid field in command',
  commandIdConflict: 'Command ID conflict',
  dataTransferError: 'Data transfer error',
  abortedPowerLoss: 'Command aborted due to power loss notification',
  internalError: 'Internal error',
  abortRequested: 'Command abort requested',
  abortedSqDeletion: 'Command aborted due to SQ deletion',
  abortedFailedFused: 'Command aborted due to failed fused command',
  abortedMissingFused: 'Command aborted due to missing fused command',
  invalidNamespace: 'Invalid namespace or format',
  commandSequenceError: 'Command sequence error',
  invalidSglSegment: 'Invalid SGL segment descriptor',
  invalidSglCount: 'Invalid number of SGL descriptors',
  dataSglLengthInvalid: 'Data SGL length invalid',
  metadataSglLengthInvalid: 'Metadata SGL length invalid',
  sglTypeInvalid: 'SGL descriptor type invalid',
  invalidCmbUse: 'Invalid use of controller memory buffer',
  prpOffsetInvalid: 'PRP offset invalid',
  atomicWriteUnitExceeded: 'Atomic write unit exceeded',
  operationDenied: 'Operation denied',
  sglOffsetInvalid: 'SGL offset invalid',
  hostIdInconsistent: 'Host identifier inconsistent format',
  keepAliveExpired: 'Keep alive timer expired',
  keepAliveInvalid: 'Keep alive timeout invalid',
  abortedPreempt: 'Command aborted due to preempt and abort',
  sanitizeFailed: 'Sanitize failed',
  sanitizeInProgress: 'Sanitize in progress',
  sglGranularityInvalid: 'SGL data block granularity invalid',
  commandInCmbNotSupported: 'Command not supported for queue in CMB',
  namespaceWriteProtected: 'Namespace is write protected',
  commandInterrupted: 'Command interrupted',
  transientTransportError: 'Transient transport error',
  prohibitedByLockdown: 'Command prohibited by command and feature lockdown',
  mediaNotReady: 'Admin command media not ready',
  fdpDisabled: 'Flexible data placement disabled',
  invalidPlacementHandleList: 'Invalid placement handle list',
  lbaOutOfRange: 'LBA out of range',
  capacityExceeded: 'Capacity exceeded',
  namespaceNotReady: 'Namespace not ready',
  reservationConflict: 'Reservation conflict',
  formatInProgress: 'Format in progress',
};

const COMMAND_TEXTS: Texts<typeof CommandStatus> = {
  completionQueueInvalid: 'Completion queue invalid',
  invalidQueueId: 'Invalid queue identifier',
  invalidQueueSize: 'Invalid queue size',
  abortLimitExceeded: 'Abort command limit exceeded',
  asyncEventLimitExceeded: 'Asynchronous event request limit exceeded',
  invalidFirmwareSlot: 'Invalid firmware slot',
  invalidFirmwareImage: 'Invalid firmware image',
  invalidInterruptVector: 'Invalid interrupt vector',
  invalidLogPage: 'Invalid log page',
  invalidFormat: 'Invalid format',
  firmwareNeedsConventionalReset: 'Firmware activation requires conventional reset',
  invalidQueueDeletion: 'Invalid queue deletion',
  featureNotSaveable: 'Feature identifier not saveable',
  featureNotChangeable: 'Feature not changeable',
  featureNotNamespaceSpecific: 'Feature not namespace specific',
  firmwareNeedsSubsystemReset: 'Firmware activation requires NVM subsystem reset',
  firmwareNeedsControllerReset: 'Firmware activation requires controller level reset',
  firmwareNeedsMaxTimeViolation: 'Firmware activation requires maximum time violation',
  firmwareActivationProhibited: 'Firmware activation prohibited',
  overlappingRange: 'Overlapping range',
  insufficientCapacity: 'Namespace insufficient capacity',
  namespaceIdUnavailable: 'Namespace identifier unavailable',
  namespaceAlreadyAttached: 'Namespace already attached',
  namespaceIsPrivate: 'Namespace is private',
  namespaceNotAttached: 'Namespace not attached',
  thinProvisioningNotSupported: 'Thin provisioning not supported',
  controllerListInvalid: 'Controller list invalid',
  selfTestInProgress: 'Device self-test in progress',
  bootPartitionWriteProhibited: 'Boot partition write prohibited',
  invalidControllerId: 'Invalid controller identifier',
  invalidSecondaryControllerState: 'Invalid secondary controller state',
  invalidNumberOfResources: 'Invalid number of controller resources',
  invalidResourceId: 'Invalid resource identifier',
  sanitizeProhibited: 'Sanitize prohibited while persistent memory region is enabled',
  anaGroupIdInvalid: 'ANA group identifier invalid',
  anaAttachFailed: 'ANA attach failed',
  ioCommandSetNotSupported: 'I/O command set not supported',
  ioCommandSetNotEnabled: 'I/O command set not enabled',
  ioCommandSetCombinationRejected: 'I/O command set combination rejected',
  invalidIoCommandSet: 'Invalid I/O command set',
  identifierUnavailable: 'Identifier unavailable',
  conflictingAttributes: 'Conflicting attributes',
  invalidProtectionInformation: 'Invalid protection information',
  writeToReadOnlyRange: 'Attempted write to read only range',
  commandSizeLimitExceeded: 'Command size limit exceeded',
};

const MEDIA_TEXTS: Texts<typeof MediaStatus> = {
  writeFault: 'Write fault',
  unrecoveredReadError: 'Unrecovered read error',
  guardCheckError: 'End-to-end guard check error',
  applicationTagCheckError: 'End-to-end application tag check error',
  referenceTagCheckError: 'End-to-end reference tag check error',
  compareFailure: 'Compare failure',
  accessDenied: 'Access denied',
  deallocatedOrUnwrittenBlock: 'Deallocated or unwritten logical block',
  storageTagCheckError: 'End-to-end storage tag check error',
};

const PATH_TEXTS: Texts<typeof PathStatus> = {
  internalPathError: 'Internal path error',
  anaPersistentLoss: 'Asymmetric access persistent loss',
  anaInaccessible: 'Asymmetric access inaccessible',
  anaTransition: 'Asymmetric access transition',
  controllerPathError: 'Controller pathing error',
  hostPathError: 'Host pathing error',
  abortedByHost: 'Command aborted by host',
};

function byCode<T extends Record<string, number>>(codes: T, texts: Texts<T>): ReadonlyMap<number, string> {
  return new Map(Object.entries(codes).map(([key, code]) => [code, texts[key as keyof T]]));
}

const TEXTS: ReadonlyMap<number, ReadonlyMap<number, string>> = new Map([
  [StatusCodeType.generic, byCode(GenericStatus, GENERIC_TEXTS)],
  [StatusCodeType.commandSpecific, byCode(CommandStatus, COMMAND_TEXTS)],
  [StatusCodeType.media, byCode(MediaStatus, MEDIA_TEXTS)],
  [StatusCodeType.path, byCode(PathStatus, PATH_TEXTS)],
]);

/** A status in words, with its codes: `LBA out of range (00/80)`. Unknown codes are `Unknown status (07/c3)`. */
export function statusText(sct: number, sc: number): string {
  const codes = `${sct.toString(16).padStart(2, '0')}/${sc.toString(16).padStart(2, '0')}`;
  const unknown = sct === StatusCodeType.vendor ? 'Vendor specific status' : 'Unknown status';
  return `${TEXTS.get(sct)?.get(sc) ?? unknown} (${codes})`;
}

/** The 15-bit status field of a completion, without the phase tag (NVMe base 2.0, 3.3.3.2.1). */
const statusField = wordCodec({
  /** SC */
  sc: bits(0, 8),
  /** SCT: a value of {@link StatusCodeType}. */
  sct: bits(8, 3),
  /** CRD: 0 to retry at once, 1 to 3 to wait for the time in CRDT1 to CRDT3 of Identify Controller. */
  crd: bits(11, 2),
  /** M: the error log has more. */
  more: flag(13),
  /** DNR: the same command would fail again. */
  doNotRetry: flag(14),
});

/** Parts of a status field. */
export type Status = WordOf<typeof statusField>;

/** Decodes a 15-bit status field: bits 31:17 of word 3 of a completion, shifted down. */
export function decodeStatus(field: number): Status {
  return statusField.decode(field);
}

/** The 15-bit status field; parts that are not given are 0. */
export function encodeStatus(status: Partial<Status>): number {
  return statusField.encode(status);
}
