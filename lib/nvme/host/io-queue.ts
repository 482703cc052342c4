// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../../errors';
import { NvmOpcode, nvmOpcodeName } from '../spec/opcodes';
import { detailOf, fusedPair, rejectPair, type IoCommand } from './io-command';
import { IoEntries } from './io-entries';
import type { CreatedQueuePair } from './queue-pairs';
import type { DmaArena } from './dma-arena';
import { NvmeStatusError, isOver } from './nvme-error';
import { NOTHING, type QueuePair } from './queue-pair';
import type { StatusWatch } from './status-watch';
import type { WriteCache } from './write-cache';

/** What an {@link IoQueue} is made of. */
interface IoQueueParts {
  readonly pair: CreatedQueuePair;
  /** Memory for PRP lists and the ranges of Dataset Management. */
  readonly arena: DmaArena;
  /** Bytes of the largest command. */
  readonly maxTransfer: number;
  /** Whether the controller takes SGLs: then one descriptor stands in for a PRP list. */
  readonly sgl: boolean;
  /** Name of the device, for messages. */
  readonly name: string;
  /** Opcodes of the commands that are submitted again when the connection was lost. */
  readonly repeated: ReadonlySet<number>;
  readonly cache: WriteCache;
  readonly watch: StatusWatch;
  readonly onClose: (queue: IoQueue) => void;
}

/** What a queue lost with its connection. */
export interface QueueLoss {
  /** Commands that failed. */
  readonly failed: number;
  /** Commands in flight that are submitted again. */
  readonly resubmitted: number;
}

/** An I/O that is not completed for so long is given up. Longer than the 30 s of a slow disk's own retries. */
const IO_TIMEOUT_SECONDS = 60;
const WATCH_MILLISECONDS = 1000;
/** How long completions are polled in one turn of the event loop. */
const TURN_MILLISECONDS = 0.1;

/**
 * I/O commands as promises, over one queue pair of its own. Made by `NvmeController.createIoQueue`, and given to the methods of a
 * namespace as `queue`. A {@link QueuePair} has less overhead and fewer comforts.
 *
 * @example
 * await using queue = await nvme.createIoQueue(128);
 * const memory = await device.dma.allocate(128 * 4096);
 * const { blockSize } = nvme.namespace(1);
 * const reads = Array.from({ length: 128 }, (_, index) =>
 *   nvme.namespace(1).read(memory, { lba: index, blocks: 1, offset: index * blockSize, queue }),
 * );
 * await Promise.all(reads);
 */
export class IoQueue {
  /** Most commands outstanding; more wait for their turn. */
  readonly depth: number;
  /** Commands that were completed so far. @internal */
  completed = 0;
  /** Another one after the connection was lost. */
  #pair: CreatedQueuePair;
  #queue: QueuePair;
  readonly #arena: DmaArena;
  readonly #entries: IoEntries;
  readonly #waiting: (IoCommand | undefined)[];
  /** Empty while there is no connection, so that commands wait. */
  #freeCids: number[];
  /** Commands that wait for a free command id. */
  readonly #turns: IoCommand[] = [];
  /** Seconds that the watchdog has counted. */
  #seconds = 0;
  #turnEnd = 0;
  readonly #name: string;
  readonly #repeated: ReadonlySet<number>;
  readonly #cache: WriteCache;
  readonly #watch: StatusWatch;
  readonly #onClose: (queue: IoQueue) => void;
  /** Whether the connection is lost, and the queue waits for {@link resume}. */
  #suspended = false;
  #ringScheduled = false;
  #polling = false;
  #watchdog: NodeJS.Timeout | undefined;
  #failure: Error | null = null;
  #closing: Promise<void> | undefined;

  /** @internal */
  constructor({ pair, arena, maxTransfer, sgl, name, repeated, cache, watch, onClose }: IoQueueParts) {
    this.#pair = pair;
    this.#queue = pair.queue;
    this.#arena = arena;
    this.#name = name;
    this.#repeated = repeated;
    this.#cache = cache;
    this.#watch = watch;
    this.#onClose = onClose;
    this.depth = pair.queue.capacity;
    this.#entries = new IoEntries(arena, this.depth, maxTransfer, sgl);
    this.#waiting = new Array<IoCommand | undefined>(this.depth);
    this.#freeCids = this.#allCids();
  }

  /** Commands in flight. */
  get outstanding(): number {
    if (this.#suspended) return 0;
    // Not the queue's own count, which a controller that completes what was never sent brings out of step.
    return this.depth - this.#freeCids.length;
  }

  /**
   * Runs a command of the NVM command set with at most one data buffer. For what {@link NvmeNamespace} does not offer.
   * While a device that comes back is waited for, commands wait too; `resubmit` of `NvmeController.attach` tells what becomes of
   * those in flight.
   *
   * @param opcode a value of `NvmOpcode`, or one of the vendor
   * @param nsid the namespace
   * @param lba CDW10 and CDW11 as one number: the first block, where the command has one. At most 2^53 - 1
   * @param cdw12 CDW12: the number of blocks less one in bits 15:0, and flags, where the command has them
   * @param address device address of the data, a multiple of 4; ignored when `length` is 0
   * @param length bytes of data, at most the controller's maximum
   * @throws NvmeStatusError; VfioUserError when the controller or its connection failed, when it did not complete a command for
   *   60 s, and when the queue was closed; DISCONNECTED for a Flush when acknowledged writes may have been lost with a connection
   */
  submit(
    opcode: number,
    nsid: number,
    lba: number,
    cdw12: number,
    address: number,
    length: number,
  ): Promise<void> {
    // Not an async function: that would make two more promises for each command.
    return new Promise<void>((resolve, reject) => {
      // No object is spread here: a copy of one with as many properties takes V8 microseconds.
      this.#begin({
        opcode,
        nsid,
        lba,
        cdw12,
        address,
        length,
        since: 0,
        covered: 0,
        fuse: 0,
        second: undefined,
        resolve,
        reject,
      });
    });
  }

  /**
   * Runs Compare and Write as one operation: two fused commands for the same blocks, in entries one behind the other, of which the
   * controller is told at once (NVMe base 2.0, 3.4.2). A pair that was in flight when the connection was lost fails.
   *
   * @param expected device address of what is compared
   * @param replacement device address of what is written
   * @internal
   */
  async compareAndWrite(
    nsid: number,
    lba: number,
    cdw12: number,
    expected: number,
    replacement: number,
    length: number,
  ): Promise<void> {
    if (this.depth < 2)
      throw outOfRange('a queue of depth 1 has no room for the two commands of Compare and Write');
    await fusedPair({ nsid, lba, cdw12, length }, expected, replacement, (first) => {
      this.#begin(first);
    });
  }

  /** Sends a command, or has it wait for its turn. */
  #begin(command: IoCommand): void {
    if (this.#failure !== null) rejectPair(command, this.#failure);
    // Two that are fused need two entries: nobody may overtake them for ever.
    else if (this.#turns.length > 0 || !this.#hasRoomFor(command)) this.#turns.push(command);
    else this.#send(command);
  }

  #hasRoomFor({ second }: IoCommand): boolean {
    return this.#freeCids.length >= (second === undefined ? 1 : 2);
  }

  /**
   * Runs a command whose data the driver keeps, such as a list of ranges.
   *
   * @param words CDW10 and CDW11 as one number
   * @internal
   */
  async submitData(
    opcode: number,
    nsid: number,
    words: number,
    cdw12: number,
    data: Uint8Array,
  ): Promise<void> {
    const memory = this.#arena.allocate(data.length);
    this.#arena.bytes(memory).set(data);
    try {
      await this.submit(opcode, nsid, words, cdw12, memory.iova, data.length);
    } catch (error) {
      // Not given back otherwise: the controller may still read it.
      if (isOver(error)) this.#arena.release(memory);
      throw error;
    }
    this.#arena.release(memory);
  }

  #allCids(): number[] {
    return Array.from({ length: this.depth }, (_, index) => this.depth - 1 - index);
  }

  /** Sends commands that wait, as long as there are command ids. */
  #sendNext(): void {
    for (let next; (next = this.#turns[0]) !== undefined && this.#hasRoomFor(next);) {
      this.#turns.shift();
      this.#send(next);
    }
  }

  /**
   * Doorbells that are messages fail when the device is gone, and nobody waits for the error there. A device that comes back has
   * told of its loss before, and {@link suspend} was called.
   */
  #doorbellFailed(error: Error): void {
    if (!this.#suspended) this.fail(error);
  }

  #send(command: IoCommand): void {
    const loss = command.opcode === NvmOpcode.flush ? this.#cache.takeLoss() : null;
    if (loss !== null) {
      command.reject(loss);
      return;
    }
    const cid = this.#freeCids.pop() as number;
    command.since = this.#seconds;
    command.covered = this.#cache.covered;
    this.#waiting[cid] = command;
    this.#entries.write(this.#queue, cid, command);
    if (command.second !== undefined) this.#send(command.second);
    this.#watch.begin();
    if (this.#watchdog === undefined) this.#startWatching();
    if (this.#ringScheduled) return;
    this.#ringScheduled = true;
    queueMicrotask(this.#ring);
  }

  /** Takes the completions that are there. The queue does so by itself; call it to have them sooner. */
  poll(): void {
    if (this.#failure !== null || this.#suspended) return;
    try {
      if (this.#queue.poll(this.depth, this.#complete) > 0) this.#sendNext();
    } catch (error) {
      this.#doorbellFailed(error as Error);
    }
  }

  /**
   * The connection is lost, and the device waited for: commands in flight wait for {@link resume}, or fail, by their opcode.
   *
   * @internal
   */
  suspend(lost: Error): QueueLoss {
    if (this.#failure !== null) return { failed: 0, resubmitted: 0 };
    // What the controller had completed is in shared memory, and holds.
    for (let taken; (taken = this.#queue.reap()) !== NOTHING;) this.#complete(taken & 0xffff, taken >>> 16);
    this.#suspended = true;
    // The controller has no such queues any more, so that nothing is asked of it: their memory is free at once.
    void this.#pair.delete();
    clearInterval(this.#watchdog);
    this.#watchdog = undefined;
    const again: IoCommand[] = [];
    let failed = 0;
    this.#waiting.forEach((waiting, cid) => {
      this.#waiting[cid] = undefined;
      if (waiting === undefined) return;
      if (waiting.fuse === 0 && this.#repeated.has(waiting.opcode)) again.push(waiting);
      else {
        failed++;
        waiting.reject(lost);
      }
    });
    this.#freeCids = [];
    this.#turns.unshift(...again);
    return { failed, resubmitted: again.length };
  }

  /** Goes on over a new queue pair, with the commands that waited. @internal */
  resume(pair: CreatedQueuePair): void {
    this.#pair = pair;
    this.#queue = pair.queue;
    this.#freeCids = this.#allCids();
    this.#suspended = false;
    this.#sendNext();
  }

  /** Whether {@link close} was called. @internal */
  get closing(): boolean {
    return this.#closing !== undefined;
  }

  /** Entries of the queue pair. @internal */
  get entries(): number {
    return this.#queue.entries;
  }

  /** Fails every command, now and later. @internal */
  fail(error: Error): void {
    this.#failure ??= error;
    clearInterval(this.#watchdog);
    this.#waiting.forEach((waiting, cid) => {
      this.#waiting[cid] = undefined;
      waiting?.reject(error);
    });
    for (let next; (next = this.#turns.shift()) !== undefined;) rejectPair(next, error);
  }

  /** Deletes the queue in the controller. Commands in flight fail with ERR_VFIO_USER_CLOSED. Idempotent. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  /** As {@link close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    if (this.#failure === null) {
      await this.#pair.delete();
      this.#entries.release();
    }
    this.fail(
      new VfioUserError(
        'ERR_VFIO_USER_CLOSED',
        `the I/O queue ${this.#queue.id} of ${this.#name} was closed`,
      ),
    );
    this.#onClose(this);
  }

  readonly #ring = (): void => {
    this.#ringScheduled = false;
    if (this.#failure !== null || this.#suspended) return;
    try {
      this.#queue.ring();
    } catch (error) {
      this.#doorbellFailed(error as Error);
    }
    if (this.#pair.vector === undefined && !this.#polling) {
      this.#polling = true;
      setImmediate(this.#pollTurn);
    }
  };

  /** Polls at every turn of the event loop while commands are in flight; the loop stays live. */
  readonly #pollTurn = (): void => {
    this.#turnEnd = performance.now() + TURN_MILLISECONDS;
    this.#pollAgain();
  };

  /**
   * Polls between microtasks: what waits for the completions goes on, and submits, without a turn of the event loop,
   * which costs more than a command. For a while only, so that the loop serves everything else too.
   */
  readonly #pollAgain = (): void => {
    this.poll();
    this.#polling = this.outstanding > 0 && this.#failure === null;
    if (!this.#polling) return;
    if (performance.now() < this.#turnEnd) queueMicrotask(this.#pollAgain);
    else setImmediate(this.#pollTurn);
  };

  readonly #complete = (cid: number, status: number): void => {
    const waiting = this.#waiting[cid];
    // A command id that is not in flight: the controller made it up.
    if (waiting === undefined) return;
    this.#waiting[cid] = undefined;
    this.#freeCids.push(cid);
    this.completed++;
    if (status === 0) {
      if (waiting.opcode === NvmOpcode.flush) this.#cache.flushed(waiting.covered);
      else if (waiting.opcode !== NvmOpcode.read) this.#cache.acknowledge();
      waiting.resolve();
    } else waiting.reject(new NvmeStatusError(waiting.opcode, false, status, detailOf(waiting)));
  };

  #startWatching(): void {
    this.#watchdog = setInterval(() => {
      this.#seconds++;
      if (this.outstanding === 0) {
        clearInterval(this.#watchdog);
        this.#watchdog = undefined;
        return;
      }
      // An interrupt may have been lost: SPDK's adaptive interrupts skip completions that it takes for seen.
      this.poll();
      const oldest = this.#waiting.find(
        (waiting) => waiting !== undefined && this.#seconds - waiting.since > IO_TIMEOUT_SECONDS,
      );
      if (oldest === undefined) return;
      this.fail(
        new VfioUserError(
          'ERR_VFIO_USER_TIMEOUT',
          `${this.#name} did not complete ${nvmOpcodeName(oldest.opcode)} (${detailOf(oldest)}) within ${IO_TIMEOUT_SECONDS} s; reset or reconnect it`,
        ),
      );
    }, WATCH_MILLISECONDS);
    if (this.#pair.vector === undefined) this.#watchdog.unref();
  }
}
