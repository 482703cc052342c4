// SPDX-License-Identifier: MIT
import type { CommandTable } from './command-table';
import { MOST_PREPARED } from './job-entries';
import type { JobTally } from './job-tally';
import type { Verification } from './verification';

/** The commands that one look at the queue has found complete, by direction. */
export class CompletedBatch {
  readonly reads: Int32Array;
  readonly writes: Int32Array;
  readonly trims: Int32Array;
  readCount = 0;
  writeCount = 0;
  trimCount = 0;
  /** Latencies of the batch at hand, or of a run of the loop, in ns. */
  readonly readTimes: Float64Array;
  readonly writeTimes: Float64Array;

  /** @param depth most commands in flight */
  constructor(depth: number) {
    this.reads = new Int32Array(depth);
    this.writes = new Int32Array(depth);
    this.trims = new Int32Array(depth);
    this.readTimes = new Float64Array(Math.max(depth, MOST_PREPARED));
    this.writeTimes = new Float64Array(Math.max(depth, MOST_PREPARED));
  }

  get size(): number {
    return this.readCount + this.writeCount + this.trimCount;
  }

  /** @param now when the batch was found, in milliseconds */
  record(now: number, { sent }: CommandTable, tally: JobTally): void {
    const reads = this.readCount;
    const written = this.writeCount;
    const trimmed = this.trimCount;
    for (let index = 0; index < reads; index++)
      this.readTimes[index] = (now - (sent[this.reads[index] as number] as number)) * 1e6;
    for (let index = 0; index < written; index++)
      this.writeTimes[index] = (now - (sent[this.writes[index] as number] as number)) * 1e6;
    tally.read.recordAll(this.readTimes, reads);
    tally.write.recordAll(this.writeTimes, written);
    for (let index = 0; index < trimmed; index++)
      this.writeTimes[index] = (now - (sent[this.trims[index] as number] as number)) * 1e6;
    tally.trim.recordAll(this.writeTimes, trimmed);
    tally.countBatch(reads + written + trimmed);
  }

  /** Compares what was read, and remembers what is written. To be called before the buffers are used again. */
  compare(verification: Verification, { block, compared }: CommandTable): void {
    for (let index = 0; index < this.writeCount; index++)
      verification.markWritten(block[this.writes[index] as number] as number);
    for (let index = 0; index < this.readCount; index++) {
      const cid = this.reads[index] as number;
      if (compared[cid] !== 0) verification.check(cid, block[cid] as number);
    }
  }
}
