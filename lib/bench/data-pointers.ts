// SPDX-License-Identifier: MIT
import { NVME_PAGE } from '../nvme/host/dma-arena';
import { storePrp } from '../nvme/spec/prp';
import { DATA_POINTER_WORDS, storeSglDataBlock } from '../nvme/spec/sgl';
import { SQE_WORDS, SqeWord } from '../nvme/spec/submission-entry';
import { ioSizes } from './block-sizes';
import { directionsOf, trims, type Job } from './job';

/** Bytes of a range of Dataset Management (NVM command set 1.0, 3.2.3.1). */
export const TRIM_RANGE_BYTES = 16;

/**
 * Where in its first page the data of a job begins, in bytes.
 *
 * Copying up to two pages is slowest between addresses that have the same offset in their page. SPDK's malloc bdev has
 * its blocks at the offsets of the namespace, and buffers in the middle of pages made 3 to 10 % more IOPS with it. With
 * PRPs such a buffer would need one more entry.
 */
export function dataShift(blockSize: number, sgl: boolean): number {
  return sgl && blockSize <= 2 * NVME_PAGE ? NVME_PAGE / 2 : 0;
}

/** The sizes of the data of a job's commands: a set of data pointers for each. The last one is that of trims, if there are any. */
function transferSizes({ split, blockSize, workload }: Job): number[] {
  const moves = directionsOf(workload).some((direction) => direction !== 'trim');
  const sizes = moves ? ioSizes(workload, blockSize, split) : [];
  return trims(workload) ? [...sizes, TRIM_RANGE_BYTES] : sizes;
}

/** Number of sets of data pointers that a job needs. */
export function pointerSets(job: Job): number {
  return transferSizes(job).length;
}

/**
 * Describes the data buffer of each command id by PRP1 and PRP2, or by an SGL descriptor, for each size that a transfer may
 * have. Buffers stay where they are, so this is done once. A smaller transfer uses the beginning of the same PRP list.
 *
 * @param memory the memory of the job; the PRP lists in it are filled
 * @param pointers takes {@link DATA_POINTER_WORDS} words for each command id and size
 */
export function storeDataPointers(job: Job, memory: ArrayBuffer, pointers: Uint32Array): void {
  const { depth, bufferBytes, iova, dataOffset, listOffset, sgl } = job;
  const lists = new Uint32Array(memory);
  const entry = new Uint32Array(SQE_WORDS);
  transferSizes(job).forEach((bytes, set) => {
    for (let cid = 0; cid < depth; cid++) {
      const address = iova + dataOffset + cid * bufferBytes;
      const list = listOffset + cid * NVME_PAGE;
      if (sgl) storeSglDataBlock(entry, SqeWord.prp1Low, address, bytes);
      else storePrp(entry, 0, address, bytes, NVME_PAGE, lists, list / 4, iova + list);
      const pointer = entry.subarray(SqeWord.prp1Low, SqeWord.prp1Low + DATA_POINTER_WORDS);
      pointers.set(pointer, (set * depth + cid) * DATA_POINTER_WORDS);
    }
  });
}
