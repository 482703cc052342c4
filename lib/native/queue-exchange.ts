// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../errors';
import { addon } from './addon';
import type { Mapping } from './memory';

/** Where a {@link QueueExchange} finds its queues and doorbells. */
export interface QueueExchangePlace {
  readonly memory: Mapping;
  /** Offsets of the queues in `memory`, in bytes. */
  readonly submissionOffset: number;
  readonly completionOffset: number;
  /** Entries of each queue, 2 to 65536. */
  readonly entries: number;
  readonly doorbells: Mapping;
  /** 32-bit words of `doorbells` that are the submission queue's tail, and the completion queue's head. */
  readonly tailIndex: number;
  readonly headIndex: number;
  /** Command ids, 1 to 65536. */
  readonly depth: number;
  /** Most completions of one run, 1 to 65536. */
  readonly room: number;
}

const CONTROL_BYTES = 32;
const CLOCK_TRIES = 16;
const POINTER_WORDS = 4;

/**
 * The addon's loop of a queue pair that is kept full. Lives as long as it is referenced; after one of its mappings was closed
 * it takes nothing. `lib/nvme/host/exchange.ts` tells what it does.
 */
export class QueueExchange {
  /** The data pointer of each command id, 4 words each. */
  readonly pointers: Uint32Array;
  /** Command ids of the completions that the last run took. */
  readonly cids: Uint32Array;
  /** When the doorbells were rung for each of them, in milliseconds of `performance.now()`. */
  readonly times: Float64Array;
  readonly #control: Uint32Array;
  readonly #run: () => number;

  /** @throws RangeError when queues or doorbells exceed their mappings */
  constructor(place: QueueExchangePlace) {
    const { depth, room } = place;
    const created = addon().queueExchange(
      place.memory.buffer,
      place.submissionOffset,
      place.completionOffset,
      place.entries,
      place.doorbells.buffer,
      place.tailIndex,
      place.headIndex,
      depth,
      room,
      clockOrigin(),
    );
    if (created === 0)
      throw new VfioUserError(
        'ERR_VFIO_USER_ADDON',
        'This runtime does not allow an ArrayBuffer of the addon',
      );
    if (typeof created === 'number')
      throw outOfRange('The queues or doorbells of an exchange are not within their mappings');
    const [run, log] = created;
    this.#run = run;
    this.#control = new Uint32Array(log, 0, CONTROL_BYTES / 4);
    this.times = new Float64Array(log, CONTROL_BYTES, room);
    const cids = CONTROL_BYTES + this.times.byteLength;
    this.cids = new Uint32Array(log, cids, room);
    this.pointers = new Uint32Array(log, cids + this.cids.byteLength, depth * POINTER_WORDS);
  }

  /**
   * @param tail entry of the submission queue from which on `ready` entries are written
   * @param head entry of the completion queue that comes next, with this `phase`
   * @param patience microseconds without a completion after which the run ends; with 0 it ends when the queue is found empty
   * @returns number of completions taken
   */
  run(tail: number, head: number, phase: number, ready: number, patience: number): number {
    const control = this.#control;
    control[0] = tail;
    control[1] = head;
    control[2] = phase;
    control[3] = ready;
    control[4] = patience;
    return this.#run();
  }
}

/**
 * What the addon's clock shows at the zero of performance.now(). Both are CLOCK_MONOTONIC; of several tries the one counts in
 * which the least time passed, as the thread may lose its processor between two readings.
 */
function clockOrigin(): number {
  const native = addon();
  let origin = 0;
  let least = Infinity;
  for (let attempt = 0; attempt < CLOCK_TRIES; attempt++) {
    const before = performance.now();
    const there = native.monotonicMilliseconds();
    const after = performance.now();
    if (after - before >= least) continue;
    least = after - before;
    origin = there - (before + after) / 2;
  }
  return origin;
}
