// SPDX-License-Identifier: MIT
import type { QueueLoop } from '../nvme/host/queue-loop';
import type { QueuePair } from '../nvme/host/queue-pair';
import { completeEntry } from '../nvme/host/script-queue-loop';
import { CommandUse, type CommandTable } from './command-table';
import { trimsAndWrites, type Job } from './job';
import { storeDataPointers } from './data-pointers';
import { PreparedEntries } from './job-entries';
import type { Verification } from './verification';

/** The queue pair of a job, and what keeps it full. */
export interface JobQueuePair {
  readonly pair: QueuePair;
  readonly loop: QueueLoop;
}

/** What a job sends: chooses the next I/O and its command id, and completes its entry in the submission queue. */
export class JobSubmissions {
  /** I/Os that may still be sent. A double from the beginning, so that V8 changes it in place. */
  remaining = Infinity;
  readonly prepared: PreparedEntries;
  readonly #job: Job;
  readonly #memory: ArrayBuffer;
  readonly #commands: CommandTable;
  readonly #verification: Verification | null;
  readonly #trimsAndWrites: boolean;
  /** The data buffers, for the ranges of trims. */
  readonly #data: Uint32Array;
  #pair: QueuePair;
  #loop: QueueLoop;

  /**
   * @param memory the memory of the job, mapped in this thread
   * @param data the buffers of all command ids in it
   */
  constructor(
    job: Job,
    memory: ArrayBuffer,
    data: Uint32Array,
    { pair, loop }: JobQueuePair,
    commands: CommandTable,
    verification: Verification | null,
  ) {
    this.remaining = job.ioLimit;
    this.#job = job;
    this.#memory = memory;
    this.#data = data;
    this.#pair = pair;
    this.#loop = loop;
    this.#commands = commands;
    this.#verification = verification;
    this.#trimsAndWrites = trimsAndWrites(job.workload);
    this.prepared = new PreparedEntries(job, pair, loop, verification);
    storeDataPointers(job, memory, loop.pointers);
  }

  /** True when something is left to be sent. */
  get unfinished(): boolean {
    return this.remaining > 0 || this.#commands.trimmedCount > 0;
  }

  /** Bytes of the I/O of a command id. */
  bytesOf(cid: number): number {
    return this.prepared.sizes[this.#commands.size[cid] as number] as number;
  }

  /**
   * Claims an entry for the next I/O. The doorbell is the caller's.
   *
   * @returns its command id; -1 when there is nothing to send, or no id is free
   */
  next(): number {
    const prepared = this.prepared;
    const commands = this.#commands;
    let cid;
    if (commands.trimmedCount > 0) {
      cid = commands.trimmed[--commands.trimmedCount] as number;
      prepared.prepareIo(CommandUse.writing, commands.block[cid] as number, commands.size[cid] as number);
    } else {
      if (commands.freeCount === 0 || this.remaining <= 0) return -1;
      prepared.prepare(1);
      if (prepared.ready === 0) {
        this.remaining = 0;
        return -1;
      }
      this.remaining--;
      cid = commands.free[--commands.freeCount] as number;
    }
    this.#claim(cid);
    return cid;
  }

  /** While the device works: chooses the next block, and fetches the cache line of its entry from the device's core. */
  prepareNext(): void {
    if (!this.#trimsAndWrites && this.remaining > 0) this.prepared.prepare(1);
  }

  /** Nothing more is sent of the workload. Blocks that were trimmed and not written stay so. */
  end(): void {
    this.remaining = 0;
    this.#commands.dropTrimmed();
  }

  /** Goes on with reading back what was written. */
  readBack(verification: Verification): void {
    this.prepared.readBack();
    this.remaining = verification.written;
  }

  /**
   * Goes on in another queue pair of the same length: what was held is claimed again, with the command ids and buffers that it
   * had, and what was prepared is prepared there.
   */
  attach({ pair, loop }: JobQueuePair): void {
    const { prepared } = this;
    const { use, block, size } = this.#commands;
    const before = prepared.take();
    this.#pair = pair;
    this.#loop = loop;
    prepared.attach(pair, loop);
    storeDataPointers(this.#job, this.#memory, loop.pointers);
    for (const cid of this.#commands.takeHeld()) {
      prepared.prepareIo(use[cid] as number, block[cid] as number, size[cid] as number);
      this.#claim(cid);
    }
    for (const io of before) prepared.prepareIo(io.use, io.block, io.size);
  }

  /** Completes the prepared entry at the tail for a command id, and claims it. */
  #claim(cid: number): void {
    const prepared = this.prepared;
    prepared.ready--;
    const verification = this.#verification;
    const slot = this.#pair.tail;
    const block = prepared.block[slot] as number;
    const use = prepared.use[slot] as number;
    const set = this.#loop.sets[slot] as number;
    completeEntry(this.#pair.submissions, this.#pair.claim(), cid, this.#loop.pointers, set);
    const commands = this.#commands;
    commands.block[cid] = block;
    commands.size[cid] = prepared.size[slot] as number;
    commands.use[cid] = use;
    if (use === CommandUse.trimming) this.#storeRange(cid, block);
    if (verification === null) return;
    if (use === CommandUse.writing) verification.fill(cid, block);
    // A write that is in flight together with the read may be executed before or after it.
    commands.compared[cid] = use === CommandUse.reading && verification.isWritten(block) ? 1 : 0;
  }

  /** Puts the range of a trim into the buffer of its command id: attributes, length, first LBA (NVM command set 1.0, 3.2.3.1). */
  #storeRange(cid: number, block: number): void {
    const at = (cid * this.#job.bufferBytes) / 4;
    const lba = this.prepared.lbaOf(block);
    const data = this.#data;
    data[at] = 0;
    data[at + 1] = this.bytesOf(cid) / this.#job.lbaSize;
    data[at + 2] = lba;
    data[at + 3] = lba / 2 ** 32;
  }
}
