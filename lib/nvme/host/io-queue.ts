// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../errors';
import { Psdt, SqeWord, highWord, nvmOpcodeName, prpListLength, storePrp, storeSglDataBlock } from '../spec';
import type { CreatedQueuePair } from './queue-pairs';
import { NVME_PAGE, type DmaArena, type DmaChunk } from './dma-arena';
import { NvmeStatusError } from './nvme-error';
import type { QueuePair } from './queue-pair';

interface Waiting {
  readonly opcode: number;
  readonly nsid: number;
  readonly lba: number;
  readonly blocks: number;
  readonly address: number;
  readonly length: number;
  /** When it was sent, by the seconds of the watchdog. */
  since: number;
  resolve(): void;
  reject(error: Error): void;
}

/** An I/O that is not completed for so long is given up. Longer than the 30 s of a slow disk's own retries. */
const IO_TIMEOUT_SECONDS = 60;
const WATCH_MILLISECONDS = 1000;
/** How long completions are polled in one turn of the event loop. */
const TURN_MILLISECONDS = 0.1;
/** PSDT of a command whose data pointer is an SGL descriptor. */
const SGL = Psdt.sglContiguousMetadata << 14;

/** I/O commands as promises, over one queue pair. For throughput, drive a {@link QueuePair} directly. */
export class IoQueue {
  /** Most commands outstanding; more wait for their turn. */
  readonly depth: number;
  readonly #created: CreatedQueuePair;
  readonly #queue: QueuePair;
  readonly #arena: DmaArena;
  readonly #lists: DmaChunk;
  readonly #listBytes: number;
  readonly #listWords: Uint32Array;
  readonly #waiting: (Waiting | undefined)[];
  readonly #freeCids: number[];
  /** Commands that wait for a free command id. */
  readonly #turns: Waiting[] = [];
  /** Seconds that the watchdog has counted. */
  #seconds = 0;
  #turnEnd = 0;
  readonly #name: string;
  readonly #sgl: boolean;
  #ringScheduled = false;
  #polling = false;
  #watchdog: NodeJS.Timeout | undefined;
  #failure: Error | null = null;

  /**
   * @param maxTransfer bytes of the largest command, for the PRP lists
   * @param sgl whether the controller takes SGLs: then one descriptor stands in for a PRP list
   */
  constructor(created: CreatedQueuePair, arena: DmaArena, maxTransfer: number, name: string, sgl = false) {
    this.#created = created;
    this.#queue = created.queue;
    this.#arena = arena;
    this.#name = name;
    this.#sgl = sgl;
    this.depth = created.queue.capacity;
    // One list per command id; a list must not leave its page.
    this.#listBytes = 2 ** Math.ceil(Math.log2((maxTransfer / NVME_PAGE + 1) * 8));
    this.#lists = arena.allocate(this.depth * this.#listBytes);
    this.#listWords = arena.words(this.#lists);
    this.#waiting = new Array<Waiting | undefined>(this.depth);
    this.#freeCids = Array.from({ length: this.depth }, (_, index) => this.depth - 1 - index);
  }

  /** Commands in flight. */
  get outstanding(): number {
    // Not the queue's own count, which a controller that completes what was never sent brings out of step.
    return this.depth - this.#freeCids.length;
  }

  /**
   * Runs a command of the NVM command set with one data buffer.
   *
   * @param address device address of the data, a multiple of 4; ignored when `length` is 0
   * @param length bytes of data, at most the controller's maximum
   * @throws NvmeStatusError; VfioUserError when the controller or its connection failed
   */
  submit(
    opcode: number,
    nsid: number,
    lba: number,
    blocks: number,
    address: number,
    length: number,
  ): Promise<void> {
    // Not an async function: that would make two more promises for each command.
    return new Promise<void>((resolve, reject) => {
      const command = { opcode, nsid, lba, blocks, address, length, since: 0, resolve, reject };
      if (this.#failure !== null) reject(this.#failure);
      else if (this.#freeCids.length === 0) this.#turns.push(command);
      else this.#send(command);
    });
  }

  #send(command: Waiting): void {
    const cid = this.#freeCids.pop() as number;
    command.since = this.#seconds;
    this.#waiting[cid] = command;
    this.#fill(cid, command);
    if (this.#watchdog === undefined) this.#startWatching();
    if (this.#ringScheduled) return;
    this.#ringScheduled = true;
    queueMicrotask(this.#ring);
  }

  /** Reaps what has completed. Called by itself; call it after an interrupt of your own. */
  poll(): void {
    if (this.#failure !== null) return;
    try {
      if (this.#queue.poll(this.depth, this.#complete) === 0) return;
      while (this.#freeCids.length > 0) {
        const next = this.#turns.shift();
        if (next === undefined) return;
        this.#send(next);
      }
    } catch (error) {
      // Doorbells that are messages fail when the device is gone, and nobody waits for the error here.
      this.fail(error as Error);
    }
  }

  /** Fails every command, now and later. */
  fail(error: Error): void {
    this.#failure ??= error;
    clearInterval(this.#watchdog);
    this.#waiting.forEach((waiting, cid) => {
      this.#waiting[cid] = undefined;
      waiting?.reject(error);
    });
    for (let next; (next = this.#turns.shift()) !== undefined;) next.reject(error);
  }

  /** Deletes the queue in the controller. Commands in flight fail. */
  async close(): Promise<void> {
    if (this.#failure === null) {
      await this.#created.delete();
      this.#arena.release(this.#lists);
    }
    this.fail(
      new VfioUserError(
        'ERR_VFIO_USER_CLOSED',
        `the I/O queue ${String(this.#queue.id)} of ${this.#name} was closed`,
      ),
    );
  }

  #fill(cid: number, { opcode, nsid, lba, blocks, address, length }: Waiting): void {
    const words = this.#queue.submissions;
    const at = this.#queue.claim();
    words.fill(0, at, at + 16);
    words[at + SqeWord.cdw0] = ((cid << 16) | opcode) >>> 0;
    words[at + SqeWord.nsid] = nsid;
    if (this.#sgl && prpListLength(address, length, NVME_PAGE) > 0) {
      words[at + SqeWord.cdw0] = ((cid << 16) | SGL | opcode) >>> 0;
      storeSglDataBlock(words, at + SqeWord.prp1Low, address, length);
    } else if (length > 0) {
      const slot = cid * this.#listBytes;
      storePrp(words, at, address, length, NVME_PAGE, this.#listWords, slot / 4, this.#lists.iova + slot);
    }
    words[at + SqeWord.cdw10] = lba >>> 0;
    words[at + SqeWord.cdw11] = highWord(lba);
    words[at + SqeWord.cdw12] = Math.max(0, blocks - 1);
  }

  readonly #ring = (): void => {
    this.#ringScheduled = false;
    if (this.#failure !== null) return;
    try {
      this.#queue.ring();
    } catch (error) {
      this.fail(error as Error);
    }
    if (this.#created.vector === undefined && !this.#polling) {
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
    if (status === 0) waiting.resolve();
    else {
      const detail = `LBA ${String(waiting.lba)}, ${String(waiting.blocks)} blocks`;
      waiting.reject(new NvmeStatusError(waiting.opcode, false, status, detail));
    }
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
          `${this.#name} did not complete ${nvmOpcodeName(oldest.opcode)} (LBA ${String(oldest.lba)}) within ${String(IO_TIMEOUT_SECONDS)} s; reset or reconnect it`,
        ),
      );
    }, WATCH_MILLISECONDS);
    if (this.#created.vector === undefined) this.#watchdog.unref();
  }
}
