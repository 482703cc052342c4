// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import type { QueueLoop } from '../nvme/host/queue-loop';
import type { QueuePair } from '../nvme/host/queue-pair';
import { CommandTable, CommandUse } from './command-table';
import { CompletedBatch } from './completed-batch';
import { trims, trimsAndWrites, type Direction, type Job } from './job';
import { MOST_PREPARED, type PreparedEntries } from './job-entries';
import { JobSubmissions, type JobQueuePair } from './job-submissions';
import { JobTally } from './job-tally';
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
 *
 * When the controller goes away the queue holds what is in flight ({@link hold}), and goes on with another queue pair
 * ({@link attach}): buffers and command ids are the same, so that what was in flight is sent again as it was.
 */
export class JobQueue {
  readonly tally: JobTally;
  readonly verification: Verification | null;
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

  readonly #job: Job;
  #queue: QueuePair;
  #loop: QueueLoop;
  readonly #submissions: JobSubmissions;
  readonly #prepared: PreparedEntries;
  /** Entries that are prepared for the loop; 0 when each turn needs a look. */
  readonly #mostPrepared: number;
  readonly #commands: CommandTable;
  readonly #batch: CompletedBatch;
  readonly #trimsAndWrites: boolean;
  /** Null when I/Os are sent as fast as they complete. */
  readonly #pacing: Pacing | null;
  readonly #sizesDiffer: boolean;
  /** Command ids that were sent together. */
  readonly #issued: Int32Array;
  /** When the controller went away, in milliseconds. */
  #held = 0;

  /** @param memory the memory of the job, mapped in this thread */
  constructor(job: Job, memory: ArrayBuffer, queue: JobQueuePair) {
    const { depth, bufferBytes, dataOffset } = job;
    this.#job = job;
    this.limit = depth;
    this.tally = new JobTally(job);
    const data = new Uint32Array(memory, dataOffset, (depth * bufferBytes) / 4);
    this.verification = job.verify ? new Verification(job, data) : null;
    this.#queue = queue.pair;
    this.#loop = queue.loop;
    this.#commands = new CommandTable(depth);
    this.#batch = new CompletedBatch(depth);
    this.#submissions = new JobSubmissions(job, memory, data, queue, this.#commands, this.verification);
    this.#prepared = this.#submissions.prepared;
    this.#pacing = isUnlimited(job.pace) ? null : new Pacing(job.pace);
    this.#trimsAndWrites = trimsAndWrites(job.workload);
    const eachTurn = job.verify || this.#pacing !== null || trims(job.workload);
    this.#mostPrepared = eachTurn ? 0 : Math.min(MOST_PREPARED, queue.pair.entries - 1 - depth);
    this.#sizesDiffer = job.split !== null;
    this.#issued = new Int32Array(depth);
  }

  /** True when nothing is in flight. */
  get idle(): boolean {
    return this.inFlight === 0;
  }

  /** True when something is left to be sent. */
  get unfinished(): boolean {
    return this.#submissions.unfinished;
  }

  /** Number of commands in flight. */
  get inFlight(): number {
    return this.#commands.inFlight;
  }

  /** Number of commands that wait for the next controller. */
  get heldCount(): number {
    return this.#commands.heldCount;
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

  /** Begins to send; the pace counts from here. */
  begin(): void {
    if (this.#pacing !== null) this.#pacing.started = this.now;
    this.send();
  }

  /** Goes on with reading back what was written. */
  readBack(verification: Verification): void {
    this.#submissions.readBack(verification);
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
    this.#submissions.end();
  }

  /**
   * The controller has gone: takes what it has completed, which holds, and keeps the rest for the next one. The queue pair is
   * not used any more.
   *
   * @returns number of I/Os that were done
   */
  hold(): number {
    let count = 0;
    for (let taken; (taken = this.#reap()) > 0; count += taken) this.#takeBatch();
    this.#commands.hold();
    this.#held = this.now = performance.now();
    return count;
  }

  /**
   * Goes on with a queue pair of a controller that has come back: sends again what was in flight. Its latency counts from when
   * it was sent first.
   */
  attach(queue: JobQueuePair): void {
    this.#queue = queue.pair;
    this.#loop = queue.loop;
    this.#submissions.attach(queue);
    this.now = performance.now();
    this.#pacing?.pass(this.now - this.#held);
    this.#queue.ring();
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
      this.#mostPrepared > 0 &&
      this.#commands.freeCount === this.#job.depth - this.limit &&
      this.#submissions.remaining > 0;
    if (full) {
      const count = this.#keepFull(patient ? LOOP_PATIENCE : 0);
      if (count > 0) return count;
    }
    // After the loop the queue is empty, or a completion is next that the loop does not take.
    for (let polls = full || !patient ? 1 : IDLE_POLLS; polls > 0; polls--) {
      const count = this.#reap();
      if (count === 0) continue;
      // Otherwise the clock is read, and the batch recorded, after the doorbell was rung.
      if (this.verification !== null) this.#takeBatch();
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
    const submissions = this.#submissions;
    const pacing = this.#prepared.readingBack ? null : this.#pacing;
    let count = 0;
    for (; count < room; count++) {
      if (pacing !== null) {
        if (this.idle && count === 0) pacing.drained(this.now);
        if (pacing.due > this.now) break;
      }
      const cid = submissions.next();
      if (cid < 0) break;
      this.#issued[count] = cid;
      if (pacing !== null) pacing.sent(submissions.bytesOf(cid));
    }
    const recorded = this.verification !== null;
    if (recorded) this.now = performance.now();
    this.#queue.ring();
    if (!recorded && this.#batch.size > 0) {
      this.now = performance.now();
      this.#batch.record(this.now, this.#commands, this.tally);
      submissions.prepareNext();
    }
    const { sent } = this.#commands;
    for (let index = 0; index < count; index++) sent[this.#issued[index] as number] = this.now;
  }

  /** Runs the loop of a full queue, and records what it did. */
  #keepFull(patience: number): number {
    const prepared = this.#prepared;
    const submissions = this.#submissions;
    const { cids, times } = this.#loop;
    const entries = this.#queue.entries;
    const { use, sent, block, size } = this.#commands;
    const { readTimes, writeTimes } = this.#batch;
    prepared.prepare(Math.min(this.#mostPrepared, submissions.remaining));
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
      if (use[cid] === CommandUse.reading) readTimes[reads++] = latency;
      else writeTimes[written++] = latency;
      sent[cid] = now;
      if (sizesDiffer) {
        this.#countBytes(use[cid] as number, cid);
        size[cid] = prepared.size[slot] as number;
      }
      use[cid] = prepared.use[slot] as number;
      block[cid] = prepared.block[slot] as number;
      slot = slot + 1 === entries ? 0 : slot + 1;
      batch++;
      if (index + 1 < count && times[index + 1] === now) continue;
      this.tally.countBatch(batch);
      batch = 0;
    }
    this.tally.read.recordAll(readTimes, reads);
    this.tally.write.recordAll(writeTimes, written);
    this.now = times[count - 1] as number;
    prepared.ready -= count;
    submissions.remaining = prepared.exhausted ? prepared.ready : submissions.remaining - count;
    return count;
  }

  /** Takes what has completed. Returns the number of I/Os, which are in the batch at hand. */
  #reap(): number {
    const queue = this.#queue;
    const commands = this.#commands;
    const batch = this.#batch;
    const use = commands.use;
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
      if (this.#sizesDiffer) this.#countBytes(used, cid);
      if (used === CommandUse.trimming) {
        batch.trims[trimmed++] = cid;
        if (this.#trimsAndWrites && !this.#over) {
          commands.trimmed[commands.trimmedCount++] = cid;
          continue;
        }
      } else if (used === CommandUse.reading) batch.reads[reads++] = cid;
      else batch.writes[written++] = cid;
      commands.free[commands.freeCount++] = cid;
    }
    batch.readCount = reads;
    batch.writeCount = written;
    batch.trimCount = trimmed;
    return reads + written + trimmed;
  }

  /** Takes the completion of a command that failed, or that was not sent. */
  #takeUnusual(cid: number, status: number): void {
    const { use, block, depth } = this.#commands;
    if (cid >= depth || use[cid] === CommandUse.free) {
      this.stray = cid;
      return;
    }
    this.stop();
    this.failed ??= {
      status,
      direction: DIRECTION_OF[use[cid] as number] ?? 'read',
      lba: this.#prepared.lbaOf(block[cid] as number),
    };
    this.#commands.release(cid);
  }

  /** Reads the clock, records the batch at hand, and compares its data before the buffers are used again. */
  #takeBatch(): void {
    this.now = performance.now();
    if (!this.#prepared.readingBack) this.#batch.record(this.now, this.#commands, this.tally);
    if (this.verification !== null) this.#batch.compare(this.verification, this.#commands);
  }

  #countBytes(used: number, cid: number): void {
    const bytes = this.tally.bytesByUse;
    bytes[used] = (bytes[used] as number) + this.#submissions.bytesOf(cid);
  }
}
