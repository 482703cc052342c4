// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../errors';
import { SqeWord, highWord, nvmOpcodeName, storePrp } from '../spec';
import type { CreatedQueuePair } from './controller';
import { NVME_PAGE, type DmaArena, type DmaChunk } from './dma-arena';
import { NvmeStatusError } from './nvme-error';
import type { QueuePair } from './queue-pair';

interface Waiting {
  readonly opcode: number;
  readonly lba: number;
  readonly blocks: number;
  readonly since: number;
  resolve(): void;
  reject(error: Error): void;
}

/** An I/O that is not completed for so long is given up. Longer than the 30 s of a slow disk's own retries. */
const IO_TIMEOUT = 60_000;
const WATCH_MILLISECONDS = 1000;

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
  readonly #turns: (() => void)[] = [];
  readonly #name: string;
  #ringScheduled = false;
  #polling = false;
  #watchdog: NodeJS.Timeout | undefined;
  #failure: Error | null = null;

  /** @param maxTransfer bytes of the largest command, for the PRP lists */
  constructor(created: CreatedQueuePair, arena: DmaArena, maxTransfer: number, name: string) {
    this.#created = created;
    this.#queue = created.queue;
    this.#arena = arena;
    this.#name = name;
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
  async submit(
    opcode: number,
    nsid: number,
    lba: number,
    blocks: number,
    address: number,
    length: number,
  ): Promise<void> {
    while (this.#freeCids.length === 0 && this.#failure === null) {
      await new Promise<void>((resolve) => this.#turns.push(resolve));
    }
    if (this.#failure !== null) throw this.#failure;
    const cid = this.#freeCids.pop();
    if (cid === undefined) throw new Error('unreachable: a command id was free');
    return new Promise<void>((resolve, reject) => {
      this.#waiting[cid] = { opcode, lba, blocks, since: Date.now(), resolve, reject };
      this.#fill(cid, opcode, nsid, lba, blocks, address, length);
      this.#startWatching();
      if (!this.#ringScheduled) {
        this.#ringScheduled = true;
        queueMicrotask(this.#ring);
      }
    });
  }

  /** Reaps what has completed. Called by itself; call it after an interrupt of your own. */
  poll(): void {
    this.#touch(() => {
      if (this.#queue.poll(this.depth, this.#complete) === 0) return;
      for (const turn of this.#turns.splice(0)) turn();
    });
  }

  /** Fails every command, now and later. */
  fail(error: Error): void {
    this.#failure ??= error;
    clearInterval(this.#watchdog);
    this.#waiting.forEach((waiting, cid) => {
      this.#waiting[cid] = undefined;
      waiting?.reject(error);
    });
    for (const turn of this.#turns.splice(0)) turn();
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

  #fill(
    cid: number,
    opcode: number,
    nsid: number,
    lba: number,
    blocks: number,
    address: number,
    length: number,
  ): void {
    const words = this.#queue.submissions;
    const at = this.#queue.claim();
    words.fill(0, at, at + 16);
    words[at + SqeWord.cdw0] = ((cid << 16) | opcode) >>> 0;
    words[at + SqeWord.nsid] = nsid;
    if (length > 0) {
      const slot = cid * this.#listBytes;
      storePrp(words, at, address, length, NVME_PAGE, this.#listWords, slot / 4, this.#lists.iova + slot);
    }
    words[at + SqeWord.cdw10] = lba >>> 0;
    words[at + SqeWord.cdw11] = highWord(lba);
    words[at + SqeWord.cdw12] = Math.max(0, blocks - 1);
  }

  readonly #ring = (): void => {
    this.#ringScheduled = false;
    this.#touch(() => {
      this.#queue.ring();
    });
    if (this.#created.vector === undefined && !this.#polling) {
      this.#polling = true;
      setImmediate(this.#pollTurn);
    }
  };

  /** Polls at every turn of the event loop while commands are in flight; the loop stays live. */
  readonly #pollTurn = (): void => {
    this.poll();
    this.#polling = this.outstanding > 0 && this.#failure === null;
    if (this.#polling) setImmediate(this.#pollTurn);
  };

  /** Doorbells that are messages fail when the device is gone, and nobody waits for the error here. */
  #touch(action: () => void): void {
    if (this.#failure !== null) return;
    try {
      action();
    } catch (error) {
      this.fail(error as Error);
    }
  }

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
    if (this.#watchdog !== undefined) return;
    this.#watchdog = setInterval(() => {
      if (this.outstanding === 0) {
        clearInterval(this.#watchdog);
        this.#watchdog = undefined;
        return;
      }
      // An interrupt may have been lost: SPDK's adaptive interrupts skip completions that it takes for seen.
      this.poll();
      const oldest = this.#waiting.find(
        (waiting) => waiting !== undefined && Date.now() - waiting.since > IO_TIMEOUT,
      );
      if (oldest === undefined) return;
      this.fail(
        new VfioUserError(
          'ERR_VFIO_USER_TIMEOUT',
          `${this.#name} did not complete ${nvmOpcodeName(oldest.opcode)} (LBA ${String(oldest.lba)}) within ${String(IO_TIMEOUT / 1000)} s; reset or reconnect it`,
        ),
      );
    }, WATCH_MILLISECONDS);
    if (this.#created.vector === undefined) this.#watchdog.unref();
  }
}
