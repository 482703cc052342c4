// SPDX-License-Identifier: MIT
import { NvmOpcode, Psdt, SQE_WORDS, SqeWord } from '../nvme/spec';
import type { QueuePair } from '../nvme/host';
import { isRandom, type JobPlan } from './plan';
import {
  RandomSequence,
  SequentialSequence,
  ShuffledSequence,
  Xoshiro128,
  ZipfSequence,
  type BlockSequence,
} from './random';
import type { Verification } from './verification';

// Constants of this module: what is imported through a barrel is read through a getter at every use.
const ENTRY_WORDS = SQE_WORDS;
const { cdw0: CDW0, cdw10: CDW10, cdw11: CDW11 } = SqeWord;
const { read: READ, write: WRITE } = NvmOpcode;
const SGL = Psdt.sglContiguousMetadata << 14;

/** What a command id is used for. */
export const CommandUse = { free: 0, reading: 1, writing: 2 } as const;
const { reading: READING, writing: WRITING } = CommandUse;

/** Entries written ahead: enough to make the call of an exchange cheap, few enough not to keep a completion waiting. */
const LEAST_AHEAD = 4;
/** Most completions of one exchange. */
export const MOST_AHEAD = 64;

/**
 * Entries of the queues of a job: those in flight, and as many written ahead as there is room for.
 *
 * @param most largest number of entries that the controller takes (CAP.MQES + 1)
 */
export function queueEntries(depth: number, most: number): number {
  return Math.min(depth + 1 + Math.min(MOST_AHEAD, Math.max(LEAST_AHEAD, depth)), most);
}

/**
 * The I/Os that a job does next: their entries stand beyond the tail of the submission queue, with all but command id and
 * data pointer. What all entries have in common is written once.
 */
export class EntriesAhead {
  /** Entries written, from the tail on. */
  ready = 0;
  /** Of each entry of the queue: its block, and its {@link CommandUse}. */
  readonly block: Float64Array;
  readonly use: Uint8Array;
  /** Takes the blocks that were written instead of the workload's, and reads them. */
  readingBack = false;
  readonly #plan: JobPlan;
  readonly #queue: QueuePair;
  readonly #verification: Verification | null;
  readonly #blocks: BlockSequence;
  readonly #mix: Xoshiro128;
  /** Bits of CDW0 beside opcode and command id. */
  readonly #flags: number;
  readonly #lbasPerIo: number;

  /** @param sgl whether data pointers are SGL descriptors */
  constructor(plan: JobPlan, queue: QueuePair, verification: Verification | null, sgl: boolean) {
    this.#plan = plan;
    this.#queue = queue;
    this.#verification = verification;
    this.#blocks = sequenceOf(plan);
    this.#mix = Xoshiro128.fromSeed(plan.seed ^ (plan.index + 1));
    this.#flags = sgl ? SGL : 0;
    this.#lbasPerIo = plan.blockSize / plan.lbaSize;
    this.block = new Float64Array(queue.entries);
    this.use = new Uint8Array(queue.entries);
    const words = queue.submissions;
    words.fill(0);
    for (let entry = 0; entry < queue.entries; entry++) {
      words[entry * ENTRY_WORDS + SqeWord.nsid] = plan.nsid;
      words[entry * ENTRY_WORDS + SqeWord.cdw12] = this.#lbasPerIo - 1;
    }
  }

  /** Writes entries until there are `count`. */
  prepare(count: number): void {
    const words = this.#queue.submissions;
    const entries = this.#queue.entries;
    const firstLba = this.#plan.firstLba;
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

  /** Begins to read back what was written. */
  readBack(): void {
    this.readingBack = true;
    this.ready = 0;
  }

  #nextBlock(): number {
    if (this.readingBack && this.#verification !== null) return this.#verification.nextWritten();
    return this.#blocks.next();
  }

  #isWrite(): boolean {
    const { workload } = this.#plan;
    if (this.readingBack || workload === 'randread' || workload === 'read') return false;
    return workload !== 'randrw' || this.#mix.fraction() >= this.#plan.readShare;
  }
}

function sequenceOf({ workload, ioBlocks, startBlock, seed, index, distribution }: JobPlan): BlockSequence {
  if (!isRandom(workload)) return new SequentialSequence(ioBlocks, startBlock);
  const own = (seed + index) >>> 0;
  switch (distribution.kind) {
    case 'once':
      return new ShuffledSequence(ioBlocks, own);
    case 'zipf':
      return new ZipfSequence(ioBlocks, distribution.theta, own);
    case 'uniform':
      return new RandomSequence(ioBlocks, own);
  }
}
