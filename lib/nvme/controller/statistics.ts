// SPDX-License-Identifier: MIT
/** What a controller has done since it was made. */
export interface ControllerStatistics {
  readonly readCommands: number;
  readonly writeCommands: number;
  /** Bytes that Read and Compare have read. */
  readonly bytesRead: number;
  /** Bytes that Write has written. */
  readonly bytesWritten: number;
  /** I/O commands other than those above. */
  readonly otherCommands: number;
  readonly adminCommands: number;
  /** Commands that ended with an error. */
  readonly errors: number;
  /** Interrupts that reached an eventfd. */
  readonly interrupts: number;
  /** Commands whose data or lists were not mapped here, and went by messages, or that waited for the backend. */
  readonly slowCommands: number;
  /** Doorbells that were written with values that make no sense. */
  readonly badDoorbells: number;
  /** Controller resets of all kinds. */
  readonly resets: number;
}

/** Statistics that are being counted. */
export type Counters = { -readonly [K in keyof ControllerStatistics]: ControllerStatistics[K] };

/** Counters at 0. */
export function newCounters(): Counters {
  return {
    readCommands: 0,
    writeCommands: 0,
    bytesRead: 0,
    bytesWritten: 0,
    otherCommands: 0,
    adminCommands: 0,
    errors: 0,
    interrupts: 0,
    slowCommands: 0,
    badDoorbells: 0,
    resets: 0,
  };
}
