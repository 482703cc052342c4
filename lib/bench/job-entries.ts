// SPDX-License-Identifier: MIT
import { NVME_PAGE } from '../nvme/host/dma-arena';
import type { QueuePair } from '../nvme/host/queue-pair';
import { NvmOpcode } from '../nvme/spec/opcodes';
import { storePrp } from '../nvme/spec/prp';
import { DATA_POINTER_WORDS, storeSglDataBlock } from '../nvme/spec/sgl';
import { Psdt, SQE_WORDS, SqeWord } from '../nvme/spec/submission-entry';
import { isRandom, type Job } from './job';
import {
  RandomSequence,
  SequentialSequence,
  ShuffledSequence,
  Xoshiro128,
  ZipfSequence,
  type BlockSequence,
} from './random';
import type { Verification } from './verification';

// A name of another module is looked up in that module's exports at each use, which costs a tenth of an I/O here.
const ENTRY_WORDS = SQE_WORDS;
const { cdw0: CDW0, cdw10: CDW10, cdw11: CDW11 } = SqeWord;
const { read: READ, write: WRITE } = NvmOpcode;

/** What a command id is used for. */
export const CommandUse = { free: 0, reading: 1, writing: 2 } as const;
const { reading: READING, writing: WRITING } = CommandUse;

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

/**
 * Describes the data buffer of each command id by PRP1 and PRP2, or by an SGL descriptor. Buffers stay where they are, so
 * this is done once.
 *
 * @param memory the memory of the job; the PRP lists in it are filled
 * @param pointers takes {@link DATA_POINTER_WORDS} words for each command id
 */
export function storeDataPointers(job: Job, memory: ArrayBuffer, pointers: Uint32Array): void {
  const { depth, blockSize, iova, dataOffset, listOffset, sgl } = job;
  const lists = new Uint32Array(memory);
  const entry = new Uint32Array(SQE_WORDS);
  for (let cid = 0; cid < depth; cid++) {
    const address = iova + dataOffset + cid * blockSize;
    const list = listOffset + cid * NVME_PAGE;
    if (sgl) storeSglDataBlock(entry, SqeWord.prp1Low, address, blockSize);
    else storePrp(entry, 0, address, blockSize, NVME_PAGE, lists, list / 4, iova + list);
    const pointer = entry.subarray(SqeWord.prp1Low, SqeWord.prp1Low + DATA_POINTER_WORDS);
    pointers.set(pointer, cid * DATA_POINTER_WORDS);
  }
}

/**
 * The I/Os that a job sends next. Their entries stand beyond the tail of the submission queue, complete except for command
 * id and data pointer. The words that all entries have in common are written once.
 */
export class PreparedEntries {
  /** Number of prepared entries from the tail on. */
  ready = 0;
  /** The block that each entry of the queue is for. */
  readonly block: Float64Array;
  /** {@link CommandUse} of each entry of the queue. */
  readonly use: Uint8Array;
  /** True when the blocks that were written are read back. */
  readingBack = false;
  readonly #job: Job;
  readonly #queue: QueuePair;
  readonly #verification: Verification | null;
  readonly #blocks: BlockSequence;
  readonly #mix: Xoshiro128;
  /** CDW0 without opcode and command id. */
  readonly #flags: number;
  readonly #lbasPerIo: number;

  constructor(job: Job, queue: QueuePair, verification: Verification | null) {
    this.#job = job;
    this.#queue = queue;
    this.#verification = verification;
    this.#blocks = sequenceOf(job);
    this.#mix = Xoshiro128.fromSeed(job.seed ^ (job.index + 1));
    this.#flags = job.sgl ? Psdt.sglContiguousMetadata << 14 : 0;
    this.#lbasPerIo = job.blockSize / job.lbaSize;
    this.block = new Float64Array(queue.entries);
    this.use = new Uint8Array(queue.entries);
    const words = queue.submissions;
    words.fill(0);
    for (let entry = 0; entry < queue.entries; entry++) {
      words[entry * SQE_WORDS + SqeWord.nsid] = job.nsid;
      words[entry * SQE_WORDS + SqeWord.cdw12] = this.#lbasPerIo - 1;
    }
  }

  /** Prepares entries until `count` of them are ready. */
  prepare(count: number): void {
    const words = this.#queue.submissions;
    const entries = this.#queue.entries;
    const firstLba = this.#job.firstLba;
    let slot = this.#queue.tail + this.ready;
    if (slot >= entries) slot -= entries;
    for (let ready = this.ready; ready < count; ready++) {
      const block = this.#nextBlock();
      const write = this.#isWrite();
      const lba = firstLba + block * this.#lbasPerIo;
      const at = slot * ENTRY_WORDS;
      words[at + CDW0] = this.#flags | (write ? WRITE : READ);
      words[at + CDW10] = lba;
      words[at + CDW11] = lba / 2 ** 32;
      this.block[slot] = block;
      this.use[slot] = write ? WRITING : READING;
      slot = slot + 1 === entries ? 0 : slot + 1;
    }
    if (count > this.ready) this.ready = count;
  }

  /** Drops what is prepared, and begins to read back what was written. */
  readBack(): void {
    this.readingBack = true;
    this.ready = 0;
  }

  #nextBlock(): number {
    if (this.readingBack && this.#verification !== null) return this.#verification.nextWritten();
    return this.#blocks.next();
  }

  #isWrite(): boolean {
    const { workload } = this.#job;
    if (this.readingBack || workload === 'randread' || workload === 'read') return false;
    return workload !== 'randrw' || this.#mix.fraction() >= this.#job.readShare;
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
