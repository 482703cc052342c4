// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { NvmOpcode, SQE_WORDS, SqeWord, highWord, prpListLength } from '../nvme/spec';
import { NVME_PAGE, QueuePair, type Doorbells } from '../nvme/host';
import { LatencyHistogram } from './histogram';
import { JobState, isRandom, writes, type JobOutcome, type JobPlan } from './plan';
import {
  RandomSequence,
  SequentialSequence,
  ShuffledSequence,
  Xoshiro128,
  type BlockSequence,
} from './random';
import { DEPTH_SLOTS, batchSlot } from './results';
import { checkBlock, describeBlock, fillBlock } from './verify-pattern';

/** Polls that find nothing between two looks at the clock and at the wish to stop. */
const IDLE_POLLS = 2048;
/**
 * A device that completes nothing for so long is slow, or waits for the core that this loop keeps busy: then polling rests
 * for a moment, so that the two do not take turns of a scheduler's time slice, 4 ms each.
 */
const PATIENCE_MILLISECONDS = 1;
/** A device that completes nothing for so long has failed. */
const STALL_MILLISECONDS = 30_000;
/** Pass number in the pattern of verified blocks. Every pass of a run writes the same, so that the order does not matter. */
const GENERATION = 1;

// Constants of this module: what is imported through a barrel is read through a getter at every use.
const {
  cdw0: CDW0,
  prp1Low: PRP1_LOW,
  prp1High: PRP1_HIGH,
  prp2Low: PRP2_LOW,
  prp2High: PRP2_HIGH,
} = SqeWord;
const { cdw10: CDW10, cdw11: CDW11 } = SqeWord;
const { read: READ, write: WRITE } = NvmOpcode;

/** Without a run time, a random job touches every block once; with one, it draws them with repetition. */
function sequenceOf({ workload, ioBlocks, startBlock, seed, index, runtimeMs }: JobPlan): BlockSequence {
  if (!isRandom(workload)) return new SequentialSequence(ioBlocks, startBlock);
  const own = (seed + index) >>> 0;
  return runtimeMs === Infinity ? new ShuffledSequence(ioBlocks, own) : new RandomSequence(ioBlocks, own);
}

/**
 * The loop of the benchmark: keeps `depth` I/Os in flight on one queue pair.
 *
 * Nothing on the path of an I/O sends a message, calls native code, makes a promise or allocates: entries are
 * prefilled with what does not change, doorbells are rung once per batch, and the clock is read once per batch.
 */
export class Job {
  readonly readLatency = new LatencyHistogram();
  readonly writeLatency = new LatencyHistogram();
  /** Doorbell writes and polls by batch size; see `batchSlot`. */
  readonly batchCounts = new Float64Array(DEPTH_SLOTS);
  /** Milliseconds of the workload itself, without reading back. */
  elapsedMs = 0;

  readonly #plan: JobPlan;
  readonly #state: JobState;
  readonly #queue: QueuePair;
  readonly #data: Uint32Array;
  readonly #blocks: BlockSequence;
  readonly #mix: Xoshiro128;
  /** PRP1 and PRP2 of each command id, as they go into the entry: four words. */
  readonly #prps: Uint32Array;
  readonly #submitted: Float64Array;
  readonly #blockOf: Float64Array;
  readonly #isWrite: Uint8Array;
  /** Whether the block that a command id reads had been written when the command was sent. */
  readonly #isChecked: Uint8Array;
  readonly #idle: number[] = [];
  readonly #lbasPerIo: number;
  /** One bit per I/O-sized block: written and completed. Only with verify. */
  readonly #written: Uint8Array;

  #reads = 0;
  #writes = 0;
  #started = 0;
  #now = 0;
  #lastProgress = 0;
  #left: number;
  #finishing = false;
  #verifying = false;
  #verifyNext = 0;
  #status = 0;
  #failedOpcode = 0;
  #failedLba = 0;
  #verified = 0;
  #mismatches = 0;
  #firstMismatch: string | undefined;
  #stalled = false;
  /** Whether {@link #now} was read for the batch at hand. */
  #clockRead = false;

  constructor(plan: JobPlan, memory: ArrayBuffer, doorbells: Doorbells) {
    this.#plan = plan;
    this.#state = new JobState(plan.state);
    this.#queue = new QueuePair(plan.queue, memory, doorbells);
    this.#data = new Uint32Array(memory, plan.dataOffset, (plan.depth * plan.blockSize) / 4);
    this.#blocks = sequenceOf(plan);
    this.#mix = Xoshiro128.fromSeed(plan.seed ^ (plan.index + 1));
    this.#lbasPerIo = plan.blockSize / plan.lbaSize;
    this.#left = plan.runtimeMs === Infinity ? plan.ioBlocks : Infinity;
    this.#submitted = new Float64Array(plan.depth);
    this.#blockOf = new Float64Array(plan.depth);
    this.#isWrite = new Uint8Array(plan.depth);
    this.#isChecked = new Uint8Array(plan.depth);
    this.#written = new Uint8Array(plan.verify ? Math.ceil(plan.ioBlocks / 8) : 0);
    this.#prps = new Uint32Array(plan.depth * 4);
    this.#prefill(memory);
  }

  get reads(): number {
    return this.#reads;
  }

  get writes(): number {
    return this.#writes;
  }

  get outcome(): JobOutcome {
    return {
      status: this.#status,
      failedOpcode: this.#failedOpcode,
      failedLba: this.#failedLba,
      verified: this.#verified,
      mismatches: this.#mismatches,
      firstMismatch: this.#firstMismatch,
      stalled: this.#stalled,
    };
  }

  /** Runs for up to `milliseconds`; false when the job is done. */
  slice(milliseconds: number): boolean {
    const queue = this.#queue;
    const depth = this.#plan.depth;
    if (this.#started === 0) this.#begin();
    const until = performance.now() + milliseconds;
    let idlePolls = 0;
    for (;;) {
      const count = queue.poll(depth, this.#complete);
      if (count > 0) {
        queue.ring();
        idlePolls = 0;
        const slot = batchSlot(count);
        this.batchCounts[slot] = (this.batchCounts[slot] as number) + 1;
        const elapsed = this.#now / 1e6 - this.#started;
        if (!this.#verifying) this.elapsedMs = elapsed;
        this.#state.publish(this.#reads, this.#writes, elapsed);
        this.#lastProgress = this.#now;
        this.#clockRead = false;
        if (queue.outstanding === 0 && !this.#next()) return false;
        if (this.#now / 1e6 < until) continue;
        if (this.#heed()) return false;
        return true;
      }
      if (++idlePolls < IDLE_POLLS) continue;
      idlePolls = 0;
      this.#now = performance.now() * 1e6;
      if (this.#heed()) return false;
      if (this.#now - this.#lastProgress > PATIENCE_MILLISECONDS * 1e6) this.#state.rest();
      if (this.#now / 1e6 >= until) return true;
    }
  }

  #begin(): void {
    this.#started = performance.now();
    this.#now = this.#started * 1e6;
    this.#lastProgress = this.#now;
    for (let cid = 0; cid < this.#plan.depth; cid++) this.#submit(cid);
    this.#queue.ring();
  }

  /** Looks at the clock and the wishes from outside; true when the job must end with commands in flight. */
  #heed(): boolean {
    const wish = this.#state.wish;
    if (wish === 2 || this.#stalled) return true;
    if (wish === 1) {
      this.#finishing = true;
      this.#verifyNext = Infinity;
    }
    if (this.#now - this.#lastProgress < STALL_MILLISECONDS * 1e6) return false;
    this.#stalled = true;
    return true;
  }

  /** All commands are done: go on to reading back, or end. */
  #next(): boolean {
    if (this.#status !== 0 || !this.#plan.verify || !writes(this.#plan.workload)) return false;
    if (!this.#verifying && this.#verifyNext !== Infinity) {
      this.#verifying = true;
      this.#state.verifying = true;
      this.#finishing = false;
    }
    for (const cid of this.#idle.splice(0)) this.#submit(cid);
    this.#queue.ring();
    return this.#queue.outstanding > 0;
  }

  readonly #complete = (cid: number, status: number): void => {
    if (!this.#clockRead) {
      this.#clockRead = true;
      this.#now = performance.now() * 1e6;
      if (this.#now / 1e6 - this.#started >= this.#plan.runtimeMs) this.#finishing = true;
    }
    if (cid >= this.#plan.depth) {
      // Never trust the peer: a command id that was not sent. What it completes cannot be known.
      this.#stalled = true;
      return;
    }
    if (status !== 0) {
      this.#fail(cid, status);
    } else if (this.#isWrite[cid] !== 0) {
      this.#writes++;
      this.writeLatency.record(this.#now - (this.#submitted[cid] as number));
      if (this.#plan.verify) this.#markWritten(this.#blockOf[cid] as number);
    } else if (this.#verifying) {
      this.#check(cid);
    } else {
      this.#reads++;
      this.readLatency.record(this.#now - (this.#submitted[cid] as number));
      if (this.#isChecked[cid] !== 0) this.#check(cid);
    }
    this.#submit(cid);
  };

  /** Puts the next I/O of a command id into the queue; the doorbell is rung later, once for all. */
  #submit(cid: number): void {
    const plan = this.#plan;
    let block: number;
    let write = false;
    if (this.#verifying) {
      block = this.#nextWritten();
      if (block === Infinity) {
        this.#idle.push(cid);
        return;
      }
    } else {
      if (this.#finishing || this.#left === 0) {
        this.#idle.push(cid);
        return;
      }
      this.#left--;
      block = this.#blocks.next();
      write =
        plan.workload === 'randrw' ? this.#mix.next() >= plan.readShare * 2 ** 32 : writes(plan.workload);
      if (write && plan.verify) this.#fill(cid, block);
    }
    const words = this.#queue.submissions;
    const at = this.#queue.claim();
    const lba = plan.firstLba + block * this.#lbasPerIo;
    const prps = this.#prps;
    const prp = cid * 4;
    words[at + CDW0] = (cid << 16) | (write ? WRITE : READ);
    words[at + PRP1_LOW] = prps[prp] as number;
    words[at + PRP1_HIGH] = prps[prp + 1] as number;
    words[at + PRP2_LOW] = prps[prp + 2] as number;
    words[at + PRP2_HIGH] = prps[prp + 3] as number;
    words[at + CDW10] = lba;
    words[at + CDW11] = Math.floor(lba / 2 ** 32);
    this.#blockOf[cid] = block;
    this.#isWrite[cid] = write ? 1 : 0;
    // A write that is in flight together with the read may be executed before or after it.
    this.#isChecked[cid] = plan.verify && !write && this.#isWritten(block) ? 1 : 0;
    this.#submitted[cid] = this.#now;
  }

  /** Everything that does not change from I/O to I/O: namespace and length in the entries, the buffers' PRPs and lists. */
  #prefill(memory: ArrayBuffer): void {
    const { queue, depth, blockSize, iova, dataOffset, listOffset, nsid } = this.#plan;
    const words = this.#queue.submissions;
    words.fill(0);
    for (let entry = 0; entry < queue.entries; entry++) {
      words[entry * SQE_WORDS + SqeWord.nsid] = nsid;
      words[entry * SQE_WORDS + SqeWord.cdw12] = this.#lbasPerIo - 1;
    }
    for (let cid = 0; cid < depth; cid++) {
      const address = iova + dataOffset + cid * blockSize;
      const second = address - (address % NVME_PAGE) + NVME_PAGE;
      const count = prpListLength(address, blockSize, NVME_PAGE);
      let prp2 = address + blockSize > second ? second : 0;
      if (count > 0) {
        const list = new Uint32Array(memory, listOffset + cid * NVME_PAGE, count * 2);
        for (let entry = 0; entry < count; entry++) {
          list[entry * 2] = (second + entry * NVME_PAGE) >>> 0;
          list[entry * 2 + 1] = highWord(second + entry * NVME_PAGE);
        }
        prp2 = iova + listOffset + cid * NVME_PAGE;
      }
      this.#prps.set([address >>> 0, highWord(address), prp2 >>> 0, highWord(prp2)], cid * 4);
    }
  }

  #fail(cid: number, status: number): void {
    this.#finishing = true;
    this.#verifyNext = Infinity;
    if (this.#status !== 0) return;
    this.#status = status;
    this.#failedOpcode = this.#isWrite[cid] !== 0 ? NvmOpcode.write : NvmOpcode.read;
    this.#failedLba = this.#plan.firstLba + (this.#blockOf[cid] as number) * this.#lbasPerIo;
  }

  #fill(cid: number, block: number): void {
    const { lbaSize, firstLba, blockSize, seed } = this.#plan;
    const wordsPerLba = lbaSize / 4;
    for (let index = 0; index < this.#lbasPerIo; index++) {
      const lba = firstLba + block * this.#lbasPerIo + index;
      fillBlock(this.#data, (cid * blockSize) / 4 + index * wordsPerLba, wordsPerLba, lba, GENERATION, seed);
    }
  }

  #check(cid: number): void {
    const { lbaSize, firstLba, blockSize, seed } = this.#plan;
    const wordsPerLba = lbaSize / 4;
    const first = firstLba + (this.#blockOf[cid] as number) * this.#lbasPerIo;
    this.#verified++;
    for (let index = 0; index < this.#lbasPerIo; index++) {
      const at = (cid * blockSize) / 4 + index * wordsPerLba;
      if (checkBlock(this.#data, at, wordsPerLba, first + index, GENERATION, seed) === 'ok') continue;
      this.#mismatches++;
      this.#firstMismatch ??= describeBlock(this.#data, at, wordsPerLba, first + index, GENERATION, seed);
      return;
    }
  }

  #markWritten(block: number): void {
    const byte = Math.floor(block / 8);
    this.#written[byte] = (this.#written[byte] as number) | (1 << (block % 8));
  }

  #isWritten(block: number): boolean {
    return ((this.#written[Math.floor(block / 8)] as number) & (1 << (block % 8))) !== 0;
  }

  #nextWritten(): number {
    while (this.#verifyNext < this.#plan.ioBlocks && !this.#isWritten(this.#verifyNext)) this.#verifyNext++;
    return this.#verifyNext < this.#plan.ioBlocks ? this.#verifyNext++ : Infinity;
  }
}
