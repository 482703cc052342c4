// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { outOfRange } from '../errors';
import { addon, checked } from './addon';

/** Checks the number of a file descriptor that the caller passes in. Throws `ERR_OUT_OF_RANGE`. */
export function checkFd(fd: number): number {
  if (!Number.isInteger(fd) || fd < 0 || fd > 0x7fffffff) {
    throw outOfRange(`A file descriptor is an integer from 0 to 2147483647, got ${fd}`);
  }
  return fd;
}

/**
 * Closes a file descriptor that the addon made, received or took over on this thread, and that was not closed since.
 * Any other is left alone: its number may belong to somebody else.
 *
 * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EBADF) when it is another one
 */
export function closeFd(fd: number): void {
  checked(addon().close(checkFd(fd)), 'close', `Closing file descriptor ${fd}`);
}

/**
 * Duplicates a file descriptor; the new one is closed on exec and belongs to the caller.
 *
 * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EBADF, EMFILE)
 */
export function duplicateFd(fd: number): number {
  return checked(addon().duplicate(checkFd(fd)), 'fcntl', `Duplicating file descriptor ${fd}`);
}

/**
 * Size in bytes of the file behind a descriptor; 0 for one that has no size, such as a socket.
 *
 * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EBADF)
 */
export function fileSize(fd: number): number {
  return checked(addon().fileSize(checkFd(fd)), 'fstat', `Reading the size of file descriptor ${fd}`);
}

/**
 * Makes bytes of a file or block device zero, without writing them (fallocate(2)). The size of a file stays as it is, and bytes beyond
 * it too.
 *
 * @param deallocate whether the storage of the bytes is given back (FALLOC_FL_PUNCH_HOLE), or kept for them (FALLOC_FL_ZERO_RANGE)
 * @returns 0, or a positive errno: EOPNOTSUPP where the file system or the device does not have it, EINVAL for a range that is
 *   not made of whole blocks of a block device
 */
export function zeroRange(fd: number, offset: number, length: number, deallocate: boolean): number {
  return Math.abs(addon().zeroRange(checkFd(fd), offset, length, deallocate));
}

/**
 * Locks a file or folder for this descriptor (flock(2)), until that is closed, as it is when the process ends in whatever way.
 *
 * @param name of the file, for messages
 * @returns whether it is locked now; false when another descriptor has the lock, of this process or another
 * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EBADF, ENOLCK, or of a file system without locks)
 */
export function lockFile(fd: number, name: string): boolean {
  const result = addon().lock(checkFd(fd));
  if (result === -constants.errno.EWOULDBLOCK) return false;
  checked(result, 'flock', `Locking ${name}`);
  return true;
}
