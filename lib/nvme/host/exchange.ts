// SPDX-License-Identifier: MIT
import {
  CQE_PHASE_SHIFT,
  CQE_STATUS_SHIFT,
  CQE_WORDS,
  CqeWord,
  DATA_POINTER_WORDS,
  SQE_WORDS,
  SqeWord,
} from '../spec';
import type { Doorbells } from './doorbells';

// Constants of this module: what is imported through a barrel is read through a getter at every use.
const clock = performance;
const STATUS_WORD = CqeWord.status;
const PHASE_SHIFT = CQE_PHASE_SHIFT;
const STATUS_SHIFT = CQE_STATUS_SHIFT;
const COMPLETION_WORDS = CQE_WORDS;
const SUBMISSION_WORDS = SQE_WORDS;
const { cdw0: CDW0, prp1Low: DATA_POINTER } = SqeWord;
const POINTER_WORDS = DATA_POINTER_WORDS;

/** Looks at an empty queue between two looks at the clock. */
const LOOKS_PER_CLOCK = 64;

/**
 * Takes completions, and submits an entry for each: the loop of a queue that is kept full.
 *
 * Beyond the tail lie entries that lack only command id and data pointer; the entry gets those of the command whose
 * completion makes room for it. Doorbells are rung once for all completions that are found together. Nothing unusual is
 * taken: a completion with a status, or of a command id that has no data pointer, ends the exchange and stays where it is.
 *
 * {@link QueueExchange} of the addon is the same loop over mapped doorbells. This one is its reference, and serves where
 * doorbells are written by message.
 */
export interface Exchange {
  /** The data pointer of each command id, 4 words each (NVMe base 2.0, 3.3.3.1: DPTR). */
  readonly pointers: Uint32Array;
  /** Command ids of the completions that the last run took, in their order. */
  readonly cids: Uint32Array;
  /** When the doorbells were rung for each of them, in milliseconds of `performance.now()`. */
  readonly times: Float64Array;
  /**
   * @param tail index of the entry of the submission queue from which on `ready` entries are written
   * @param head index of the entry of the completion queue that comes next, with this `phase` tag
   * @param ready entries that may be submitted; `cids` and `times` have room for as many
   * @param patience microseconds without a completion after which the run ends; with 0 it ends when the queue is found empty
   * @returns number of completions taken, and of entries submitted
   */
  run(tail: number, head: number, phase: number, ready: number, patience: number): number;
}

/** Gives the entry at word `at` its command id and its data pointer; the rest is written. */
export function completeEntry(
  submissions: Uint32Array,
  at: number,
  cid: number,
  pointers: Uint32Array,
): void {
  const pointer = cid * POINTER_WORDS;
  submissions[at + CDW0] = (cid << 16) | ((submissions[at + CDW0] as number) & 0xffff);
  submissions[at + DATA_POINTER] = pointers[pointer] as number;
  submissions[at + DATA_POINTER + 1] = pointers[pointer + 1] as number;
  submissions[at + DATA_POINTER + 2] = pointers[pointer + 2] as number;
  submissions[at + DATA_POINTER + 3] = pointers[pointer + 3] as number;
}

/** A queue pair as an exchange sees it. */
export interface ExchangeQueue {
  readonly id: number;
  readonly entries: number;
  readonly submissions: Uint32Array;
  readonly completions: Uint32Array;
}

/** The exchange in TypeScript, over any kind of doorbells. */
export class ScriptExchange implements Exchange {
  readonly pointers: Uint32Array;
  readonly cids: Uint32Array;
  readonly times: Float64Array;
  readonly #queue: ExchangeQueue;
  readonly #doorbells: Doorbells;
  readonly #depth: number;

  /**
   * @param depth number of command ids
   * @param room most completions of one run
   */
  constructor(queue: ExchangeQueue, doorbells: Doorbells, depth: number, room: number) {
    this.#queue = queue;
    this.#doorbells = doorbells;
    this.#depth = depth;
    this.pointers = new Uint32Array(depth * POINTER_WORDS);
    this.cids = new Uint32Array(room);
    this.times = new Float64Array(room);
  }

  run(tail: number, head: number, phase: number, ready: number, patience: number): number {
    const { id, entries, submissions, completions } = this.#queue;
    const { pointers, cids } = this;
    const most = Math.min(ready, cids.length);
    let count = 0;
    let last = clock.now();
    for (let looks = 1; count < most; looks++) {
      const first = count;
      while (count < most) {
        const word = completions[head * COMPLETION_WORDS + STATUS_WORD] as number;
        const cid = word & 0xffff;
        if (((word >>> PHASE_SHIFT) & 1) !== phase || word >>> STATUS_SHIFT !== 0 || cid >= this.#depth)
          break;
        if (++head === entries) {
          head = 0;
          phase ^= 1;
        }
        completeEntry(submissions, tail * SUBMISSION_WORDS, cid, pointers);
        if (++tail === entries) tail = 0;
        cids[count++] = cid;
      }
      if (count > first) {
        this.#doorbells.head(id, head);
        this.#doorbells.tail(id, tail);
        last = clock.now();
        this.times.fill(last, first, count);
      } else if (patience === 0) break;
      else if (looks % LOOKS_PER_CLOCK === 0 && (clock.now() - last) * 1000 >= patience) break;
    }
    return count;
  }
}
