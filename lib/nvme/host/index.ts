// SPDX-License-Identifier: MIT
export { NvmeAdmin } from './admin';
export type {
  CreateNamespaceOptions,
  FormatOptions,
  GetFeatureOptions,
  IdentifyOptions,
  LogPageOptions,
  SetFeatureOptions,
} from './admin-options';
export type { AdminCommand, AdminCompletion, AdminWait } from './admin-queue';
export { type NvmeAttachOptions } from './bring-up';
export { NvmeController, type ControllerRestart, type NvmeControllerEvents } from './controller';
export type { Doorbells } from './doorbells';
export { IoQueue, type QueueLoss } from './io-queue';
export {
  NvmeNamespace,
  type BlockRange,
  type CopyTarget,
  type DataBuffer,
  type WriteRange,
  type UnbufferedRange,
  type ZeroRange,
} from './namespace';
export { NvmeStatusError } from './nvme-error';
export { QueuePair, type CompletionHandler } from './queue-pair';
export { type CreatedQueuePair, type VectorHandler } from './queue-pairs';
export type { ResubmitPolicy } from './resubmission';
