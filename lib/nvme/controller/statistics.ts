// SPDX-License-Identifier: MIT
/** What a controller has done since it was made. */
export interface ControllerStatistics {
  /** Read commands whose data was read. */
  readonly readCommands: number;
  /** Write commands whose data was written. */
  readonly writeCommands: number;
  /** Bytes that Read and Compare have read. */
  readonly bytesRead: number;
  /** Bytes that Write has written. */
  readonly bytesWritten: number;
  /** Bytes that Write Zeroes has written. */
  readonly bytesZeroed: number;
  /** I/O commands other than Read and Write. */
  readonly otherCommands: number;
  /** Commands of the admin queue. */
  readonly adminCommands: number;
  /** Commands that ended with an error. */
  readonly errors: number;
  /** Interrupts that reached an eventfd. */
  readonly interrupts: number;
  /** I/O commands whose data or lists were not mapped here and went by messages, or that waited for the backend. */
  readonly slowCommands: number;
  /** Doorbells that were written with values that make no sense. */
  readonly badDoorbells: number;
  /** Controller resets of all kinds. */
  readonly resets: number;
}

/** The statistics while they are counted. */
export type Counters = { -readonly [K in keyof ControllerStatistics]: ControllerStatistics[K] };

/** Makes counters, which are 0. */
export function newCounters(): Counters {
  return {
    readCommands: 0,
    writeCommands: 0,
    bytesRead: 0,
    bytesWritten: 0,
    bytesZeroed: 0,
    otherCommands: 0,
    adminCommands: 0,
    errors: 0,
    interrupts: 0,
    slowCommands: 0,
    badDoorbells: 0,
    resets: 0,
  };
}
