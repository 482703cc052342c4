// SPDX-License-Identifier: MIT
import { CQE_PHASE_SHIFT, CQE_STATUS_SHIFT, CQE_WORDS, CqeWord, SQE_WORDS } from '../spec';
import type { Doorbells } from './doorbells';

// Constants of this module: what is imported through a barrel is read through a getter at every use.
const STATUS_WORD = CqeWord.status;
const RESULT_WORD = CqeWord.dw0;
const PHASE_SHIFT = CQE_PHASE_SHIFT;
const STATUS_SHIFT = CQE_STATUS_SHIFT;
const ENTRY_WORDS = CQE_WORDS;
const COMMAND_WORDS = SQE_WORDS;

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
 * A submission queue with its completion queue, over shared memory.
 *
 * Plain typed-array loads and stores; no message, native call, promise or allocation. The caller keeps track of command
 * ids and does not exceed {@link capacity}; since a command is completed only after its entry was fetched, the
 * submission queue then never overflows, and its head need not be read.
 */
export class QueuePair {
  readonly id: number;
  readonly entries: number;
  /** Most commands that may be outstanding. */
  readonly capacity: number;
  /** Words of the submission queue. */
  readonly submissions: Uint32Array;
  /** Words of the completion queue. */
  readonly completions: Uint32Array;
  /** Commands claimed and not yet reaped. */
  outstanding = 0;
  readonly #doorbells: Doorbells;
  #tail = 0;
  #rung = 0;
  #head = 0;
  #phase = 1;

  constructor(placement: QueuePairPlacement, memory: ArrayBuffer, doorbells: Doorbells) {
    const { id, entries, submissionOffset, completionOffset } = placement;
    this.id = id;
    this.entries = entries;
    this.capacity = entries - 1;
    this.submissions = new Uint32Array(memory, submissionOffset, entries * COMMAND_WORDS);
    this.completions = new Uint32Array(memory, completionOffset, entries * ENTRY_WORDS);
    this.#doorbells = doorbells;
  }

  /** Index in {@link submissions} of the next entry, which the caller fills with all 16 words before {@link ring}. */
  claim(): number {
    const index = this.#tail * COMMAND_WORDS;
    this.#tail = this.#tail + 1 === this.entries ? 0 : this.#tail + 1;
    this.outstanding++;
    return index;
  }

  /** Tells the controller of all entries claimed since the last time; one store. */
  ring(): void {
    if (this.#rung === this.#tail) return;
    this.#rung = this.#tail;
    this.#doorbells.write(this.id * 2, this.#tail);
  }

  /**
   * Reaps up to `limit` completions, then tells the controller of the freed entries with one store.
   *
   * A single load of the last word of an entry tells phase, command id and status, so entries need no barrier between
   * them; what the device wrote to data memory before is ordered by the atomic store of the doorbell.
   *
   * @returns number of completions
   */
  poll(limit: number, handler: CompletionHandler): number {
    const completions = this.completions;
    const entries = this.entries;
    let head = this.#head;
    let phase = this.#phase;
    let count = 0;
    while (count < limit) {
      const at = head * ENTRY_WORDS;
      const word = completions[at + STATUS_WORD] as number;
      if (((word >>> PHASE_SHIFT) & 1) !== phase) break;
      if (++head === entries) {
        head = 0;
        phase ^= 1;
      }
      count++;
      // Before the handler, which may submit again.
      this.#head = head;
      this.#phase = phase;
      this.outstanding--;
      handler(word & 0xffff, word >>> STATUS_SHIFT, completions[at + RESULT_WORD] as number);
    }
    if (count > 0) this.#doorbells.write(this.id * 2 + 1, head);
    return count;
  }
}
