// SPDX-License-Identifier: MIT
import type { MigrationStateName } from '../protocol';

/** Takes the state of a device in `resuming`. */
export interface MigrationSink {
  /** The next bytes, cut as the client likes. `chunk` is only valid until this returns, or its promise settles. */
  write(chunk: Uint8Array): void | Promise<void>;
  /** There are no more bytes: takes the state, or throws when it is incomplete or wrong. */
  finish(): void | Promise<void>;
}

/** How a device model saves and loads its state. The server keeps the migration state machine. */
export interface MigrationModel {
  /** True when a part of the state can be saved while the device runs. Default false. */
  readonly preCopy?: boolean;
  /**
   * The state of the device, in chunks of any size. `preCopy` is called when the device enters PRE_COPY, while it runs,
   * and may be ended early, between two chunks; `stopCopy` when it is stopped, and gives what `preCopy` has not given or
   * what has changed since. Both make one stream.
   */
  save(mode: 'preCopy' | 'stopCopy'): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
  /** The device enters `resuming`. Loading ends with `finish`; a reset or a client that goes away may come before. */
  load(): MigrationSink;
  /**
   * The device goes from one state to the next. When this returns (or its promise resolves) it must be done: in `stop`
   * and the states behind it the device must not run, signal interrupts or write memory. Throw a `CommandError` to refuse
   * and stay in `from`; any other error brings the device into `error`. After a reset it is called as well, with
   * `running`, when the device was not in that state.
   */
  stateChanged?(from: MigrationStateName, to: MigrationStateName): void | Promise<void>;
}
