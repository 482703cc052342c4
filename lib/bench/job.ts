// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { DATA_POINTER_WORDS, NvmOpcode, Psdt, SQE_WORDS, SqeWord } from '../nvme/spec';
import { QueuePair, type Doorbells } from '../nvme/host';
import { dataPointers } from './data-pointers';
import { LatencyHistogram } from './histogram';
import { JobState, isRandom, writes, type JobOutcome, type JobPlan } from './plan';
import {
  RandomSequence,
  SequentialSequence,
  ShuffledSequence,
  Xoshiro128,
  ZipfSequence,
  type BlockSequence,
} from './random';
import { DEPTH_SLOTS, batchSlot, type CpuUsage } from './results';
import { threadUsage, usageBetween } from './thread-usage';
import { Verification } from './verification';

/** Polls that find nothing between two looks at the clock and at the wish to stop. */
const IDLE_POLLS = 1024;
/** A device that completes nothing for so long has failed. */
const STALL_MILLISECONDS = 30_000;

// Constants of this module: what is imported through a barrel is read through a getter at every use.
const clock = performance;
const slotOfBatch = batchSlot;
const { cdw0: CDW0, prp1Low: DATA_POINTER, cdw10: CDW10, cdw11: CDW11 } = SqeWord;
const { read: READ, write: WRITE } = NvmOpcode;
const POINTER_WORDS = DATA_POINTER_WORDS;
const SGL = Psdt.sglContiguousMetadata << 14;
const CID_MASK = 0xffff;
const NONE = -1;

const NO_USAGE: CpuUsage = { userMs: 0, systemMs: 0, contextSwitches: 0, majorFaults: 0, minorFaults: 0 };

/** What a command id is used for. */
const FREE = 0;
const READING = 1;
const WRITING = 2;

/** How a slice of a job's run ended: with more to do, with nothing to do until a completion comes, or for good. */
export type SliceEnd = 'busy' | 'quiet' | 'done';

/**
 * The loop of the benchmark: keeps `depth` I/Os in flight on one queue pair.
 *
 * Nothing on the path of an I/O sends a message, calls native code, makes a promise or allocates. What does not change
 * is in the entries before; doorbells are rung once per batch, next I/Os first; the clock is read once per batch, when
 * the device is at work again, so that an I/O's latency has the time in it that its successor took to be sent.
 */
export class Job {
  readonly readLatency = new LatencyHistogram();
  readonly writeLatency = new LatencyHistogram();
  /** Doorbell writes and polls by batch size; see `batchSlot`. */
  readonly batchCounts = new Float64Array(DEPTH_SLOTS);
  /** Milliseconds of the workload itself, without ramp and without reading back. */
  elapsedMs = 0;
  /** What the workload cost the thread, without ramp and without reading back; known at its end. */
  cpu: CpuUsage = NO_USAGE;

  readonly #plan: JobPlan;
  readonly #state: JobState;
  readonly #queue: QueuePair;
  readonly #blocks: BlockSequence;
  readonly #mix: Xoshiro128;
  readonly #pointers: Uint32Array;
  /** Bits of CDW0 beside opcode and command id. */
  readonly #flags: number;
  readonly #lbasPerIo: number;
  readonly #verification: Verification | null;

  /** Of each command id: what it is used for, when it was sent in milliseconds, its block, whether its data is checked. */
  readonly #use: Uint8Array;
  readonly #sent: Float64Array;
  readonly #block: Float64Array;
  readonly #checked: Uint8Array;
  /** Command ids that are not in flight, a stack. */
  readonly #free: Int32Array;
  #freeCount = 0;
  /** Block of the entry that is claimed next, whose address is in it already; none otherwise. */
  #prepared = NONE;
  /** Command ids of the batch at hand. */
  readonly #readsDone: Int32Array;
  readonly #writesDone: Int32Array;
  readonly #issued: Int32Array;
  #readCount = 0;
  #writeCount = 0;

  /** I/Os still to be sent in this phase. */
  #remaining: number;
  #usageBefore = NO_USAGE;
  #now = 0;
  #started = 0;
  /** When the measured run begins, and when it ends. */
  #measured = 0;
  #deadline = 0;
  #sentInAll = 0;
  #lastProgress = 0;
  #readingBack = false;
  #stopped = false;
  #failed: { readonly status: number; readonly opcode: number; readonly lba: number } | undefined;
  #stalled = false;

  constructor(plan: JobPlan, memory: ArrayBuffer, doorbells: Doorbells) {
    const { depth, blockSize, dataOffset } = plan;
    this.#plan = plan;
    this.#state = new JobState(plan.state);
    this.#queue = new QueuePair(plan.queue, memory, doorbells);
    this.#blocks = sequenceOf(plan);
    this.#mix = Xoshiro128.fromSeed(plan.seed ^ (plan.index + 1));
    this.#lbasPerIo = blockSize / plan.lbaSize;
    const data = new Uint32Array(memory, dataOffset, (depth * blockSize) / 4);
    this.#verification = plan.verify ? new Verification(plan, data) : null;
    this.#use = new Uint8Array(depth);
    this.#sent = new Float64Array(depth);
    this.#block = new Float64Array(depth);
    this.#checked = new Uint8Array(depth);
    this.#free = Int32Array.from({ length: depth }, (_, index) => depth - 1 - index);
    this.#freeCount = depth;
    this.#readsDone = new Int32Array(depth);
    this.#writesDone = new Int32Array(depth);
    this.#issued = new Int32Array(depth);
    this.#remaining = plan.ioLimit;
    const { words, sgl } = dataPointers(plan, memory);
    this.#pointers = words;
    this.#flags = sgl ? SGL : 0;
    this.#prefill();
  }

  get reads(): number {
    return this.readLatency.count;
  }

  get writes(): number {
    return this.writeLatency.count;
  }

  get outcome(): JobOutcome {
    return {
      status: this.#failed?.status ?? 0,
      failedOpcode: this.#failed?.opcode ?? 0,
      failedLba: this.#failed?.lba ?? 0,
      verified: this.#verification?.verified ?? 0,
      mismatches: this.#verification?.mismatches ?? 0,
      firstMismatch: this.#verification?.firstMismatch,
      stalled: this.#stalled,
    };
  }

  /**
   * Runs for up to `milliseconds`.
   *
   * @param patience milliseconds without a completion after which the slice ends `quiet`
   */
  slice(milliseconds: number, patience = Infinity): SliceEnd {
    this.#now = clock.now();
    if (this.#started === 0) this.#begin();
    const until = this.#now + milliseconds;
    let emptyPolls = 0;
    for (;;) {
      if (this.#reap() > 0) {
        emptyPolls = 0;
        this.#turn();
        if (this.#now < this.#deadline && this.#now < until && this.#freeCount < this.#plan.depth) continue;
      } else {
        if (++emptyPolls < IDLE_POLLS && patience > 0) continue;
        emptyPolls = 0;
        this.#now = clock.now();
        // Command ids that wait for their turn: the rate is limited.
        if (this.#freeCount > 0 && this.#remaining > 0) this.#send();
      }
      if (!this.#advance()) return this.#end();
      const quiet = this.#now - this.#lastProgress >= patience;
      if (this.#now < until && !quiet) continue;
      this.#publish();
      return quiet ? 'quiet' : 'busy';
    }
  }

  /** The batch at hand is recorded, and others take the place of its I/Os. */
  #turn(): void {
    if (this.#verification !== null) this.#recordAndCheck(this.#verification);
    this.#send();
    this.#lastProgress = this.#now;
    if (!this.#readingBack) this.elapsedMs = this.#now - this.#measured;
  }

  /** Milliseconds until the rate lets the next I/O be sent; Infinity when it is not the rate that is waited for. */
  get nextSubmission(): number {
    if (this.#freeCount === 0 || this.#remaining === 0 || this.#plan.rate === Infinity) return Infinity;
    const due = this.#started + (this.#sentInAll * 1000) / this.#plan.rate;
    return Math.max(0, due - clock.now());
  }

  #begin(): void {
    const now = this.#now;
    const { rampMs, runtimeMs } = this.#plan;
    this.#started = now;
    this.#lastProgress = now;
    this.#measured = now;
    this.#deadline = now + (rampMs > 0 ? rampMs : runtimeMs);
    this.#state.phase = rampMs > 0 ? 'ramp' : 'run';
    this.#usageBefore = threadUsage();
    this.#send();
  }

  /** Heeds the clock, the wishes from outside, and the end of a phase; false when the job is over. */
  #advance(): boolean {
    const now = this.#now;
    const { wish } = this.#state;
    if (wish === 2 || this.#stalled) return false;
    if (wish === 1) this.#stop();
    if (now >= this.#deadline) this.#passDeadline();
    if (this.#freeCount === this.#plan.depth && this.#remaining === 0 && !this.#readBack()) return false;
    // With nothing in flight it is the rate that is waited for.
    if (this.#freeCount === this.#plan.depth) this.#lastProgress = now;
    if (now - this.#lastProgress >= STALL_MILLISECONDS) this.#stalled = true;
    return !this.#stalled;
  }

  /** The ramp is over, and what it measured is forgotten; or the run is, and what is in flight is waited for. */
  #passDeadline(): void {
    if (this.#state.phase !== 'ramp') {
      this.#remaining = 0;
      this.#deadline = Infinity;
      return;
    }
    this.#state.phase = 'run';
    this.#measured = this.#now;
    this.#deadline = this.#now + this.#plan.runtimeMs;
    this.#forget();
  }

  /** What was measured so far is not part of the result. */
  #forget(): void {
    this.elapsedMs = 0;
    this.readLatency.reset();
    this.writeLatency.reset();
    this.batchCounts.fill(0);
    this.#usageBefore = threadUsage();
  }

  /** All commands are done: begins to read back what was written; false when there is nothing to read back. */
  #readBack(): boolean {
    const verification = this.#verification;
    if (verification === null || !writes(this.#plan.workload)) return false;
    if (this.#readingBack || this.#stopped || verification.written === 0) return false;
    this.#readingBack = true;
    this.cpu = usageBetween(this.#usageBefore, threadUsage());
    this.#deadline = Infinity;
    this.#remaining = verification.written;
    this.#state.phase = 'verify';
    this.#send();
    return true;
  }

  /** Sends nothing more, and does not read back. */
  #stop(): void {
    this.#stopped = true;
    this.#remaining = 0;
  }

  #end(): SliceEnd {
    // A run that ends in its ramp has measured nothing.
    if (this.#state.phase === 'ramp') this.#forget();
    if (!this.#readingBack) this.cpu = usageBetween(this.#usageBefore, threadUsage());
    this.#publish();
    this.#state.phase = 'done';
    return 'done';
  }

  #publish(): void {
    this.#state.publish(this.reads, this.writes, this.elapsedMs);
  }

  /** Takes what has completed. Returns the number of I/Os; they are in the lists of the batch. */
  #reap(): number {
    const queue = this.#queue;
    const use = this.#use;
    const depth = this.#plan.depth;
    let reads = 0;
    let written = 0;
    for (let count = 0; count < depth; count++) {
      const completion = queue.reap();
      if (completion < 0) break;
      const cid = completion & CID_MASK;
      const used = cid < depth ? (use[cid] as number) : FREE;
      if (used === FREE || completion > CID_MASK) {
        this.#unusual(cid, completion >>> 16);
        continue;
      }
      use[cid] = FREE;
      this.#free[this.#freeCount++] = cid;
      if (used === READING) this.#readsDone[reads++] = cid;
      else this.#writesDone[written++] = cid;
    }
    this.#readCount = reads;
    this.#writeCount = written;
    return reads + written;
  }

  /** A command that failed, or a command id that was not sent. */
  #unusual(cid: number, status: number): void {
    if (cid >= this.#plan.depth || this.#use[cid] === FREE) {
      // Never trust the peer: what it completes with that id cannot be known.
      this.#stalled = true;
      return;
    }
    this.#stop();
    this.#failed ??= {
      status,
      opcode: this.#use[cid] === WRITING ? WRITE : READ,
      lba: this.#plan.firstLba + (this.#block[cid] as number) * this.#lbasPerIo,
    };
    this.#use[cid] = FREE;
    this.#free[this.#freeCount++] = cid;
  }

  #record(): void {
    const reads = this.#readCount;
    const written = this.#writeCount;
    if (reads > 0) this.readLatency.recordBatch(this.#now, this.#sent, this.#readsDone, reads);
    if (written > 0) this.writeLatency.recordBatch(this.#now, this.#sent, this.#writesDone, written);
    const slot = slotOfBatch(reads + written);
    this.batchCounts[slot] = (this.batchCounts[slot] as number) + 1;
  }

  /** With verification the data is compared before its buffer is used again, and the clock is read before that. */
  #recordAndCheck(verification: Verification): void {
    this.#now = clock.now();
    if (!this.#readingBack) this.#record();
    for (let index = 0; index < this.#writeCount; index++)
      verification.markWritten(this.#block[this.#writesDone[index] as number] as number);
    for (let index = 0; index < this.#readCount; index++) {
      const cid = this.#readsDone[index] as number;
      if (this.#checked[cid] !== 0) verification.check(cid, this.#block[cid] as number);
    }
  }

  /**
   * Sends I/Os with the free command ids, and rings the doorbell once for all. With a batch at hand that is not recorded
   * yet, the clock is read then, for its I/Os and for those sent; without one it was read just before.
   */
  #send(): void {
    let budget = Math.min(this.#freeCount, this.#remaining);
    if (this.#plan.rate !== Infinity && !this.#readingBack) {
      const due = Math.floor(((this.#now - this.#started) * this.#plan.rate) / 1000) + 1;
      budget = Math.min(budget, Math.max(0, due - this.#sentInAll));
    }
    this.#remaining -= budget;
    this.#sentInAll += budget;
    for (let index = 0; index < budget; index++) {
      const cid = this.#free[--this.#freeCount] as number;
      this.#issued[index] = cid;
      this.#submit(cid);
    }
    const recorded = this.#verification !== null;
    if (recorded) this.#now = clock.now();
    this.#queue.ring();
    if (!recorded && this.#readCount + this.#writeCount > 0) {
      this.#now = clock.now();
      this.#record();
      // While the device works: the next entry is chosen, and its cache line fetched from the device's core.
      this.#prepared = this.#storeBlock(this.#blocks.next());
    }
    for (let index = 0; index < budget; index++) this.#sent[this.#issued[index] as number] = this.#now;
  }

  #submit(cid: number): void {
    const verification = this.#verification;
    const readingBack = this.#readingBack && verification !== null;
    let block = this.#prepared;
    if (block === NONE)
      block = this.#storeBlock(readingBack ? verification.nextWritten() : this.#blocks.next());
    this.#prepared = NONE;
    const write = !readingBack && this.#isWrite();
    const words = this.#queue.submissions;
    const at = this.#queue.claim();
    const pointers = this.#pointers;
    const pointer = cid * POINTER_WORDS;
    words[at + CDW0] = (cid << 16) | this.#flags | (write ? WRITE : READ);
    words[at + DATA_POINTER] = pointers[pointer] as number;
    words[at + DATA_POINTER + 1] = pointers[pointer + 1] as number;
    words[at + DATA_POINTER + 2] = pointers[pointer + 2] as number;
    words[at + DATA_POINTER + 3] = pointers[pointer + 3] as number;
    this.#block[cid] = block;
    this.#use[cid] = write ? WRITING : READING;
    if (verification === null) return;
    if (write) verification.fill(cid, block);
    // A write that is in flight together with the read may be executed before or after it.
    this.#checked[cid] = !write && verification.isWritten(block) ? 1 : 0;
  }

  /** Stores the address of a block into the entry that is claimed next. Returns the block. */
  #storeBlock(block: number): number {
    const words = this.#queue.submissions;
    const at = this.#queue.next;
    const lba = this.#plan.firstLba + block * this.#lbasPerIo;
    words[at + CDW10] = lba;
    words[at + CDW11] = Math.floor(lba / 2 ** 32);
    return block;
  }

  #isWrite(): boolean {
    const { workload } = this.#plan;
    if (workload === 'randread' || workload === 'read') return false;
    return workload !== 'randrw' || this.#mix.fraction() >= this.#plan.readShare;
  }

  /** What does not change from I/O to I/O: namespace and length in the entries. */
  #prefill(): void {
    const { queue, nsid } = this.#plan;
    const words = this.#queue.submissions;
    words.fill(0);
    for (let entry = 0; entry < queue.entries; entry++) {
      words[entry * SQE_WORDS + SqeWord.nsid] = nsid;
      words[entry * SQE_WORDS + SqeWord.cdw12] = this.#lbasPerIo - 1;
    }
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
