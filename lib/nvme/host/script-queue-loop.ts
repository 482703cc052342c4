// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { CQE_PHASE_SHIFT, CQE_STATUS_SHIFT, CQE_WORDS, CqeWord } from '../spec/completion-entry';
import { DATA_POINTER_WORDS } from '../spec/sgl';
import { SQE_WORDS, SqeWord } from '../spec/submission-entry';
import type { Doorbells } from './doorbells';
import type { QueueLoop } from './queue-loop';
import type { QueuePair } from './queue-pair';

// A name of another module is looked up in that module's exports at each use, which costs a tenth of an I/O here.
const clock = performance;
const { cdw0: CDW0, prp1Low: DATA_POINTER } = SqeWord;
const SUBMISSION_WORDS = SQE_WORDS;
const COMPLETION_WORDS = CQE_WORDS;
const STATUS_WORD = CqeWord.status;
const PHASE_SHIFT = CQE_PHASE_SHIFT;
const STATUS_SHIFT = CQE_STATUS_SHIFT;
const POINTER_WORDS = DATA_POINTER_WORDS;

/** Polls of an empty queue between two reads of the clock. */
const POLLS_PER_CLOCK = 64;

/**
 * Gives a prepared entry its command id and data pointer.
 *
 * @param at word of `submissions` at which the entry begins
 * @param pointers the data pointers of all command ids, 4 words each
 * @param set word of `pointers` at which the set of the entry begins
 */
export function completeEntry(
  submissions: Uint32Array,
  at: number,
  cid: number,
  pointers: Uint32Array,
  set: number,
): void {
  const pointer = set + cid * POINTER_WORDS;
  submissions[at + CDW0] = (cid << 16) | ((submissions[at + CDW0] as number) & 0xffff);
  submissions[at + DATA_POINTER] = pointers[pointer] as number;
  submissions[at + DATA_POINTER + 1] = pointers[pointer + 1] as number;
  submissions[at + DATA_POINTER + 2] = pointers[pointer + 2] as number;
  submissions[at + DATA_POINTER + 3] = pointers[pointer + 3] as number;
}

/** The loop in TypeScript, for doorbells of any kind. */
export class ScriptQueueLoop implements QueueLoop {
  readonly pointers: Uint32Array;
  readonly sets: Uint32Array;
  readonly cids: Uint32Array;
  readonly times: Float64Array;
  readonly #queue: QueuePair;
  readonly #doorbells: Doorbells;
  readonly #depth: number;

  /**
   * @param depth number of command ids
   * @param sets number of sets of data pointers
   * @param room most completions of one run
   */
  constructor(queue: QueuePair, doorbells: Doorbells, depth: number, sets: number, room: number) {
    this.#queue = queue;
    this.#doorbells = doorbells;
    this.#depth = depth;
    this.pointers = new Uint32Array(sets * depth * POINTER_WORDS);
    this.sets = new Uint32Array(queue.entries);
    this.cids = new Uint32Array(room);
    this.times = new Float64Array(room);
  }

  run(tail: number, head: number, phase: number, ready: number, patience: number): number {
    const { id, entries, submissions, completions } = this.#queue;
    const { pointers, sets, cids } = this;
    const most = Math.min(ready, cids.length);
    let count = 0;
    let last = clock.now();
    for (let polls = 1; count < most; polls++) {
      const first = count;
      while (count < most) {
        const word = completions[head * COMPLETION_WORDS + STATUS_WORD] as number;
        const cid = word & 0xffff;
        if (((word >>> PHASE_SHIFT) & 1) !== phase) break;
        if (word >>> STATUS_SHIFT !== 0 || cid >= this.#depth) break;
        if (++head === entries) {
          head = 0;
          phase ^= 1;
        }
        completeEntry(submissions, tail * SUBMISSION_WORDS, cid, pointers, sets[tail] as number);
        if (++tail === entries) tail = 0;
        cids[count++] = cid;
      }
      if (count > first) {
        this.#doorbells.head(id, head);
        this.#doorbells.tail(id, tail);
        last = clock.now();
        this.times.fill(last, first, count);
      } else if (patience === 0) break;
      else if (polls % POLLS_PER_CLOCK === 0 && (clock.now() - last) * 1000 >= patience) break;
    }
    return count;
  }
}
