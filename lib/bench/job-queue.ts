// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { NvmOpcode } from '../nvme/spec';
import { QueuePair, type Doorbells } from '../nvme/host';
import { ScriptQueueLoop, completeEntry, type QueueLoop } from '../nvme/host/queue-loop';
import { dataPointers } from './data-pointers';
import { CommandUse, EntriesAhead, MOST_AHEAD } from './entries-ahead';
import { LatencyHistogram } from './histogram';
import type { JobPlan } from './plan';
import { DEPTH_SLOTS, batchSlot } from './results';
import { Verification } from './verification';

// Constants of this module: what is imported through a barrel is read through a getter at every use.
const clock = performance;
const slotOfBatch = batchSlot;
const complete = completeEntry;
const { read: READ, write: WRITE } = NvmOpcode;
const { free: FREE, reading: READING, writing: WRITING } = CommandUse;
const CID_MASK = 0xffff;
/**
 * An exchange waits so long for a completion, in microseconds: longer than SPDK's target takes, a thousand times a second, to look for
 * messages on its socket. After that colder code goes on.
 */
const EXCHANGE_PATIENCE = 20;
/** Polls that find nothing between two looks at the clock and at the wish to stop. */
const IDLE_POLLS = 1024;

/** A command that failed. */
export interface FailedCommand {
  readonly status: number;
  readonly opcode: number;
  readonly lba: number;
}

/**
 * The queue pair of a job, with `depth` I/Os in flight.
 *
 * Nothing on the path of an I/O sends a message, makes a promise or allocates. What does not change is in the entries
 * before; doorbells are rung once per batch, next I/Os first; the clock is read once per batch, when the device is at work
 * again, so that an I/O's latency has the time in it that its successor took to be sent.
 *
 * A queue that is full is kept so by an {@link QueueLoop}, with entries written ahead. What needs a look between a
 * completion and the next command, verification or a rate, goes one turn at a time: reap, record, send.
 */
export class JobQueue {
  readonly readLatency = new LatencyHistogram();
  readonly writeLatency = new LatencyHistogram();
  /** Doorbell writes and polls by batch size; see `batchSlot`. */
  readonly batchCounts = new Float64Array(DEPTH_SLOTS);
  /** I/Os that may still be sent. A double from the beginning, so that V8 changes it in place. */
  remaining = Infinity;
  /** When the clock was read last, in milliseconds. */
  now = 0;
  /** When the job began. */
  started = 0;
  /** Sends nothing more, for a wish or a failure, and does not read back. */
  stopped = false;
  /** The first command that failed. */
  failed: FailedCommand | undefined;
  /** True when the device completed a command that was not sent: what it is at cannot be known. */
  astray = false;
  readonly verification: Verification | null;

  readonly #plan: JobPlan;
  readonly #queue: QueuePair;
  readonly #ahead: EntriesAhead;
  /** Entries that an exchange has; 0 when there are none. */
  readonly #mostAhead: number;
  readonly #loop: QueueLoop;
  readonly #pointers: Uint32Array;
  /** Of each command id: what it is used for, when it was sent in milliseconds, its block, whether its data is checked. */
  readonly #use: Uint8Array;
  readonly #sent: Float64Array;
  readonly #block: Float64Array;
  readonly #checked: Uint8Array;
  /** Command ids that are not in flight, a stack. */
  readonly #free: Int32Array;
  #freeCount: number;
  #sentInAll = 0;
  /** Command ids of the batch at hand. */
  readonly #readsDone: Int32Array;
  readonly #writesDone: Int32Array;
  readonly #issued: Int32Array;
  #readCount = 0;
  #writeCount = 0;
  /** Latencies of an exchange, in ns. */
  readonly #readTimes = new Float64Array(MOST_AHEAD);
  readonly #writeTimes = new Float64Array(MOST_AHEAD);

  /** @param loop the loop of the addon, where doorbells are mapped */
  constructor(plan: JobPlan, memory: ArrayBuffer, doorbells: Doorbells, loop?: QueueLoop) {
    const { depth, blockSize, dataOffset, queue } = plan;
    this.#plan = plan;
    this.remaining = plan.ioLimit;
    const data = new Uint32Array(memory, dataOffset, (depth * blockSize) / 4);
    this.verification = plan.verify ? new Verification(plan, data) : null;
    const { words, sgl } = dataPointers(plan, memory);
    this.#pointers = words;
    this.#queue = new QueuePair(queue, memory, doorbells);
    this.#ahead = new EntriesAhead(plan, this.#queue, this.verification, sgl);
    const eachTurn = plan.verify || plan.rate !== Infinity;
    this.#mostAhead = eachTurn ? 0 : Math.min(MOST_AHEAD, queue.entries - 1 - depth);
    this.#loop = loop ?? new ScriptQueueLoop(this.#queue, doorbells, depth, MOST_AHEAD);
    this.#loop.pointers.set(words);
    this.#use = new Uint8Array(depth);
    this.#sent = new Float64Array(depth);
    this.#block = new Float64Array(depth);
    this.#checked = new Uint8Array(depth);
    this.#free = Int32Array.from({ length: depth }, (_, index) => depth - 1 - index);
    this.#freeCount = depth;
    this.#readsDone = new Int32Array(depth);
    this.#writesDone = new Int32Array(depth);
    this.#issued = new Int32Array(depth);
  }

  /** True when nothing is in flight. */
  get idle(): boolean {
    return this.#freeCount === this.#plan.depth;
  }

  /** True when more may be in flight. */
  get wanting(): boolean {
    return this.#freeCount > 0 && this.remaining > 0;
  }

  /** Milliseconds until the rate lets the next I/O be sent; Infinity when it is not the rate that is waited for. */
  get nextSubmission(): number {
    if (!this.wanting || this.#plan.rate === Infinity) return Infinity;
    const due = this.started + (this.#sentInAll * 1000) / this.#plan.rate;
    return Math.max(0, due - clock.now());
  }

  /** What was measured so far is not part of the result. */
  forget(): void {
    this.readLatency.reset();
    this.writeLatency.reset();
    this.batchCounts.fill(0);
  }

  /** Goes on with reading what was written. */
  readBack(verification: Verification): void {
    this.#ahead.readBack();
    this.remaining = verification.written;
    this.send();
  }

  /**
   * Takes completions, records them, and sends I/Os in their place.
   *
   * @param patient whether to wait a little for completions
   * @returns number of I/Os that are done
   */
  work(patient: boolean): number {
    const full = this.#mostAhead > 0 && this.#freeCount === 0 && this.remaining > 0;
    if (full) {
      const count = this.#exchangeAhead(patient ? EXCHANGE_PATIENCE : 0);
      if (count > 0) return count;
    }
    // After an exchange there is nothing, or what it does not take.
    for (let polls = full || !patient ? 1 : IDLE_POLLS; polls > 0; polls--) {
      const count = this.#reap();
      if (count === 0) continue;
      if (this.verification !== null) this.#recordAndCheck(this.verification);
      this.send();
      return count;
    }
    return 0;
  }

  /**
   * Sends I/Os with the free command ids, and rings the doorbell once for all. With a batch at hand that is not recorded
   * yet, the clock is read then, for its I/Os and for those sent; without one it was read just before.
   */
  send(): void {
    let budget = Math.min(this.#freeCount, this.remaining);
    if (this.#plan.rate !== Infinity && !this.#ahead.readingBack) {
      const due = Math.floor(((this.now - this.started) * this.#plan.rate) / 1000) + 1;
      budget = Math.min(budget, Math.max(0, due - this.#sentInAll));
    }
    this.remaining -= budget;
    this.#sentInAll += budget;
    for (let index = 0; index < budget; index++) {
      const cid = this.#free[--this.#freeCount] as number;
      this.#issued[index] = cid;
      this.#submit(cid);
    }
    const recorded = this.verification !== null;
    if (recorded) this.now = clock.now();
    this.#queue.ring();
    if (!recorded && this.#readCount + this.#writeCount > 0) {
      this.now = clock.now();
      this.#record();
      // While the device works: the next entry is chosen, and its cache line fetched from the device's core.
      this.#ahead.prepare(1);
    }
    for (let index = 0; index < budget; index++) this.#sent[this.#issued[index] as number] = this.now;
  }

  /** The queue is full: each completion is followed by an entry that was written ahead. */
  #exchangeAhead(patience: number): number {
    const ahead = this.#ahead;
    const { cids, times } = this.#loop;
    const entries = this.#queue.entries;
    const use = this.#use;
    const sent = this.#sent;
    ahead.prepare(Math.min(this.#mostAhead, this.remaining));
    let slot = this.#queue.tail;
    const count = this.#queue.runLoop(this.#loop, ahead.ready, patience);
    if (count === 0) return 0;
    let reads = 0;
    let written = 0;
    let batch = 0;
    for (let index = 0; index < count; index++) {
      const cid = cids[index] as number;
      const now = times[index] as number;
      const latency = (now - (sent[cid] as number)) * 1e6;
      // Never trust the peer: the same command twice in one batch.
      if (latency === 0) this.astray = true;
      if (use[cid] === READING) this.#readTimes[reads++] = latency;
      else this.#writeTimes[written++] = latency;
      sent[cid] = now;
      use[cid] = ahead.use[slot] as number;
      this.#block[cid] = ahead.block[slot] as number;
      slot = slot + 1 === entries ? 0 : slot + 1;
      batch++;
      if (index + 1 < count && times[index + 1] === now) continue;
      this.#countBatch(batch);
      batch = 0;
    }
    this.readLatency.recordAll(this.#readTimes, reads);
    this.writeLatency.recordAll(this.#writeTimes, written);
    this.now = times[count - 1] as number;
    ahead.ready -= count;
    this.remaining -= count;
    this.#sentInAll += count;
    return count;
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
      this.astray = true;
      return;
    }
    this.stop();
    this.failed ??= {
      status,
      opcode: this.#use[cid] === WRITING ? WRITE : READ,
      lba: this.#plan.firstLba + (this.#block[cid] as number) * (this.#plan.blockSize / this.#plan.lbaSize),
    };
    this.#use[cid] = FREE;
    this.#free[this.#freeCount++] = cid;
  }

  stop(): void {
    this.stopped = true;
    this.remaining = 0;
  }

  #record(): void {
    const reads = this.#readCount;
    const written = this.#writeCount;
    if (reads > 0) this.readLatency.recordBatch(this.now, this.#sent, this.#readsDone, reads);
    if (written > 0) this.writeLatency.recordBatch(this.now, this.#sent, this.#writesDone, written);
    this.#countBatch(reads + written);
  }

  #countBatch(size: number): void {
    const slot = slotOfBatch(size);
    this.batchCounts[slot] = (this.batchCounts[slot] as number) + 1;
  }

  /** With verification the data is compared before its buffer is used again, and the clock is read before that. */
  #recordAndCheck(verification: Verification): void {
    this.now = clock.now();
    if (!this.#ahead.readingBack) this.#record();
    for (let index = 0; index < this.#writeCount; index++)
      verification.markWritten(this.#block[this.#writesDone[index] as number] as number);
    for (let index = 0; index < this.#readCount; index++) {
      const cid = this.#readsDone[index] as number;
      if (this.#checked[cid] !== 0) verification.check(cid, this.#block[cid] as number);
    }
  }

  /** Completes the next entry, and claims it. */
  #submit(cid: number): void {
    const ahead = this.#ahead;
    ahead.prepare(1);
    ahead.ready--;
    const verification = this.verification;
    const words = this.#queue.submissions;
    const slot = this.#queue.tail;
    const at = this.#queue.claim();
    const block = ahead.block[slot] as number;
    const use = ahead.use[slot] as number;
    complete(words, at, cid, this.#pointers);
    this.#block[cid] = block;
    this.#use[cid] = use;
    if (verification === null) return;
    if (use === WRITING) verification.fill(cid, block);
    // A write that is in flight together with the read may be executed before or after it.
    this.#checked[cid] = use === READING && verification.isWritten(block) ? 1 : 0;
  }
}
