// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../../errors';
import type { Mapping } from '../../native';
import { addon } from '../../native/addon';
import { DATA_POINTER_WORDS } from '../spec/sgl';
import type { QueuePairPlacement } from './queue-pair';
import type { QueueLoop } from './queue-loop';

/** The functions of `native/nvme`. */
interface NvmeAddon {
  queueLoop(
    memory: ArrayBuffer,
    submissionOffset: number,
    completionOffset: number,
    entries: number,
    doorbells: ArrayBuffer,
    tailIndex: number,
    headIndex: number,
    depth: number,
    sets: number,
    room: number,
    origin: number,
  ): [run: () => number, shared: ArrayBuffer] | number;
}

/** Where a {@link NativeQueueLoop} finds its queues and doorbells. */
export interface QueueLoopPlace extends Pick<
  QueuePairPlacement,
  'submissionOffset' | 'completionOffset' | 'entries'
> {
  /** Holds both queues. A `Mapping` of this thread, like {@link doorbells}. */
  readonly memory: Pick<Mapping, 'buffer'>;
  readonly doorbells: Pick<Mapping, 'buffer'>;
  /** 32-bit words of `doorbells` that are the submission queue's tail and the completion queue's head. */
  readonly tailIndex: number;
  readonly headIndex: number;
  /** Number of command ids, 1 to 65536. */
  readonly depth: number;
  /** Number of sets of data pointers, 1 to 256. */
  readonly sets: number;
  /** Most completions of one run, 1 to 65536. */
  readonly room: number;
}

const CONTROL_BYTES = 32;
const CLOCK_TRIES = 16;

/**
 * The loop in C++, for mapped doorbells. It lives as long as it is referenced; once one of its mappings is closed it takes
 * nothing.
 */
export class NativeQueueLoop implements QueueLoop {
  readonly pointers: Uint32Array;
  readonly sets: Uint32Array;
  readonly cids: Uint32Array;
  readonly times: Float64Array;
  readonly #control: Uint32Array;
  readonly #run: () => number;

  /**
   * @throws RangeError when queues or doorbells exceed their mappings, or are not of the addon's mapping
   * @throws VfioUserError ERR_VFIO_USER_ADDON where the runtime allows no ArrayBuffer over memory of the addon
   */
  constructor(place: QueueLoopPlace) {
    const { depth, entries, sets, room } = place;
    const created = (addon().nvme as NvmeAddon).queueLoop(
      place.memory.buffer,
      place.submissionOffset,
      place.completionOffset,
      entries,
      place.doorbells.buffer,
      place.tailIndex,
      place.headIndex,
      depth,
      sets,
      room,
      clockOrigin(),
    );
    if (created === 0)
      throw new VfioUserError(
        'ERR_VFIO_USER_ADDON',
        'This runtime does not allow an ArrayBuffer of the addon',
      );
    if (typeof created === 'number')
      throw outOfRange('The queues or doorbells of a queue loop are not within their mappings');
    const [run, shared] = created;
    this.#run = run;
    this.#control = new Uint32Array(shared, 0, CONTROL_BYTES / 4);
    this.times = new Float64Array(shared, CONTROL_BYTES, room);
    const cids = CONTROL_BYTES + this.times.byteLength;
    this.cids = new Uint32Array(shared, cids, room);
    const first = cids + this.cids.byteLength;
    this.sets = new Uint32Array(shared, first, entries);
    this.pointers = new Uint32Array(shared, first + this.sets.byteLength, sets * depth * DATA_POINTER_WORDS);
  }

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
 * The moment at which `performance.now()` is 0, by the clock that the addon reads: `process.hrtime` reads it too, and it is
 * CLOCK_MONOTONIC. The thread may lose its processor between two reads, so the try counts that took the least time.
 */
function clockOrigin(): number {
  let origin = 0;
  let least = Infinity;
  for (let attempt = 0; attempt < CLOCK_TRIES; attempt++) {
    const before = performance.now();
    const monotonic = Number(process.hrtime.bigint()) / 1e6;
    const after = performance.now();
    if (after - before >= least) continue;
    least = after - before;
    origin = monotonic - (before + after) / 2;
  }
  return origin;
}
