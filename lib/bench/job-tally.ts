// SPDX-License-Identifier: MIT
import { CommandUse } from './command-table';
import { LatencyHistogram } from '../latency-histogram';
import { DIRECTIONS, type Direction, type Job } from './job';
import { COUNT_SLOTS, batchSlot } from './job-result';

/** What the I/Os of a job have come to: latencies, bytes, batches. */
export class JobTally {
  readonly read = new LatencyHistogram();
  readonly write = new LatencyHistogram();
  readonly trim = new LatencyHistogram();
  /** Batches by size; see {@link batchSlot}. */
  readonly batchCounts = new Float64Array(COUNT_SLOTS);
  /** Bytes of the completed I/Os by {@link CommandUse}, where sizes differ. */
  readonly bytesByUse = new Float64Array(4);
  readonly #blockSize: number;
  readonly #sizesDiffer: boolean;

  constructor({ blockSize, split }: Job) {
    this.#blockSize = blockSize;
    this.#sizesDiffer = split !== null;
  }

  /** I/Os of all directions. */
  get ios(): number {
    return DIRECTIONS.reduce((sum, direction) => sum + this[direction].count, 0);
  }

  /** Bytes of the completed I/Os of a direction. */
  bytes(direction: Direction): number {
    if (!this.#sizesDiffer) return this[direction].count * this.#blockSize;
    const { reading: read, writing: write, trimming: trim } = CommandUse;
    return this.bytesByUse[{ read, write, trim }[direction]] as number;
  }

  countBatch(size: number): void {
    const slot = batchSlot(size);
    this.batchCounts[slot] = (this.batchCounts[slot] as number) + 1;
  }

  /** Drops what was measured so far, as at the end of the ramp. */
  forget(): void {
    for (const direction of DIRECTIONS) this[direction].reset();
    this.bytesByUse.fill(0);
    this.batchCounts.fill(0);
  }
}
