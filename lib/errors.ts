// SPDX-License-Identifier: MIT
import { getSystemErrorName, types } from 'node:util';

/**
 * Every way in which this package can fail, by the `code` of the error that it throws.
 *
 * Misuse that is plain in the arguments is a `TypeError` or `RangeError` with Node's own codes `ERR_INVALID_ARG_VALUE` or
 * `ERR_OUT_OF_RANGE`. docs/errors.md tells of each code what can be done.
 */
export type VfioUserErrorCode =
  /** The native addon is missing, or does not fit this platform. */
  | 'ERR_VFIO_USER_ADDON'
  /** A system call failed; `errno` and `syscall` say which. */
  | 'ERR_VFIO_USER_SYSTEM'
  /** The endpoint could not be reached: no such path, not a socket, permission denied, refused. */
  | 'ERR_VFIO_USER_CONNECT'
  /** The endpoint accepted the connection, but serves another client. */
  | 'ERR_VFIO_USER_BUSY'
  /** No reply came before the deadline. */
  | 'ERR_VFIO_USER_TIMEOUT'
  /** The peer closed the connection, or died. */
  | 'ERR_VFIO_USER_DISCONNECTED'
  /** The object was closed by the caller before or during the call. */
  | 'ERR_VFIO_USER_CLOSED'
  /** The peer replied with an error; `errno` is the peer's, 0 when it named none. */
  | 'ERR_VFIO_USER_REMOTE'
  /** The peer broke the protocol. */
  | 'ERR_VFIO_USER_PROTOCOL'
  /** A server came back with another device than the one that was connected to. */
  | 'ERR_VFIO_USER_IDENTITY'
  /** The peer speaks a version of the protocol that this package does not. */
  | 'ERR_VFIO_USER_VERSION'
  /** The device, or its peer, does not offer what was asked for. */
  | 'ERR_VFIO_USER_UNSUPPORTED'
  /** A DMA range overlaps, is unaligned, is not mapped, or does not fit. */
  | 'ERR_VFIO_USER_DMA'
  /** The device's migration state does not allow what was asked for, or a change of that state failed. */
  | 'ERR_VFIO_USER_MIGRATION'
  /** The file behind a mapping was truncated; the lost pages read as zero. */
  | 'ERR_VFIO_USER_MAPPING_LOST'
  /** The PCI device is not what was expected, or its configuration space contradicts itself. */
  | 'ERR_VFIO_USER_PCI'
  /** The NVMe controller failed, or did not become ready in time. */
  | 'ERR_VFIO_USER_NVME_CONTROLLER'
  /** An NVMe command completed with an error status. */
  | 'ERR_VFIO_USER_NVME_STATUS'
  /** Data read back differs from the data written. */
  | 'ERR_VFIO_USER_VERIFY';

/** What a {@link VfioUserError} may carry beside its code and message. */
export interface VfioUserErrorDetails {
  /** Positive Linux errno value, of a local system call or as named by the peer. */
  errno?: number | undefined;
  /** Name of the local system call that failed. */
  syscall?: string | undefined;
  /** Name of the protocol command concerned, such as `REGION_READ`. */
  command?: string | undefined;
  /** The error that led to this one. */
  cause?: unknown;
}

const brand = Symbol.for('vfio-user.error');

/**
 * The error that this package throws for everything but plain misuse of an argument.
 * Test `error.code`; the message tells what happened, where, and what to do.
 *
 * @example
 * try { await connect('/no/such/socket'); } catch (error) {
 *   if (error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_CONNECT') …
 * }
 */
export class VfioUserError extends Error {
  /** Name of the class, as stack traces show it. */
  override readonly name = 'VfioUserError';
  /** What kind of failure it is. */
  readonly code: VfioUserErrorCode;
  /** Positive Linux errno value, or undefined when none applies. */
  readonly errno: number | undefined;
  /** Name of {@link errno}, such as `EINVAL`. */
  readonly errnoName: string | undefined;
  /** Name of the local system call that failed. */
  readonly syscall: string | undefined;
  /** Name of the protocol command concerned. */
  readonly command: string | undefined;

  /** For the package itself: applications receive these errors, and have no need to make any. */
  constructor(code: VfioUserErrorCode, message: string, details: VfioUserErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    this.errno = details.errno;
    this.errnoName = details.errno === undefined ? undefined : errnoName(details.errno);
    this.syscall = details.syscall;
    this.command = details.command;
    Object.defineProperty(this, brand, { value: true });
  }

  /** True for errors of this class from any copy of the package, also across realms. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && (value as Record<symbol, unknown>)[brand] === true;
  }
}

/**
 * Name of a positive Linux errno value.
 *
 * @param errno 0 or a positive errno value
 * @returns such as `EINVAL`; `errno 12345` when unknown, `no errno` for 0
 */
export function errnoName(errno: number): string {
  if (errno === 0) return 'no errno';
  if (!Number.isInteger(errno) || errno < 0 || errno > 4095) return `errno ${errno}`;
  const name = getSystemErrorName(-errno);
  return name.startsWith('Unknown') ? `errno ${errno}` : name;
}

/** What can be done about an errno, whatever the system call was. */
const ERRNO_ADVICE: Readonly<Record<string, string>> = {
  EADDRINUSE: '; somebody listens there, end that server or choose another address',
  EMFILE: '; this process may open no more descriptors, raise its limit (ulimit -n)',
  ENFILE: '; the system has no descriptor left, raise fs.file-max or close some elsewhere',
  ENOSPC: '; the file system is full',
};

/**
 * A failed system call, told in one line.
 *
 * @param errno positive
 * @param advice what to do about it
 */
export function systemError(syscall: string, errno: number, what: string, advice?: string): VfioUserError {
  const name = errnoName(errno);
  const todo = advice === undefined ? (ERRNO_ADVICE[name] ?? '') : `; ${advice}`;
  return new VfioUserError('ERR_VFIO_USER_SYSTEM', `${what}: ${syscall} failed with ${name}${todo}`, {
    errno,
    syscall,
  });
}

/** A `TypeError` with Node's code `ERR_INVALID_ARG_VALUE`, for an argument whose value makes no sense. */
export function invalidArgument(message: string): TypeError & { code: string } {
  return Object.assign(new TypeError(message), { code: 'ERR_INVALID_ARG_VALUE' });
}

/** A `RangeError` with Node's code `ERR_OUT_OF_RANGE`, for a number outside its range. */
export function outOfRange(message: string): RangeError & { code: string } {
  return Object.assign(new RangeError(message), { code: 'ERR_OUT_OF_RANGE' });
}

/** What was thrown, which is nearly always an error. */
export function asError(reason: unknown): Error {
  // An error of another realm is no instance of this realm's Error.
  const isError = reason instanceof Error || types.isNativeError(reason);
  return isError ? reason : new Error('What was thrown is no error', { cause: reason });
}
