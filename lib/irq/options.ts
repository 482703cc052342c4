// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../errors';

/** Default of `spin` in microseconds: as long as KVM looks for work before a processor sleeps (`halt_poll_ns`). */
const DEFAULT_SPIN = 200;

/**
 * How the event loop waits for the signals of a vector that a handler or loop listens to.
 *
 * - `interrupt`: it sleeps until a signal wakes it
 * - `adaptive`: after each signal it looks for the next one for a while without sleeping, and then sleeps
 * - `poll`: it never sleeps
 *
 * Waking a thread takes 10 to 50 µs, looking for a signal about one; but a loop that does not sleep keeps a processor busy.
 * In each mode the loop serves everything else too: while it has other work, it looks once a turn; while it has none, it
 * does nothing but look, for 50 µs at most, or until a descriptor is ready.
 */
export type IrqMode = 'interrupt' | 'adaptive' | 'poll';

/** How vectors are enabled. */
export interface IrqOptions {
  /** Default `interrupt`. */
  readonly mode?: IrqMode;
  /**
   * How long the event loop of mode `adaptive` looks for another signal before it sleeps, in microseconds, counted from
   * the moment it begins to listen and from each signal. Choose more than the usual time between signals. Default 200.
   */
  readonly spin?: number;
}

/** Microseconds for which the event loop does not sleep. */
export function spinOf({ mode = 'interrupt', spin }: IrqOptions): number {
  if (spin !== undefined && mode !== 'adaptive')
    throw invalidArgument(`spin goes with the mode adaptive, not with ${mode}; leave it out`);
  if (spin !== undefined && !(spin >= 0)) throw outOfRange(`spin is a time from 0 µs on, got ${spin}`);
  switch (mode) {
    case 'interrupt':
      return 0;
    case 'adaptive':
      return spin ?? DEFAULT_SPIN;
    case 'poll':
      return Infinity;
    default:
      throw invalidArgument(`There is no mode ${String(mode)}; the modes are interrupt, adaptive and poll`);
  }
}
