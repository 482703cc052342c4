// SPDX-License-Identifier: MIT
import { NVME_PAGE } from '../nvme/host/dma-arena';
import type { QueueLoop } from '../nvme/host/queue-loop';
import type { QueuePair } from '../nvme/host/queue-pair';
import { NvmOpcode } from '../nvme/spec/opcodes';
import { storePrp } from '../nvme/spec/prp';
import { DATA_POINTER_WORDS, storeSglDataBlock } from '../nvme/spec/sgl';
import { Psdt, SQE_WORDS, SqeWord } from '../nvme/spec/submission-entry';
import { directionsOf, isMixed, isRandom, trims, trimsAndWrites, type Direction, type Job } from './job';
import { SizeDraw, ioSizes } from './block-sizes';
import {
  RandomSequence,
  SequentialSequence,
  ShuffledSequence,
  ZipfSequence,
  type BlockSequence,
} from './random';
import { Xoshiro128 } from '../random';
import type { Verification } from './verification';

// A name of another module is looked up in that module's exports at each use, which costs a tenth of an I/O here.
const ENTRY_WORDS = SQE_WORDS;
const { cdw0: CDW0, cdw10: CDW10, cdw11: CDW11, cdw12: CDW12 } = SqeWord;

/** What a command id is used for. */
export const CommandUse = { free: 0, reading: 1, writing: 2, trimming: 3 } as const;
const { reading: READING, writing: WRITING, trimming: TRIMMING } = CommandUse;

/** {@link CommandUse} of each direction. */
const USE_OF: Readonly<Record<Direction, number>> = { read: READING, write: WRITING, trim: TRIMMING };

/** FUA in command dword 12 of Read and Write (NVM command set 1.0, figures 43 and 67). */
const FORCE_UNIT_ACCESS = 0x4000_0000;
/** AD, deallocate, in command dword 11 of Dataset Management (NVM command set 1.0, 3.2.3, figure 37). */
const DEALLOCATE = 4;
/** Bytes of a range of Dataset Management (NVM command set 1.0, 3.2.3.1). */
export const TRIM_RANGE_BYTES = 16;

/** Entries that are prepared at least, so that one call of the queue loop does not end after a single completion. */
const LEAST_PREPARED = 4;
/** Entries that are prepared at most. The time of a completion is recorded after the call, so a call must not take long. */
export const MOST_PREPARED = 64;

/**
 * Entries of the queues of a job: those in flight, and as many prepared ones as there is room for.
 *
 * @param most largest number of entries that the controller takes (CAP.MQES + 1)
 */
export function queueEntries(depth: number, most: number): number {
  return Math.min(depth + 1 + Math.min(MOST_PREPARED, Math.max(LEAST_PREPARED, depth)), most);
}

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

/**
 * The I/Os that a job sends next. Their entries stand beyond the tail of the submission queue, complete except for command
 * id and data pointer. The words that all entries have in common are written once.
 */
export class PreparedEntries {
  /** Number of prepared entries from the tail on. */
  ready = 0;
  /** True when the limit of bytes allows no more than is {@link ready}. */
  exhausted = false;
  /** The block that each entry of the queue is for. */
  readonly block: Float64Array;
  /** {@link CommandUse} of each entry of the queue. */
  readonly use: Uint8Array;
  /** The sizes of I/Os in bytes, and for each entry of the queue which of them it has. */
  readonly sizes: readonly number[];
  readonly size: Uint8Array;
  /** True when the blocks that were written are read back. */
  readingBack = false;
  readonly #job: Job;
  readonly #queue: QueuePair;
  readonly #loop: QueueLoop;
  readonly #verification: Verification | null;
  readonly #readBlocks: BlockSequence;
  readonly #writeBlocks: BlockSequence;
  readonly #mix: Xoshiro128;
  /** {@link CommandUse} of all I/Os, or free when reads and writes are mixed. */
  readonly #onlyUse: number;
  /** By {@link CommandUse}: command dword 0 without command id; by use and size: dword 12. */
  readonly #cdw0: Uint32Array;
  readonly #cdw12: Uint32Array;
  readonly #lbasPerUnit: number;
  /** By size: the blocks that it covers. */
  readonly #spans: Float64Array;
  /** Chooses sizes; null when there is one. */
  readonly #draw: SizeDraw | null;
  /** Words of a set of data pointers. */
  readonly #setWords: number;
  /** The set of the ranges of trims. */
  readonly #rangeSet: number;
  #bytesLeft: number;

  constructor(job: Job, queue: QueuePair, loop: QueueLoop, verification: Verification | null) {
    this.#job = job;
    this.#queue = queue;
    this.#loop = loop;
    this.#verification = verification;
    this.#readBlocks = sequenceOf(job);
    // As in fio, reads and writes of a sequential mix go through the region each for itself.
    this.#writeBlocks = isMixed(job.workload) && !isRandom(job.workload) ? sequenceOf(job) : this.#readBlocks;
    this.#mix = Xoshiro128.fromSeed(job.seed ^ (job.index + 1));
    const [first = 'read'] = directionsOf(job.workload);
    this.#onlyUse = isMixed(job.workload)
      ? CommandUse.free
      : trimsAndWrites(job.workload)
        ? TRIMMING
        : USE_OF[first];
    const flags = job.sgl ? Psdt.sglContiguousMetadata << 14 : 0;
    const { read, write, datasetManagement } = NvmOpcode;
    this.#cdw0 = Uint32Array.of(0, flags | read, flags | write, flags | datasetManagement);
    this.sizes = ioSizes(job.workload, job.blockSize, job.split);
    const lengths = this.sizes.map((bytes) => bytes / job.lbaSize - 1);
    const withFua = (fua: boolean): number[] =>
      lengths.map((blocks) => blocks | (fua ? FORCE_UNIT_ACCESS : 0));
    this.#cdw12 = Uint32Array.from([
      ...lengths,
      ...withFua(job.fua.read),
      ...withFua(job.fua.write),
      ...lengths,
    ]);
    this.#lbasPerUnit = job.unit / job.lbaSize;
    this.#spans = Float64Array.from(this.sizes, (bytes) => bytes / job.unit);
    this.#draw = job.split === null ? null : new SizeDraw(job, job.split, this.sizes);
    this.#setWords = job.depth * DATA_POINTER_WORDS;
    this.#rangeSet = (pointerSets(job) - 1) * this.#setWords;
    this.#bytesLeft = job.byteLimit;
    this.block = new Float64Array(queue.entries);
    this.use = new Uint8Array(queue.entries);
    this.size = new Uint8Array(queue.entries);
    const words = queue.submissions;
    words.fill(0);
    loop.sets.fill(0);
    for (let entry = 0; entry < queue.entries; entry++) {
      words[entry * SQE_WORDS + SqeWord.nsid] = job.nsid;
    }
  }

  /** Prepares entries until `count` of them are ready, or the limit of bytes is reached. */
  prepare(count: number): void {
    const words = this.#queue.submissions;
    const entries = this.#queue.entries;
    const firstLba = this.#job.firstLba;
    const lbasPerUnit = this.#lbasPerUnit;
    const draw = this.#draw;
    const sizeCount = this.sizes.length;
    let slot = this.#queue.tail + this.ready;
    if (slot >= entries) slot -= entries;
    for (let ready = this.ready; ready < count; ready++) {
      const use = this.#nextUse();
      let size = 0;
      if (draw !== null) {
        if (this.#bytesLeft <= 0) {
          this.exhausted = true;
          this.ready = ready;
          return;
        }
        size = use === READING ? draw.read() : use === WRITING ? draw.write() : draw.trim();
        this.#bytesLeft -= this.sizes[size] as number;
        this.size[slot] = size;
        this.#loop.sets[slot] = size * this.#setWords;
      }
      const block = this.#nextBlock(use, this.#spans[size] as number);
      const lba = firstLba + block * lbasPerUnit;
      const at = slot * ENTRY_WORDS;
      words[at + CDW0] = this.#cdw0[use] as number;
      if (use === TRIMMING) {
        // One range, which is filled in when the buffer is known.
        words[at + CDW10] = 0;
        words[at + CDW11] = DEALLOCATE;
        words[at + CDW12] = 0;
        this.#loop.sets[slot] = this.#rangeSet;
      } else {
        words[at + CDW10] = lba;
        words[at + CDW11] = lba / 2 ** 32;
        words[at + CDW12] = this.#cdw12[use * sizeCount + size] as number;
      }
      this.block[slot] = block;
      this.use[slot] = use;
      slot = slot + 1 === entries ? 0 : slot + 1;
    }
    if (count > this.ready) this.ready = count;
  }

  /** Prepares the write that follows a trim. Nothing else may be prepared. */
  prepareWrite(block: number, size: number): void {
    const slot = this.#queue.tail;
    const at = slot * ENTRY_WORDS;
    const words = this.#queue.submissions;
    const lba = this.lbaOf(block);
    words[at + CDW0] = this.#cdw0[WRITING] as number;
    words[at + CDW10] = lba;
    words[at + CDW11] = lba / 2 ** 32;
    words[at + CDW12] = this.#cdw12[WRITING * this.sizes.length + size] as number;
    this.#loop.sets[slot] = size * this.#setWords;
    this.block[slot] = block;
    this.size[slot] = size;
    this.use[slot] = WRITING;
    this.ready = 1;
  }

  /** The first LBA of a block. */
  lbaOf(block: number): number {
    return this.#job.firstLba + block * this.#lbasPerUnit;
  }

  /** Drops what is prepared, and begins to read back what was written. */
  readBack(): void {
    this.readingBack = true;
    this.ready = 0;
  }

  #nextBlock(use: number, span: number): number {
    if (this.readingBack && this.#verification !== null) return this.#verification.nextWritten();
    return use === WRITING ? this.#writeBlocks.next(span) : this.#readBlocks.next(span);
  }

  #nextUse(): number {
    if (this.readingBack) return READING;
    if (this.#onlyUse !== CommandUse.free) return this.#onlyUse;
    return this.#mix.fraction() >= this.#job.readShare ? WRITING : READING;
  }
}

function sequenceOf({ workload, ioBlocks, startBlock, seed, index, distribution }: Job): BlockSequence {
  if (!isRandom(workload)) return new SequentialSequence(ioBlocks, startBlock);
  const ownSeed = (seed + index) >>> 0;
  switch (distribution.kind) {
    case 'once':
      return new ShuffledSequence(ioBlocks, ownSeed);
    case 'zipf':
      return new ZipfSequence(ioBlocks, distribution.theta, ownSeed);
    case 'uniform':
      return new RandomSequence(ioBlocks, ownSeed);
  }
}
