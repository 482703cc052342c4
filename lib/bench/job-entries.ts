// SPDX-License-Identifier: MIT
import type { QueueLoop } from '../nvme/host/queue-loop';
import type { QueuePair } from '../nvme/host/queue-pair';
import { NvmOpcode } from '../nvme/spec/opcodes';
import { DATA_POINTER_WORDS } from '../nvme/spec/sgl';
import { Psdt, SQE_WORDS, SqeWord } from '../nvme/spec/submission-entry';
import { directionsOf, isMixed, isRandom, trimsAndWrites, type Direction, type Job } from './job';
import { SizeDraw, ioSizes } from './block-sizes';
import { CommandUse } from './command-table';
import { pointerSets } from './data-pointers';
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

const { reading: READING, writing: WRITING, trimming: TRIMMING } = CommandUse;

/** {@link CommandUse} of each direction. */
const USE_OF: Readonly<Record<Direction, number>> = { read: READING, write: WRITING, trim: TRIMMING };

/** FUA in command dword 12 of Read and Write (NVM command set 1.0, figures 43 and 67). */
const FORCE_UNIT_ACCESS = 0x4000_0000;
/** AD, deallocate, in command dword 11 of Dataset Management (NVM command set 1.0, 3.2.3, figure 37). */
const DEALLOCATE = 4;

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

/** An I/O that is prepared: what it does, at which block, and which of the sizes of the job's I/Os it has. */
interface PreparedIo {
  /** {@link CommandUse} */
  readonly use: number;
  readonly block: number;
  readonly size: number;
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
  #queue: QueuePair;
  #loop: QueueLoop;
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
    this.#clear();
  }

  /** Takes what is prepared out of the queue. */
  take(): PreparedIo[] {
    const taken = Array.from({ length: this.ready }, (_, index): PreparedIo => {
      const slot = (this.#queue.tail + index) % this.#queue.entries;
      const [use, block, size] = [this.use[slot], this.block[slot], this.size[slot]];
      return { use, block, size } as PreparedIo;
    });
    this.ready = 0;
    return taken;
  }

  /** Goes on in another queue of the same length, where nothing is prepared. */
  attach(queue: QueuePair, loop: QueueLoop): void {
    this.#queue = queue;
    this.#loop = loop;
    this.#clear();
  }

  /** Writes the words that all entries of the queue have in common. */
  #clear(): void {
    const words = this.#queue.submissions;
    words.fill(0);
    this.#loop.sets.fill(0);
    for (let entry = 0; entry < this.#queue.entries; entry++)
      words[entry * SQE_WORDS + SqeWord.nsid] = this.#job.nsid;
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

  /** Prepares a certain I/O behind those that are: the write that follows a trim, or one that was prepared or sent before. */
  prepareIo(use: number, block: number, size: number): void {
    const slot = (this.#queue.tail + this.ready) % this.#queue.entries;
    const at = slot * ENTRY_WORDS;
    const words = this.#queue.submissions;
    const lba = this.lbaOf(block);
    const trimming = use === TRIMMING;
    words[at + CDW0] = this.#cdw0[use] as number;
    words[at + CDW10] = trimming ? 0 : lba;
    words[at + CDW11] = trimming ? DEALLOCATE : lba / 2 ** 32;
    words[at + CDW12] = trimming ? 0 : (this.#cdw12[use * this.sizes.length + size] as number);
    this.#loop.sets[slot] = trimming ? this.#rangeSet : size * this.#setWords;
    this.block[slot] = block;
    this.size[slot] = size;
    this.use[slot] = use;
    this.ready++;
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
