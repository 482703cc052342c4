// SPDX-License-Identifier: MIT

/** What a command id is used for. */
export const CommandUse = { free: 0, reading: 1, writing: 2, trimming: 3 } as const;

/** The command ids of a job, from 0 on, and the I/O of each. The arrays have an element for each of them. */
export class CommandTable {
  /** {@link CommandUse}; free when the id is not in flight. */
  readonly use: Uint8Array;
  /** When it was sent, in milliseconds. */
  readonly sent: Float64Array;
  /** The block of the job's region at which it begins. */
  readonly block: Float64Array;
  /** Which of the sizes of the job's I/Os it has. */
  readonly size: Uint8Array;
  /** Whether the data that it reads is to be compared. */
  readonly compared: Uint8Array;
  /** A stack of the ids that are not in flight. */
  readonly free: Int32Array;
  freeCount: number;
  /** A stack of the ids whose block is trimmed, and is to be written next. They are not in flight. */
  readonly trimmed: Int32Array;
  trimmedCount = 0;
  /** Number of ids that were in flight when their controller went away, and wait for the next one. */
  heldCount = 0;

  constructor(readonly depth: number) {
    this.use = new Uint8Array(depth);
    this.sent = new Float64Array(depth);
    this.block = new Float64Array(depth);
    this.size = new Uint8Array(depth);
    this.compared = new Uint8Array(depth);
    this.free = Int32Array.from({ length: depth }, (_, index) => depth - 1 - index);
    this.freeCount = depth;
    this.trimmed = new Int32Array(depth);
  }

  /** Number of commands in flight. */
  get inFlight(): number {
    return this.depth - this.freeCount - this.trimmedCount - this.heldCount;
  }

  /** Takes an id that has completed. */
  release(cid: number): void {
    this.use[cid] = CommandUse.free;
    this.free[this.freeCount++] = cid;
  }

  /** Leaves the blocks that are trimmed as they are. */
  dropTrimmed(): void {
    while (this.trimmedCount > 0) this.free[this.freeCount++] = this.trimmed[--this.trimmedCount] as number;
  }

  /** The controller has gone with all that was in flight. */
  hold(): void {
    this.heldCount += this.inFlight;
  }

  /** The ids that wait for a controller, those that were sent first before others; they count as in flight again. */
  takeHeld(): number[] {
    this.heldCount = 0;
    const held = Array.from(this.use.keys()).filter((cid) => this.use[cid] !== CommandUse.free);
    return held.sort((one, other) => (this.sent[one] as number) - (this.sent[other] as number));
  }
}
