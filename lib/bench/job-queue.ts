// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import type { Doorbells } from '../nvme/host/doorbells';
import { ScriptQueueLoop, completeEntry, type QueueLoop } from '../nvme/host/queue-loop';
import { QueuePair } from '../nvme/host/queue-pair';
import { LatencyHistogram } from './histogram';
import { trims, trimsAndWrites, type Direction, type Job } from './job';
import { CommandUse, MOST_PREPARED, PreparedEntries, pointerSets, storeDataPointers } from './job-entries';
import { COUNT_SLOTS, batchSlot } from './job-result';
import { Pacing, isUnlimited } from './pacing';
import { Verification } from './verification';

const CID_MASK = 0xffff;
/**
 * How long the queue loop waits for a completion, in microseconds. SPDK's target looks for messages on its socket a thousand
 * times a second, which takes it less time than this. A loop that returned earlier would go on with colder code each time.
 */
const LOOP_PATIENCE = 20;
/** Polls that find nothing between two reads of the clock, which also look at the wish to stop. */
const IDLE_POLLS = 1024;

/** The direction of each {@link CommandUse}. */
const DIRECTION_OF: readonly (Direction | undefined)[] = [undefined, 'read', 'write', 'trim'];

/** A command that failed. */
export interface FailedCommand {
  /** Status field of its completion, 15 bits. */
  readonly status: number;
  readonly direction: Direction;
  readonly lba: number;
}

/**
 * The queue pair of a job, with up to `depth` I/Os in flight.
 *
 * Nothing on the path of an I/O sends a message, makes a promise or allocates. A full queue is kept full by a
 * {@link QueueLoop}: entries are prepared, the loop submits one for each completion that it takes and rings the doorbells once
 * a batch, and the latencies are recorded after its return. Verification, a pace and trims need a look between a completion and
 * the next command, so they go one turn at a time: reap, send, ring, read the clock, record. The clock is read after the doorbell
 * was rung. So the latency of an I/O includes the time that it took to send its successor, whose own latency begins then.
 *
 * With verification the order is: reap, read the clock, record, compare, send, read the clock, ring. The data must be compared
 * before the next I/Os are sent, as they use the same buffers, and the time for that is not part of any latency.
 */
export class JobQueue {
  readonly readLatency = new LatencyHistogram();
  readonly writeLatency = new LatencyHistogram();
  readonly trimLatency = new LatencyHistogram();
  /** Batches by size; see {@link batchSlot}. */
  readonly batchCounts = new Float64Array(COUNT_SLOTS);
  /** I/Os that may still be sent. A double from the beginning, so that V8 changes it in place. */
  remaining = Infinity;
  /** When the clock was read last, in milliseconds. */
  now = 0;
  /** Most I/Os in flight, up to the depth of the job. */
  limit: number;
  /** True once nothing more is to be sent or read back, by a wish or after a failure. */
  stopped = false;
  /** True when the workload has ended, so that nothing follows on what completes. */
  #over = false;
  /** The first command that failed. */
  failed: FailedCommand | undefined;
  /** A command id that the device completed though it was not in flight: nobody knows what the device does. -1 for none. */
  stray = -1;
  readonly verification: Verification | null;

  readonly #job: Job;
  readonly #queue: QueuePair;
  readonly #prepared: PreparedEntries;
  /** Entries that are prepared for the loop; 0 when each turn needs a look. */
  readonly #mostPrepared: number;
  readonly #loop: QueueLoop;
  /** By command id: {@link CommandUse}, when it was sent in milliseconds, its block and size, whether its data is to be compared. */
  readonly #use: Uint8Array;
  readonly #sent: Float64Array;
  readonly #block: Float64Array;
  readonly #size: Uint8Array;
  readonly #compared: Uint8Array;
  /** A stack of the command ids that are not in flight. */
  readonly #free: Int32Array;
  #freeCount: number;
  /** A stack of the command ids whose block is trimmed, and is to be written next. They are not in flight. */
  readonly #trimmed: Int32Array;
  #trimmedCount = 0;
  readonly #trimsAndWrites: boolean;
  /** Null when I/Os are sent as fast as they complete. */
  readonly #pacing: Pacing | null;
  /** Bytes of the completed I/Os by {@link CommandUse}, where sizes differ. */
  readonly #bytes = new Float64Array(4);
  readonly #sizesDiffer: boolean;
  /** The data buffers, for the ranges of trims. */
  readonly #data: Uint32Array;
  /** Command ids of the batch at hand. */
  readonly #readsDone: Int32Array;
  readonly #writesDone: Int32Array;
  readonly #trimsDone: Int32Array;
  readonly #issued: Int32Array;
  #readCount = 0;
  #writeCount = 0;
  #trimCount = 0;
  /** Latencies of the batch at hand, or of a run of the loop, in ns. */
  readonly #readTimes: Float64Array;
  readonly #writeTimes: Float64Array;

  /**
   * @param memory the memory of the job, mapped in this thread
   * @param loop the loop that keeps the queue full. Default: the one in TypeScript
   */
  constructor(job: Job, memory: ArrayBuffer, doorbells: Doorbells, loop?: QueueLoop) {
    const { depth, bufferBytes, dataOffset, queue } = job;
    this.#job = job;
    this.remaining = job.ioLimit;
    this.limit = depth;
    this.#data = new Uint32Array(memory, dataOffset, (depth * bufferBytes) / 4);
    this.verification = job.verify ? new Verification(job, this.#data) : null;
    this.#queue = new QueuePair(queue, memory, doorbells);
    this.#loop = loop ?? new ScriptQueueLoop(this.#queue, doorbells, depth, pointerSets(job), MOST_PREPARED);
    this.#prepared = new PreparedEntries(job, this.#queue, this.#loop, this.verification);
    this.#pacing = isUnlimited(job.pace) ? null : new Pacing(job.pace);
    this.#trimsAndWrites = trimsAndWrites(job.workload);
    const eachTurn = job.verify || this.#pacing !== null || trims(job.workload);
    this.#mostPrepared = eachTurn ? 0 : Math.min(MOST_PREPARED, queue.entries - 1 - depth);
    this.#sizesDiffer = job.split !== null;
    storeDataPointers(job, memory, this.#loop.pointers);
    this.#use = new Uint8Array(depth);
    this.#sent = new Float64Array(depth);
    this.#block = new Float64Array(depth);
    this.#size = new Uint8Array(depth);
    this.#compared = new Uint8Array(depth);
    this.#free = Int32Array.from({ length: depth }, (_, index) => depth - 1 - index);
    this.#freeCount = depth;
    this.#trimmed = new Int32Array(depth);
    this.#readsDone = new Int32Array(depth);
    this.#writesDone = new Int32Array(depth);
    this.#trimsDone = new Int32Array(depth);
    this.#issued = new Int32Array(depth);
    this.#readTimes = new Float64Array(Math.max(depth, MOST_PREPARED));
    this.#writeTimes = new Float64Array(Math.max(depth, MOST_PREPARED));
  }

  /** True when nothing is in flight. */
  get idle(): boolean {
    return this.inFlight === 0;
  }

  /** True when something is left to be sent. */
  get unfinished(): boolean {
    return this.remaining > 0 || this.#trimmedCount > 0;
  }

  /** Number of commands in flight. */
  get inFlight(): number {
    return this.#job.depth - this.#freeCount - this.#trimmedCount;
  }

  /** True when more may be in flight. */
  get wanting(): boolean {
    return this.inFlight < this.limit && this.unfinished;
  }

  /** Milliseconds until the pace lets the next I/O be sent; Infinity when it is not the pace that is waited for. */
  get nextSubmission(): number {
    if (this.#pacing === null || !this.wanting) return Infinity;
    return Math.max(0, this.#pacing.due - performance.now());
  }

  /** Bytes of the completed I/Os of a direction. */
  bytes(direction: Direction): number {
    if (direction === 'read')
      return this.#sizesDiffer
        ? (this.#bytes[CommandUse.reading] as number)
        : this.readLatency.count * this.#job.blockSize;
    if (direction === 'write')
      return this.#sizesDiffer
        ? (this.#bytes[CommandUse.writing] as number)
        : this.writeLatency.count * this.#job.blockSize;
    return this.#sizesDiffer
      ? (this.#bytes[CommandUse.trimming] as number)
      : this.trimLatency.count * this.#job.blockSize;
  }

  /** Begins to send; the pace counts from here. */
  begin(): void {
    if (this.#pacing !== null) this.#pacing.started = this.now;
    this.send();
  }

  /** Drops what was measured so far, as at the end of the ramp. */
  forget(): void {
    this.readLatency.reset();
    this.writeLatency.reset();
    this.trimLatency.reset();
    this.#bytes.fill(0);
    this.batchCounts.fill(0);
  }

  /** Goes on with reading back what was written. */
  readBack(verification: Verification): void {
    this.#prepared.readBack();
    this.remaining = verification.written;
    this.send();
  }

  /** Sends nothing more. What is in flight stays there. */
  stop(): void {
    this.stopped = true;
    this.end();
  }

  /** Sends nothing more of the workload. Blocks that were trimmed and not written stay so. */
  end(): void {
    this.#over = true;
    this.remaining = 0;
    while (this.#trimmedCount > 0)
      this.#free[this.#freeCount++] = this.#trimmed[--this.#trimmedCount] as number;
  }

  /**
   * Takes completions, records them, and sends I/Os in their place.
   *
   * @param patient whether to wait a little for completions
   * @returns number of I/Os that are done
   */
  work(patient: boolean): number {
    // Where entries are prepared, nothing is trimmed.
    const full =
      this.#mostPrepared > 0 && this.#freeCount === this.#job.depth - this.limit && this.remaining > 0;
    if (full) {
      const count = this.#keepFull(patient ? LOOP_PATIENCE : 0);
      if (count > 0) return count;
    }
    // After the loop the queue is empty, or a completion is next that the loop does not take.
    for (let polls = full || !patient ? 1 : IDLE_POLLS; polls > 0; polls--) {
      const count = this.#reap();
      if (count === 0) continue;
      if (this.verification !== null) this.#recordAndCompare(this.verification);
      this.send();
      return count;
    }
    return 0;
  }

  /**
   * Sends I/Os with the free command ids, and rings the doorbell once for all of them. If a batch is at hand that is not
   * recorded yet, the clock is read after that, for the batch and for the I/Os sent; without one it was read just before.
   */
  send(): void {
    const room = this.limit - this.inFlight;
    const pacing = this.#prepared.readingBack ? null : this.#pacing;
    let count = 0;
    for (; count < room; count++) {
      if (pacing !== null) {
        if (this.idle && count === 0) pacing.drained(this.now);
        if (pacing.due > this.now) break;
      }
      const cid = this.#nextCommand();
      if (cid < 0) break;
      this.#issued[count] = cid;
      this.#submit(cid);
      if (pacing !== null) pacing.sent(this.#prepared.sizes[this.#size[cid] as number] as number);
    }
    const recorded = this.verification !== null;
    if (recorded) this.now = performance.now();
    this.#queue.ring();
    if (!recorded && this.#readCount + this.#writeCount + this.#trimCount > 0) {
      this.now = performance.now();
      this.#record();
      // While the device works, choose the next block, and fetch the cache line of its entry from the device's core.
      if (!this.#trimsAndWrites && this.remaining > 0) this.#prepared.prepare(1);
    }
    for (let index = 0; index < count; index++) this.#sent[this.#issued[index] as number] = this.now;
  }

  /** Runs the loop of a full queue, and records what it did. */
  #keepFull(patience: number): number {
    const prepared = this.#prepared;
    const { cids, times } = this.#loop;
    const entries = this.#queue.entries;
    const use = this.#use;
    const sent = this.#sent;
    prepared.prepare(Math.min(this.#mostPrepared, this.remaining));
    let slot = this.#queue.tail;
    const count = this.#queue.runLoop(this.#loop, prepared.ready, patience);
    if (count === 0) return 0;
    let reads = 0;
    let written = 0;
    let batch = 0;
    const sizesDiffer = this.#sizesDiffer;
    for (let index = 0; index < count; index++) {
      const cid = cids[index] as number;
      const now = times[index] as number;
      const latency = (now - (sent[cid] as number)) * 1e6;
      // Never trust the peer: the same command twice in one batch.
      if (latency === 0) this.stray = cid;
      if (use[cid] === CommandUse.reading) this.#readTimes[reads++] = latency;
      else this.#writeTimes[written++] = latency;
      sent[cid] = now;
      if (sizesDiffer) {
        this.#countBytes(cid);
        this.#size[cid] = prepared.size[slot] as number;
      }
      use[cid] = prepared.use[slot] as number;
      this.#block[cid] = prepared.block[slot] as number;
      slot = slot + 1 === entries ? 0 : slot + 1;
      batch++;
      if (index + 1 < count && times[index + 1] === now) continue;
      this.#countBatch(batch);
      batch = 0;
    }
    this.readLatency.recordAll(this.#readTimes, reads);
    this.writeLatency.recordAll(this.#writeTimes, written);
    this.now = times[count - 1] as number;
    prepared.ready -= count;
    this.remaining = prepared.exhausted ? prepared.ready : this.remaining - count;
    return count;
  }

  /** Takes what has completed. Returns the number of I/Os, which are in the lists of the batch at hand. */
  #reap(): number {
    const queue = this.#queue;
    const use = this.#use;
    const depth = this.#job.depth;
    let reads = 0;
    let written = 0;
    let trimmed = 0;
    for (let count = 0; count < depth; count++) {
      const completion = queue.reap();
      if (completion < 0) break;
      const cid = completion & CID_MASK;
      const used = cid < depth ? (use[cid] as number) : CommandUse.free;
      if (used === CommandUse.free || completion > CID_MASK) {
        this.#takeUnusual(cid, completion >>> 16);
        continue;
      }
      use[cid] = CommandUse.free;
      if (this.#sizesDiffer) this.#bytes[used] = (this.#bytes[used] as number) + this.#bytesOf(cid);
      if (used === CommandUse.trimming) {
        this.#trimsDone[trimmed++] = cid;
        if (this.#trimsAndWrites && !this.#over) {
          this.#trimmed[this.#trimmedCount++] = cid;
          continue;
        }
      } else if (used === CommandUse.reading) this.#readsDone[reads++] = cid;
      else this.#writesDone[written++] = cid;
      this.#free[this.#freeCount++] = cid;
    }
    this.#readCount = reads;
    this.#writeCount = written;
    this.#trimCount = trimmed;
    return reads + written + trimmed;
  }

  /** Takes the completion of a command that failed, or that was not sent. */
  #takeUnusual(cid: number, status: number): void {
    const { depth } = this.#job;
    if (cid >= depth || this.#use[cid] === CommandUse.free) {
      this.stray = cid;
      return;
    }
    this.stop();
    this.failed ??= {
      status,
      direction: DIRECTION_OF[this.#use[cid] as number] ?? 'read',
      lba: this.#prepared.lbaOf(this.#block[cid] as number),
    };
    this.#use[cid] = CommandUse.free;
    this.#free[this.#freeCount++] = cid;
  }

  #record(): void {
    const reads = this.#readCount;
    const written = this.#writeCount;
    const trimmed = this.#trimCount;
    for (let index = 0; index < reads; index++)
      this.#readTimes[index] = (this.now - (this.#sent[this.#readsDone[index] as number] as number)) * 1e6;
    for (let index = 0; index < written; index++)
      this.#writeTimes[index] = (this.now - (this.#sent[this.#writesDone[index] as number] as number)) * 1e6;
    this.readLatency.recordAll(this.#readTimes, reads);
    this.writeLatency.recordAll(this.#writeTimes, written);
    for (let index = 0; index < trimmed; index++)
      this.#writeTimes[index] = (this.now - (this.#sent[this.#trimsDone[index] as number] as number)) * 1e6;
    this.trimLatency.recordAll(this.#writeTimes, trimmed);
    this.#countBatch(reads + written + trimmed);
  }

  #countBatch(size: number): void {
    const slot = batchSlot(size);
    this.batchCounts[slot] = (this.batchCounts[slot] as number) + 1;
  }

  /** Reads the clock, then compares the data before its buffers are used again. */
  #recordAndCompare(verification: Verification): void {
    this.now = performance.now();
    if (!this.#prepared.readingBack) this.#record();
    for (let index = 0; index < this.#writeCount; index++)
      verification.markWritten(this.#block[this.#writesDone[index] as number] as number);
    for (let index = 0; index < this.#readCount; index++) {
      const cid = this.#readsDone[index] as number;
      if (this.#compared[cid] !== 0) verification.check(cid, this.#block[cid] as number);
    }
  }

  /** The command id of the next I/O, whose entry is prepared; -1 when there is nothing to send. */
  #nextCommand(): number {
    const prepared = this.#prepared;
    if (this.#trimmedCount > 0) {
      const cid = this.#trimmed[--this.#trimmedCount] as number;
      prepared.prepareWrite(this.#block[cid] as number, this.#size[cid] as number);
      return cid;
    }
    if (this.#freeCount === 0 || this.remaining <= 0) return -1;
    prepared.prepare(1);
    if (prepared.ready === 0) {
      this.remaining = 0;
      return -1;
    }
    this.remaining--;
    return this.#free[--this.#freeCount] as number;
  }

  #bytesOf(cid: number): number {
    return this.#prepared.sizes[this.#size[cid] as number] as number;
  }

  #countBytes(cid: number): void {
    const used = this.#use[cid] as number;
    this.#bytes[used] = (this.#bytes[used] as number) + this.#bytesOf(cid);
  }

  /** Puts the range of a trim into the buffer of its command id: attributes, length, first LBA (NVM command set 1.0, 3.2.3.1). */
  #storeRange(cid: number, block: number): void {
    const at = (cid * this.#job.bufferBytes) / 4;
    const lba = this.#prepared.lbaOf(block);
    const data = this.#data;
    data[at] = 0;
    data[at + 1] = this.#bytesOf(cid) / this.#job.lbaSize;
    data[at + 2] = lba;
    data[at + 3] = lba / 2 ** 32;
  }

  /** Completes the prepared entry, and claims it. */
  #submit(cid: number): void {
    const prepared = this.#prepared;
    prepared.ready--;
    const verification = this.verification;
    const slot = this.#queue.tail;
    const block = prepared.block[slot] as number;
    const use = prepared.use[slot] as number;
    const set = this.#loop.sets[slot] as number;
    completeEntry(this.#queue.submissions, this.#queue.claim(), cid, this.#loop.pointers, set);
    this.#block[cid] = block;
    this.#size[cid] = prepared.size[slot] as number;
    this.#use[cid] = use;
    if (use === CommandUse.trimming) this.#storeRange(cid, block);
    if (verification === null) return;
    if (use === CommandUse.writing) verification.fill(cid, block);
    // A write that is in flight together with the read may be executed before or after it.
    this.#compared[cid] = use === CommandUse.reading && verification.isWritten(block) ? 1 : 0;
  }
}
