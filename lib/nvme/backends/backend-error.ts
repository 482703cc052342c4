// SPDX-License-Identifier: MIT
import { constants as system } from 'node:os';
import { BackendResult } from './backend';

const { EDQUOT, EFAULT, EIO, ENOSPC, ENXIO } = system.errno;

/** Thrown by the methods of a {@link BackendImplementation} to choose how the command ends. */
export class BackendError extends Error {
  /** Name of the class, as stack traces show it. */
  override readonly name = 'BackendError';
  /** How the access ended. */
  readonly result: BackendResult;

  /**
   * @param result not success
   * @param message what happened, for people; the host sees the status alone
   */
  constructor(result: Exclude<BackendResult, 0>, message: string) {
    super(message);
    this.result = result;
  }
}

/** Tells what the errno of an access means; 0 is success. */
export function resultOf(errno: number): BackendResult {
  switch (errno) {
    case 0:
      return BackendResult.success;
    case ENOSPC:
    case EDQUOT:
      return BackendResult.outOfSpace;
    case EFAULT: // The client has truncated the file behind its memory.
      return BackendResult.memoryError;
    case EIO:
    case ENXIO:
      return BackendResult.mediumError;
    default:
      return BackendResult.internalError;
  }
}

/** Tells what an error means: a {@link BackendError}, or one of Node.js for a system call. */
export function failureOf(error: unknown): BackendResult {
  if (isBackendError(error)) return error.result;
  const errno = (error as Partial<NodeJS.ErrnoException> | null | undefined)?.errno;
  return typeof errno === 'number' && errno !== 0 ? resultOf(Math.abs(errno)) : BackendResult.internalError;
}

/** Whether it is a {@link BackendError}, of this copy of the package or of the one that the backend has. */
function isBackendError(error: unknown): error is BackendError {
  if (error instanceof BackendError) return true;
  const { name, result } = (error ?? {}) as { name?: unknown; result?: unknown };
  return name === 'BackendError' && Object.values<unknown>(BackendResult).includes(result) && result !== 0;
}
