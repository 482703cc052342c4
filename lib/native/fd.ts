// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import { addon, checked } from './addon';

/** Seals of a memfd (`linux/fcntl.h`), as bits of {@link fileSeals}. */
export const FileSeal = { seal: 1, shrink: 2, grow: 4, write: 8, futureWrite: 16 } as const;

/** Checks the number of a file descriptor that the caller passes in. Throws `ERR_OUT_OF_RANGE`. */
export function checkFd(fd: number): number {
  if (!Number.isInteger(fd) || fd < 0 || fd > 0x7fffffff) {
    throw outOfRange(`A file descriptor is an integer from 0 to 2147483647, got ${String(fd)}`);
  }
  return fd;
}

/**
 * Closes a file descriptor.
 *
 * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EBADF) when it is not open
 */
export function closeFd(fd: number): void {
  checked(addon().close(checkFd(fd)), 'close', `Closing file descriptor ${String(fd)}`);
}

/**
 * Duplicates a file descriptor; the new one is closed on exec and belongs to the caller.
 *
 * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EBADF, EMFILE)
 */
export function duplicateFd(fd: number): number {
  return checked(addon().duplicate(checkFd(fd)), 'fcntl', `Duplicating file descriptor ${String(fd)}`);
}

/**
 * Size in bytes of the file behind a descriptor; 0 for one that has no size, such as a socket.
 *
 * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EBADF)
 */
export function fileSize(fd: number): number {
  return checked(addon().fileSize(checkFd(fd)), 'fstat', `Reading the size of file descriptor ${String(fd)}`);
}

/**
 * Seals of the file behind a descriptor: a mask of {@link FileSeal}.
 * A file that has no seals, because only memfds can be sealed, gives 0.
 *
 * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EBADF)
 */
export function fileSeals(fd: number): number {
  const result = addon().fileSeals(checkFd(fd));
  return result === -EINVAL
    ? 0
    : checked(result, 'fcntl', `Reading the seals of file descriptor ${String(fd)}`);
}

const EINVAL = 22;
