// SPDX-License-Identifier: MIT
/** What hosts have done with a namespace since it was added. */
export interface NamespaceStatistics {
  /** Read commands whose data was read. */
  readonly readCommands: number;
  /** Write commands whose data was written. */
  readonly writeCommands: number;
  /** I/O commands other than Read and Write. */
  readonly otherCommands: number;
  /** Bytes that Read and Compare have read. */
  readonly bytesRead: number;
  /** Bytes that Write has written. */
  readonly bytesWritten: number;
  /** Bytes that Write Zeroes has written. */
  readonly bytesZeroed: number;
  /** I/O commands that ended with an error. */
  readonly errors: number;
}

/** What a controller has done since it was made. Those of its namespaces are added up, also of those that are gone. */
export interface ControllerStatistics extends NamespaceStatistics {
  /** Commands of the admin queue. */
  readonly adminCommands: number;
  /** Commands that ended with an error, those of the admin queue included. */
  readonly errors: number;
  /** Interrupts that reached an eventfd. */
  readonly interrupts: number;
  /** I/O commands whose data or lists were not mapped here and went by messages, or that waited for the backend. */
  readonly slowCommands: number;
  /** Doorbells that were written with values that make no sense. */
  readonly badDoorbells: number;
  /** Controller resets of all kinds. */
  readonly resets: number;
  /** Clients that the controller has had, each of which is a time with power. */
  readonly powerCycles: number;
  /** Clients that were gone, or reset the device, without having shut the controller down that they had enabled. */
  readonly unsafeShutdowns: number;
  /** Commands that the storage has failed: Write Fault, Unrecovered Read Error. */
  readonly mediaErrors: number;
}

/** The statistics of a namespace while they are counted. */
export type NamespaceCounters = Record<keyof NamespaceStatistics, number>;

/** The statistics of the controller itself while they are counted. */
export type Counters = Record<
  Exclude<keyof ControllerStatistics, keyof NamespaceStatistics> | 'errors',
  number
>;

/** Makes counters of a namespace, which are 0. */
export function newNamespaceCounters(): NamespaceCounters {
  return {
    readCommands: 0,
    writeCommands: 0,
    otherCommands: 0,
    bytesRead: 0,
    bytesWritten: 0,
    bytesZeroed: 0,
    errors: 0,
  };
}

/** Adds `more` to `sum`. */
export function addNamespaceCounters(sum: NamespaceCounters, more: NamespaceStatistics): void {
  for (const name of Object.keys(sum) as (keyof NamespaceCounters)[]) sum[name] += more[name];
}

/** Makes counters of a controller, which are 0. */
export function newCounters(): Counters {
  return {
    adminCommands: 0,
    errors: 0,
    interrupts: 0,
    slowCommands: 0,
    badDoorbells: 0,
    resets: 0,
    powerCycles: 0,
    unsafeShutdowns: 0,
    mediaErrors: 0,
  };
}
