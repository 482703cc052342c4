// SPDX-License-Identifier: MIT
import { CommandStatus, GenericStatus, MediaStatus, StatusCodeType, encodeStatus } from '../spec';
import { BackendResult } from '../backends';

const { generic, commandSpecific, media } = StatusCodeType;

/** A status that the same command would meet again: DNR is set. */
function permanent(sc: number, sct: number = generic): number {
  return encodeStatus({ sct, sc, doNotRetry: true });
}

/** A status that may go away. */
function passing(sc: number, sct: number = generic): number {
  return encodeStatus({ sct, sc });
}

/** Status fields of completions, 15 bits, as the controller gives them. */
export const Outcome = {
  success: 0,
  invalidOpcode: permanent(GenericStatus.invalidOpcode),
  invalidField: permanent(GenericStatus.invalidField),
  /** The client's memory may come back: QEMU takes away and brings back all of it while a guest boots. */
  dataTransferError: passing(GenericStatus.dataTransferError),
  internalError: passing(GenericStatus.internalError),
  abortedQueueDeletion: passing(GenericStatus.abortedSqDeletion),
  abortRequested: passing(GenericStatus.abortRequested),
  abortedFailedFused: permanent(GenericStatus.abortedFailedFused),
  abortedMissingFused: permanent(GenericStatus.abortedMissingFused),
  invalidNamespace: permanent(GenericStatus.invalidNamespace),
  commandSequenceError: permanent(GenericStatus.commandSequenceError),
  prpOffsetInvalid: permanent(GenericStatus.prpOffsetInvalid),
  /** A file with holes has no room for one more block, until somebody makes room. */
  capacityExceeded: passing(GenericStatus.capacityExceeded),
  /** The storage behind the namespace cannot be reached. Hosts try again. */
  namespaceNotReady: passing(GenericStatus.namespaceNotReady),
  operationDenied: permanent(GenericStatus.operationDenied),
  lbaOutOfRange: permanent(GenericStatus.lbaOutOfRange),
  formatInProgress: passing(GenericStatus.formatInProgress),
  completionQueueInvalid: permanent(CommandStatus.completionQueueInvalid, commandSpecific),
  invalidQueueId: permanent(CommandStatus.invalidQueueId, commandSpecific),
  invalidQueueSize: permanent(CommandStatus.invalidQueueSize, commandSpecific),
  asyncEventLimitExceeded: permanent(CommandStatus.asyncEventLimitExceeded, commandSpecific),
  invalidInterruptVector: permanent(CommandStatus.invalidInterruptVector, commandSpecific),
  invalidLogPage: permanent(CommandStatus.invalidLogPage, commandSpecific),
  invalidFormat: permanent(CommandStatus.invalidFormat, commandSpecific),
  invalidQueueDeletion: permanent(CommandStatus.invalidQueueDeletion, commandSpecific),
  insufficientCapacity: permanent(CommandStatus.insufficientCapacity, commandSpecific),
  namespaceIdUnavailable: permanent(CommandStatus.namespaceIdUnavailable, commandSpecific),
  namespaceAlreadyAttached: permanent(CommandStatus.namespaceAlreadyAttached, commandSpecific),
  namespaceNotAttached: permanent(CommandStatus.namespaceNotAttached, commandSpecific),
  thinProvisioningNotSupported: permanent(CommandStatus.thinProvisioningNotSupported, commandSpecific),
  controllerListInvalid: permanent(CommandStatus.controllerListInvalid, commandSpecific),
  anaGroupIdInvalid: permanent(CommandStatus.anaGroupIdInvalid, commandSpecific),
  ioCommandSetNotSupported: permanent(CommandStatus.ioCommandSetNotSupported, commandSpecific),
  featureNotSaveable: permanent(CommandStatus.featureNotSaveable, commandSpecific),
  featureNotNamespaceSpecific: permanent(CommandStatus.featureNotNamespaceSpecific, commandSpecific),
  commandSizeLimitExceeded: permanent(CommandStatus.commandSizeLimitExceeded, commandSpecific),
  writeFault: passing(MediaStatus.writeFault, media),
  unrecoveredReadError: passing(MediaStatus.unrecoveredReadError, media),
  compareFailure: permanent(MediaStatus.compareFailure, media),
} as const;

/** What the completion of a command tells the host. */
export interface Reply {
  /** A value of {@link Outcome}. */
  readonly outcome: number;
  /** Dword 0 of the completion. Default 0. */
  readonly dw0?: number;
  /** Block that has caused an error, for the error log. Default: the first of the command. */
  readonly lba?: number;
  /** Command specific information for the error log. Default 0. */
  readonly specific?: number;
  /** Of the first of two fused commands: the {@link Outcome} of the second. Default: that of the first. */
  readonly second?: number;
}

/** How a command completes that a fault has struck. */
export interface Ending {
  /** Command id in the completion. */
  readonly cid: number;
  /** Whether there are two completions. */
  readonly twice: boolean;
  /** Whether the host is not interrupted for it. */
  readonly silent: boolean;
}

/** A command that has not begun, since it needs messages or has to wait for the backend. */
export interface Deferred {
  /** Most memory that it needs while it runs. */
  readonly bytes: number;
  /** Runs it. Resolves with what its completion tells. */
  readonly run: () => Promise<Reply>;
}

/** What becomes of a command: a reply now or later; a command that has to be run for it; `'held'` when something else completes it. */
export type Answer = Reply | Promise<Reply> | Deferred | 'held';

/** The outcome for a generic status code of `walkPrp` or `walkSgl`. */
export function pointerOutcome(sc: number): number {
  if (sc === GenericStatus.success) return Outcome.success;
  return sc === GenericStatus.dataTransferError ? Outcome.dataTransferError : permanent(sc);
}

/** The outcome of a command for which the backend did not read. */
export function readFailure(result: BackendResult): number {
  return result === BackendResult.mediumError ? Outcome.unrecoveredReadError : accessFailure(result);
}

/** The outcome of a command for which the backend did not write. */
export function writeFailure(result: BackendResult): number {
  return result === BackendResult.mediumError ? Outcome.writeFault : accessFailure(result);
}

function accessFailure(result: BackendResult): number {
  if (result === BackendResult.outOfSpace) return Outcome.capacityExceeded;
  if (result === BackendResult.unavailable) return Outcome.namespaceNotReady;
  return result === BackendResult.memoryError ? Outcome.dataTransferError : Outcome.internalError;
}
