// SPDX-License-Identifier: MIT
import { CQE_PHASE_SHIFT, CQE_STATUS_SHIFT, CQE_WORDS, CqeWord, SQE_WORDS } from '../spec';
import type { Doorbells } from './doorbells';
import type { QueueLoop } from './queue-loop';

// Constants of this module: a name of another module is looked up at every use, which made reap() and claim() a third slower.
const STATUS_WORD = CqeWord.status;
const RESULT_WORD = CqeWord.dw0;
const PHASE_SHIFT = CQE_PHASE_SHIFT;
const STATUS_SHIFT = CQE_STATUS_SHIFT;
const ENTRY_WORDS = CQE_WORDS;
const COMMAND_WORDS = SQE_WORDS;

/** What `QueuePair.reap` returns when there is no completion. */
export const NOTHING = -1;

/** Where a queue pair lies. Plain data, so that a worker thread that maps the same memory can drive the queue. */
export interface QueuePairPlacement {
  /** Queue id of both queues; 0 is the admin queue. */
  readonly id: number;
  /** Entries of each queue; one less can be outstanding. */
  readonly entries: number;
  /** Offset of the submission queue in the arena's memory, in bytes. */
  readonly submissionOffset: number;
  /** Offset of the completion queue in the arena's memory, in bytes. */
  readonly completionOffset: number;
}

/** Takes a completion: command id, 15-bit status field (0 is success), command-specific result. */
export type CompletionHandler = (cid: number, status: number, result: number) => void;

/**
 * A submission queue with its completion queue, over shared memory. Made by `NvmeController.createQueuePair`.
 *
 * Plain typed-array loads and stores; no message, native call, promise or allocation. The caller chooses the command
 * ids, unique among those in flight, and does not exceed {@link capacity}; since a command is completed only after its entry
 * was fetched, the submission queue then never overflows, and its head need not be read. Nothing is checked, and nobody but the
 * caller waits: a controller that is gone completes nothing.
 *
 * @example
 * const { queue, ...created } = await nvme.createQueuePair(32);
 * const memory = await device.dma.allocate(4096);
 * const read = { opcode: NvmOpcode.read, cid: 7, nsid: 1, prp1: memory.iova, cdw10: 8, cdw12: 1 - 1 }; // 1 block from LBA 8
 * encodeCommand(queue.submissions, queue.claim(), read);
 * queue.ring();
 * let completion = queue.reap();
 * // Others in this process get a turn between two polls; a thread of its own would poll without.
 * for (; completion === -1; completion = queue.reap()) await setImmediate();
 * const [cid, status] = [completion & 0xffff, completion >>> 16];
 * queue.ring(); // Also tells the controller that the completion was taken.
 * await created.delete();
 */
export class QueuePair {
  /** Queue id of both queues. */
  readonly id: number;
  /** Entries of each queue. */
  readonly entries: number;
  /** Most commands that may be outstanding: one less than there are entries. */
  readonly capacity: number;
  /** Words of the submission queue, 16 an entry. */
  readonly submissions: Uint32Array;
  /** Words of the completion queue, 4 an entry. */
  readonly completions: Uint32Array;
  /** Commands claimed and not yet reaped. */
  outstanding = 0;
  readonly #doorbells: Doorbells;
  #tail = 0;
  #rung = 0;
  #head = 0;
  #released = 0;
  #reaped = 0;
  #phase = 1;

  /** @internal */
  constructor(placement: QueuePairPlacement, memory: ArrayBuffer, doorbells: Doorbells) {
    const { id, entries, submissionOffset, completionOffset } = placement;
    this.id = id;
    this.entries = entries;
    this.capacity = entries - 1;
    this.submissions = new Uint32Array(memory, submissionOffset, entries * COMMAND_WORDS);
    this.completions = new Uint32Array(memory, completionOffset, entries * ENTRY_WORDS);
    this.#doorbells = doorbells;
  }

  /** Number of the entry that {@link claim} gives next. It may be written before. */
  get tail(): number {
    return this.#tail;
  }

  /** Index in {@link submissions} of the next entry, which the caller fills with all 16 words before {@link ring}. */
  claim(): number {
    const index = this.#tail * COMMAND_WORDS;
    this.#tail = this.#tail + 1 === this.entries ? 0 : this.#tail + 1;
    this.outstanding++;
    return index;
  }

  /** Tells the controller of all entries claimed, and of all that were reaped, since the last time. */
  ring(): void {
    this.#release();
    if (this.#rung === this.#tail) return;
    this.#rung = this.#tail;
    this.#doorbells.tail(this.id, this.#tail);
  }

  /**
   * Takes the next completion, if there is one. The controller learns of the free entry at the next {@link ring}.
   *
   * A single load of the last word of an entry tells phase, command id and status, so entries need no barrier between
   * them; what the device wrote to data memory before is ordered by the atomic store of the doorbell.
   *
   * @returns command id in bits 15:0, status field in bits 30:16 (0 is success); -1 when there is none
   */
  reap(): number {
    const at = this.#head * ENTRY_WORDS;
    const word = this.completions[at + STATUS_WORD] as number;
    if (((word >>> PHASE_SHIFT) & 1) !== this.#phase) return NOTHING;
    this.#reaped = at;
    if (++this.#head === this.entries) {
      this.#head = 0;
      this.#phase ^= 1;
    }
    this.outstanding--;
    return (word & 0xffff) | ((word >>> STATUS_SHIFT) << 16);
  }

  /** Command-specific result (dword 0) of the completion that {@link reap} took last; only until {@link ring}. */
  get result(): number {
    return this.completions[this.#reaped + RESULT_WORD] as number;
  }

  /**
   * Reaps up to `limit` completions, then tells the controller of the freed entries with one store.
   *
   * @returns number of completions
   */
  poll(limit: number, handler: CompletionHandler): number {
    let count = 0;
    while (count < limit) {
      const completion = this.reap();
      if (completion === NOTHING) break;
      count++;
      handler(completion & 0xffff, completion >>> 16, this.result);
    }
    this.#release();
    return count;
  }

  /**
   * Runs the loop of a full queue over this queue pair, from its tail and head on. Entries that were claimed must have been
   * rung before.
   *
   * @param ready entries from {@link tail} on that lack only command id and data pointer
   * @param patience microseconds without a completion after which the loop ends
   * @returns number of completions taken, and of entries submitted
   * @internal
   */
  runLoop(loop: QueueLoop, ready: number, patience: number): number {
    // The controller may not have fetched the entries beyond those yet.
    const room = Math.min(ready, this.capacity - this.outstanding);
    const count = loop.run(this.#tail, this.#head, this.#phase, room, patience);
    if (count === 0) return 0;
    const entries = this.entries;
    const tail = this.#tail + count;
    this.#tail = tail < entries ? tail : tail - entries;
    this.#rung = this.#tail;
    const head = this.#head + count;
    if (head >= entries) this.#phase ^= 1;
    this.#head = head < entries ? head : head - entries;
    this.#released = this.#head;
    return count;
  }

  #release(): void {
    if (this.#released === this.#head) return;
    this.#released = this.#head;
    this.#doorbells.head(this.id, this.#head);
  }
}
