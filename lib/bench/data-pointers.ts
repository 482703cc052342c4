// SPDX-License-Identifier: MIT
import { DATA_POINTER_WORDS, SqeWord, storePrp, storeSglDataBlock } from '../nvme/spec';
import { NVME_PAGE } from '../nvme/host';
import type { JobPlan } from './plan';

/** PRP1 and PRP2, or the SGL descriptor, of the buffer of each command id, as they go into the submission entry. */
export interface DataPointers {
  /** {@link DATA_POINTER_WORDS} words for each command id. */
  readonly words: Uint32Array;
  /** PSDT of every command. */
  readonly sgl: boolean;
}

/**
 * Where in its first page the data of a job begins, in bytes.
 *
 * A copy of up to two pages between addresses that are the same within a page is the slowest: from a bdev of SPDK's in
 * memory, whose blocks lie as those of the namespace do, buffers in the middle of pages made 3 to 10 % more IOPS. (SPDK's
 * own client has its buffers at any multiple of 512.) As PRPs they would need one entry more each.
 */
export function dataShift(blockSize: number, sgl: boolean): number {
  return sgl && blockSize <= 2 * NVME_PAGE ? NVME_PAGE / 2 : 0;
}

/**
 * Describes the buffers of a job once, since they stay where they are.
 *
 * @param memory holds the PRP lists, which are filled here
 */
export function dataPointers(plan: JobPlan, memory: ArrayBuffer): DataPointers {
  const { depth, blockSize, iova, dataOffset, listOffset, sgl } = plan;
  const words = new Uint32Array(depth * DATA_POINTER_WORDS);
  const lists = new Uint32Array(memory);
  for (let cid = 0; cid < depth; cid++) {
    const index = cid * DATA_POINTER_WORDS;
    const address = iova + dataOffset + cid * blockSize;
    const list = listOffset + cid * NVME_PAGE;
    if (sgl) storeSglDataBlock(words, index, address, blockSize);
    else {
      // As if an entry began so many words before: the pointer lies at its place.
      const entry = new Uint32Array(SqeWord.cdw10);
      storePrp(entry, 0, address, blockSize, NVME_PAGE, lists, list / 4, iova + list);
      words.set(entry.subarray(SqeWord.prp1Low), index);
    }
  }
  return { words, sgl };
}
