// SPDX-License-Identifier: MIT
export { AdminQueue } from './admin-queue';
export { NvmeController, type AttachOptions } from './controller';
export { DmaArena, NVME_PAGE, type DmaChunk } from './dma-arena';
export { MappedDoorbells, MessageDoorbells, type Doorbells } from './doorbells';
export { IoQueue } from './io-queue';
export { NvmeNamespace, type BlockRange, type DataBuffer } from './namespace';
export { NvmeStatusError } from './nvme-error';
export { QueuePair, type CompletionHandler, type QueuePairPlacement } from './queue-pair';
export { type CreatedQueuePair } from './queue-pairs';
