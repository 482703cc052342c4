// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { errnoName } from '../errors';

/**
 * Thrown by the handler of a peer's command to answer it with an errno.
 *
 * @example throw new CommandError(Errno.EINVAL, 'offset beyond the region');
 */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  /** Positive errno value that goes into the reply header. */
  readonly errno: number;

  constructor(errno: number, message: string) {
    super(`${errnoName(errno)}: ${message}`);
    this.errno = errno;
  }
}

/** Errno values by name, as `os.constants.errno` has them. */
export const Errno = constants.errno;
