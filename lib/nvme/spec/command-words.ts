// SPDX-License-Identifier: MIT
import { bits, flag, wordCodec, zeroBased } from './bits';
import { outOfRange } from '../../errors';

/** CDW10 of Create I/O Submission Queue and Create I/O Completion Queue. `entries` is 1 to 65536. */
export const createQueueCdw10 = wordCodec({ queueId: bits(0, 16), entries: zeroBased(16, 16) });

/** CDW11 of Create I/O Completion Queue. */
export const createCompletionQueueCdw11 = wordCodec({
  /** PC: PRP1 is the queue itself, not a list. */
  contiguous: flag(0),
  /** IEN */
  interrupts: flag(1),
  /** IV */
  vector: bits(16, 16),
});

/** CDW11 of Create I/O Submission Queue. */
export const createSubmissionQueueCdw11 = wordCodec({
  /** PC */
  contiguous: flag(0),
  /** QPRIO: 0 urgent, 1 high, 2 medium, 3 low. */
  priority: bits(1, 2),
  /** CQID */
  completionQueueId: bits(16, 16),
});

/** CDW10 of Delete I/O Submission Queue and Delete I/O Completion Queue. */
export const deleteQueueCdw10 = wordCodec({ queueId: bits(0, 16) });

/** CDW10 of Identify. */
export const identifyCdw10 = wordCodec({ cns: bits(0, 8), controllerId: bits(16, 16) });

/** CDW11 of Identify. */
export const identifyCdw11 = wordCodec({ cnsSpecific: bits(0, 16), csi: bits(24, 8) });

/** CDW10 of Abort. */
export const abortCdw10 = wordCodec({ sqId: bits(0, 16), cid: bits(16, 16) });

/** CDW10 of Format NVM (NVMe base 2.0, 5.14). */
export const formatCdw10 = wordCodec({
  /** LBAFL: bits 3:0 of the index of the LBA format. */
  format: bits(0, 4),
  /** MSET: metadata is at the end of each block. */
  metadataInline: flag(4),
  /** PI: type of protection information, 0 for none. */
  protection: bits(5, 3),
  /** PIL: protection information comes first in the metadata. */
  protectionFirst: flag(8),
  /** SES: a value of {@link SecureErase}. */
  secureErase: bits(9, 3),
  /** LBAFU: bits 5:4 of the index of the LBA format. */
  formatUpper: bits(12, 2),
});

/** Values of SES of Format NVM. */
export const SecureErase = { none: 0, userData: 1, cryptographic: 2 } as const;

/** CDW10 of Get Features. */
export const getFeaturesCdw10 = wordCodec({
  /** FID */
  feature: bits(0, 8),
  /** SEL: a value of {@link FeatureSelect}. */
  select: bits(8, 3),
});

/** Values of SEL of Get Features. */
export const FeatureSelect = { current: 0, default: 1, saved: 2, supported: 3 } as const;

/** CDW10 of Set Features. */
export const setFeaturesCdw10 = wordCodec({ feature: bits(0, 8), save: flag(31) });

const getLogCdw10 = wordCodec({
  page: bits(0, 8),
  specific: bits(8, 7),
  retainEvent: flag(15),
  numdl: bits(16, 16),
});

const getLogCdw11 = wordCodec({ numdu: bits(0, 16), specificId: bits(16, 16) });

/** CDW14 of Get Log Page. */
export const getLogPageCdw14 = wordCodec({
  uuidIndex: bits(0, 7),
  /** OT: the offset is an index of data structures. */
  offsetType: flag(23),
  csi: bits(24, 8),
});

/** What Get Log Page asks for. */
export interface LogPageRequest {
  /** LID */
  readonly page: number;
  /** LSP: log specific parameter, 0 to 127. */
  readonly specific: number;
  /** LSI: log specific identifier, such as an endurance group, 0 to 65535. */
  readonly specificId: number;
  /** RAE: do not clear the event that announced the page. */
  readonly retainEvent: boolean;
  /** Bytes to transfer, a multiple of 4. */
  readonly length: number;
  /** Byte of the page to begin with (LPOL, LPOU), a multiple of 4. */
  readonly offset: number;
}

/**
 * CDW10 to CDW13 of Get Log Page (NVMe base 2.0, 5.16). The number of dwords is 0's based and cut in two.
 * @throws RangeError when the length or the offset is not a multiple of 4, or too great
 */
export function encodeLogPageRequest(
  request: LogPageRequest,
): readonly [cdw10: number, cdw11: number, cdw12: number, cdw13: number] {
  const { page, specific, specificId, retainEvent, length, offset } = request;
  if (!Number.isInteger(length / 4) || length <= 0 || length > 0x4_0000_0000) {
    throw outOfRange(`The length ${length} of a log page is not a multiple of 4 from 4 to 2^34`);
  }
  if (!Number.isSafeInteger(offset) || offset < 0 || offset % 4 !== 0) {
    throw outOfRange(`The offset ${offset} into a log page is not a multiple of 4`);
  }
  const dwords = length / 4 - 1;
  return [
    getLogCdw10.encode({ page, specific, retainEvent, numdl: dwords & 0xffff }),
    getLogCdw11.encode({ numdu: Math.floor(dwords / 0x1_0000), specificId }),
    offset >>> 0,
    Math.floor(offset / 0x1_0000_0000),
  ];
}

/** Decodes CDW10 to CDW13 of Get Log Page. An offset of 2^53 or more is rounded, and stays at or above 2^53. */
export function decodeLogPageRequest(
  cdw10: number,
  cdw11: number,
  cdw12: number,
  cdw13: number,
): LogPageRequest {
  const { numdl, ...rest } = getLogCdw10.decode(cdw10);
  const { numdu, specificId } = getLogCdw11.decode(cdw11);
  return {
    ...rest,
    specificId,
    length: (numdu * 0x1_0000 + numdl + 1) * 4,
    offset: cdw13 * 0x1_0000_0000 + cdw12,
  };
}

/** A range of Dataset Management (NVM command set 1.0, 3.2.3.1). */
export interface DatasetRange {
  /** First logical block. */
  readonly lba: number;
  /** Number of logical blocks, at most 2^32 - 1. */
  readonly blocks: number;
}

const DATASET_RANGE_BYTES = 16;

/**
 * The data of Dataset Management, 16 bytes a range, with context attributes of 0.
 * @throws RangeError when there are not 1 to 256 ranges, or one is not valid
 */
export function encodeDatasetRanges(ranges: readonly DatasetRange[]): Uint8Array {
  if (ranges.length < 1 || ranges.length > 256) {
    throw outOfRange(`${ranges.length} ranges; Dataset Management takes 1 to 256`);
  }
  const bytes = new Uint8Array(ranges.length * DATASET_RANGE_BYTES);
  const view = new DataView(bytes.buffer);
  ranges.forEach(({ lba, blocks }, i) => {
    if (!Number.isInteger(blocks) || blocks < 0 || blocks > 0xffff_ffff) {
      throw outOfRange(`Range ${i} has ${blocks} blocks; a range takes an integer of 32 bits`);
    }
    if (!Number.isSafeInteger(lba) || lba < 0)
      throw outOfRange(`Range ${i} begins at the invalid block ${lba}`);
    view.setUint32(i * DATASET_RANGE_BYTES + 4, blocks, true);
    view.setBigUint64(i * DATASET_RANGE_BYTES + 8, BigInt(lba), true);
  });
  return bytes;
}

/** Decodes the data of Dataset Management. An LBA of 2^53 or more is rounded, and stays at or above 2^53. */
export function decodeDatasetRanges(bytes: Uint8Array): DatasetRange[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: Math.floor(bytes.length / DATASET_RANGE_BYTES) }, (_, i) => ({
    blocks: view.getUint32(i * DATASET_RANGE_BYTES + 4, true),
    lba: Number(view.getBigUint64(i * DATASET_RANGE_BYTES + 8, true)),
  }));
}

/** CDW10 and CDW11 of Dataset Management (NVM command set 1.0, 3.2.3). `ranges` is 1 to 256. */
export const datasetCdw10 = wordCodec({ ranges: zeroBased(0, 8) });
export const datasetCdw11 = wordCodec({
  /** IDR: the ranges are about to be read as a whole. */
  integralRead: flag(0),
  /** IDW: the ranges are about to be written as a whole. */
  integralWrite: flag(1),
  /** AD: the ranges are deallocated. */
  deallocate: flag(2),
});

/** CDW12 of Copy (NVM command set 1.0, 3.2.2). */
export const copyCdw12 = wordCodec({
  /** NR: source ranges, 1 to 256. */
  ranges: zeroBased(0, 8),
  /** Format of the descriptors of the source ranges. */
  format: bits(8, 4),
  /** PRINFOR: what is done with protection information that is read. */
  protectionRead: bits(12, 4),
  /** DTYPE: directive. */
  directive: bits(20, 4),
  /** PRINFOW: what is done with protection information that is written. */
  protectionWrite: bits(26, 4),
  forceUnitAccess: flag(30),
  limitedRetry: flag(31),
});

/** Bytes of a source range of Copy, format 0. */
export const COPY_RANGE_BYTES = 32;

/**
 * Encodes the data of Copy, format 0.
 * @param ranges of 1 to 65536 blocks each
 */
export function encodeCopyRanges(ranges: readonly DatasetRange[]): Uint8Array {
  const bytes = new Uint8Array(ranges.length * COPY_RANGE_BYTES);
  const view = new DataView(bytes.buffer);
  ranges.forEach(({ lba, blocks }, i) => {
    view.setBigUint64(i * COPY_RANGE_BYTES + 8, BigInt(lba), true);
    view.setUint16(i * COPY_RANGE_BYTES + 16, blocks - 1, true);
  });
  return bytes;
}

/** Decodes the data of Copy, format 0. An LBA of 2^53 or more is rounded, and stays at or above 2^53. */
export function decodeCopyRanges(bytes: Uint8Array): DatasetRange[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: Math.floor(bytes.length / COPY_RANGE_BYTES) }, (_, i) => ({
    lba: Number(view.getBigUint64(i * COPY_RANGE_BYTES + 8, true)),
    blocks: view.getUint16(i * COPY_RANGE_BYTES + 16, true) + 1,
  }));
}
