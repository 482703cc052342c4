// SPDX-License-Identifier: MIT
import type { DmaArena } from './dma-arena';
import { IoQueue, type QueueLoss } from './io-queue';
import type { QueuePairs } from './queue-pairs';
import { repeatedOpcodes, type ResubmitPolicy } from './resubmission';
import type { StatusWatch } from './status-watch';
import { WriteCache } from './write-cache';

/** Commands outstanding in an I/O queue, unless another number is wanted. */
const DEFAULT_DEPTH = 64;

/** What I/O queues are made of. */
interface IoQueuesParts {
  /** Name of the device, for messages. */
  readonly name: string;
  readonly arena: DmaArena;
  readonly queuePairs: QueuePairs;
  /** Entries of the longest queue. */
  readonly maxEntries: number;
  readonly resubmit: ResubmitPolicy;
  readonly watch: StatusWatch;
}

/** What the controller takes, as it says in Identify. */
interface Transfers {
  /** Bytes of the largest command. */
  readonly maxTransferSize: number;
  readonly takesSgl: boolean;
}

/** The I/O queues of a controller, which go on when it was lost and is up again. */
export class IoQueues {
  readonly cache: WriteCache;
  readonly #parts: IoQueuesParts;
  readonly #repeated: ReadonlySet<number>;
  readonly #queues = new Set<IoQueue>();
  #default: Promise<IoQueue> | undefined;

  /** @throws TypeError ERR_INVALID_ARG_VALUE for a policy that there is not */
  constructor(parts: IoQueuesParts) {
    this.#parts = parts;
    this.#repeated = repeatedOpcodes(parts.resubmit);
    this.cache = new WriteCache(parts.name);
  }

  /** Creates a queue, as `NvmeController.createIoQueue`. */
  create(depth: number | undefined, transfers: Transfers): Promise<IoQueue> {
    return this.#open(depth ?? DEFAULT_DEPTH, transfers, () => undefined);
  }

  /** The queue for callers that name none. When it was closed, a new one. */
  default(transfers: Transfers): Promise<IoQueue> {
    const forget = (): void => {
      this.#default = undefined;
    };
    return (this.#default ??= this.#open(DEFAULT_DEPTH, transfers, forget).catch((error: unknown) => {
      forget();
      throw error;
    }));
  }

  /** Commands that were completed so far, of the queues that there are. */
  get completed(): number {
    let completed = 0;
    for (const queue of this.#queues) completed += queue.completed;
    return completed;
  }

  /** Takes the completions that are there. */
  poll(): void {
    for (const queue of this.#queues) queue.poll();
  }

  /** Fails every command, now and later. */
  fail(error: Error): void {
    for (const queue of this.#queues) queue.fail(error);
  }

  /** The connection is lost, and the device waited for. */
  suspend(lost: Error): QueueLoss {
    const losses = [...this.#queues].map((queue) => queue.suspend(lost));
    this.cache.disconnected();
    const sum = (count: (loss: QueueLoss) => number): number =>
      losses.reduce((total, loss) => total + count(loss), 0);
    return { failed: sum(({ failed }) => failed), resubmitted: sum(({ resubmitted }) => resubmitted) };
  }

  /** The controller is up again: each queue gets its queues there, and goes on. */
  async resume(): Promise<void> {
    for (const queue of [...this.#queues]) {
      if (queue.closing) continue;
      const pair = await this.#createPair(queue.entries, () => {
        queue.poll();
      });
      // It may have been closed meanwhile.
      if (this.#queues.has(queue)) queue.resume(pair);
      else await pair.delete();
    }
  }

  #createPair(entries: number, onInterrupt: () => void): ReturnType<QueuePairs['create']> {
    const { queuePairs } = this.#parts;
    return queuePairs.create(entries, queuePairs.interrupts ? onInterrupt : undefined);
  }

  async #open(
    depth: number,
    { maxTransferSize, takesSgl }: Transfers,
    onClose: () => void,
  ): Promise<IoQueue> {
    const { name, arena, maxEntries, watch } = this.#parts;
    let queue: IoQueue | undefined;
    const pair = await this.#createPair(Math.min(depth + 1, maxEntries), () => queue?.poll());
    try {
      queue = new IoQueue({
        pair,
        arena,
        maxTransfer: maxTransferSize,
        sgl: takesSgl,
        name,
        repeated: this.#repeated,
        cache: this.cache,
        watch,
        onClose: (closed) => {
          this.#queues.delete(closed);
          watch.queues.delete(closed);
          onClose();
        },
      });
    } catch (error) {
      await pair.delete();
      throw error;
    }
    this.#queues.add(queue);
    watch.queues.add(queue);
    return queue;
  }
}
