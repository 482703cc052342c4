// SPDX-License-Identifier: MIT
import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  realpathSync,
  writeSync,
} from 'node:fs';
import { constants as system } from 'node:os';
import { promisify } from 'node:util';
import { VfioUserError, invalidArgument, systemError } from '../../errors';
import { fileSize } from '../../native';
import { type Backend, BackendResult } from './backend';
import { BlockSet } from './block-set';

const { EDQUOT, EFAULT, EIO, ENOSPC, ENXIO } = system.errno;

const sync = promisify(fdatasync);

/** Source of the zeros of {@link FileBackend.zero}. */
const ZEROS = new Uint8Array(2 ** 17);

/**
 * A backend in a regular file or block device: other processes see what is written at once, and {@link flush} makes it
 * durable. The loop waits while bytes that are not in the page cache are read.
 *
 * Bytes are moved by pread(2) and pwrite(2), which tell of each access whether it succeeded. A store to a mapping would
 * find out by SIGBUS that the disk is full, or later, or never.
 */
export class FileBackend implements Backend {
  readonly kind = 'file';
  readonly volatileCache = true;
  /** The path of the file, without links. */
  readonly identity: string;
  readonly size: number;
  /** -1 once closed: its number may be another file's by then. */
  #fd: number;
  readonly #path: string;
  /** Whether {@link size} is held against the size of the file, as a block device does not have one. */
  readonly #canShrink: boolean;
  /** Written since the last flush began. */
  #dirty = new BlockSet();
  /**
   * Written, but perhaps lost: a flush failed, and they have not been written again. After a failed fdatasync(2) the
   * kernel takes the pages for clean and may drop them, so that the success of a later one proves nothing.
   */
  readonly #lost = new BlockSet();
  /** The flush that runs. There is one at a time: the kernel tells an error to one call only. */
  #running: Promise<void> | null = null;
  /** The flush that follows, for all who asked since the one that runs has begun. */
  #next: Promise<void> | null = null;
  #closed = false;

  /**
   * Opens a file, or creates it when a size is given.
   *
   * @param path path of a regular file or block device that can be read and written
   * @param size bytes of the namespace. A regular file that is shorter is extended. Default: the size of the file
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`; TypeError when the size does not fit the file
   */
  constructor(path: string, size?: number) {
    this.#path = path;
    const create = size === undefined ? 0 : constants.O_CREAT;
    this.#fd = told(path, 'open', () => openSync(path, constants.O_RDWR | create, 0o644));
    try {
      this.identity = told(path, 'realpath', () => realpathSync(path));
      this.size = this.#prepare(size);
      this.#canShrink = fstatSync(this.#fd).isFile();
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  read(offset: number, target: Uint8Array, at: number, length: number): BackendResult {
    try {
      for (let done = 0; done < length;) {
        const count = readSync(this.#fd, target, at + done, length - done, offset + done);
        if (count === 0) return BackendResult.mediumError; // The file was truncated.
        done += count;
      }
      return BackendResult.success;
    } catch (error) {
      return resultOf(error);
    }
  }

  write(offset: number, source: Uint8Array, at: number, length: number): BackendResult {
    try {
      // A write beyond the end would extend a file that was truncated, and all that was cut off would read as zeros.
      if (this.#isShort(this.#fd, offset + length)) return BackendResult.mediumError;
      // Before the first byte: those of a write that fails halfway are flushed like any others.
      this.#dirty.add(offset, length);
      for (let done = 0; done < length;) {
        const count = writeSync(this.#fd, source, at + done, length - done, offset + done);
        if (count === 0) return BackendResult.mediumError;
        done += count;
      }
      if (this.#lost.size > 0) this.#lost.delete(offset, length);
      return BackendResult.success;
    } catch (error) {
      return resultOf(error);
    }
  }

  zero(offset: number, length: number): BackendResult {
    for (let done = 0; done < length;) {
      const part = Math.min(length - done, ZEROS.length);
      const result = this.write(offset + done, ZEROS, 0, part);
      if (result !== BackendResult.success) return result;
      done += part;
    }
    return BackendResult.success;
  }

  flush(): Promise<void> {
    if (this.#next !== null) return this.#next;
    if (this.#running === null) return this.#flushNow();
    // What was written since the flush that runs began may not be part of it.
    const next = (): Promise<void> => this.#flushNow();
    return (this.#next = this.#running.then(next, next));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const fd = this.#fd;
    const closeFile = (): void => {
      closeSync(fd);
    };
    this.#fd = -1;
    // A thread of the pool uses the descriptor while a flush runs.
    if (this.#running === null) closeFile();
    else void this.#running.then(closeFile, closeFile);
  }

  #flushNow(): Promise<void> {
    this.#next = null;
    if (this.#closed) {
      return Promise.reject(new VfioUserError('ERR_VFIO_USER_CLOSED', `The backend ${this.#path} is closed`));
    }
    return (this.#running = this.#sync(this.#fd).finally(() => {
      this.#running = null;
    }));
  }

  async #sync(fd: number): Promise<void> {
    const what = `Flushing ${this.#path}`;
    const flushed = this.#dirty;
    const lost = this.#lost.size;
    this.#dirty = new BlockSet();
    try {
      await sync(fd);
    } catch (error) {
      // What was written meanwhile may have been lost with the rest.
      this.#lost.addAll(flushed);
      this.#lost.addAll(this.#dirty);
      this.#dirty = new BlockSet();
      throw systemError('fdatasync', -((error as NodeJS.ErrnoException).errno ?? 0), what);
    }
    if (lost > 0) {
      const blocks = `${lost} blocks of 512 bytes that an earlier flush may have lost were not written again`;
      throw systemError('fdatasync', EIO, `${what}, of which ${blocks}`);
    }
    if (this.#isShort(fd, this.size)) {
      throw systemError('fdatasync', ENXIO, `${what}, which was truncated to less than ${this.size} bytes`);
    }
  }

  /** Whether somebody has truncated the file so that it has fewer than `bytes`. */
  #isShort(fd: number, bytes: number): boolean {
    return this.#canShrink && fileSize(fd) < bytes;
  }

  #prepare(size: number | undefined): number {
    const path = this.#path;
    const stat = fstatSync(this.#fd);
    if (!stat.isFile() && !stat.isBlockDevice()) {
      throw invalidArgument(`${path} is neither a regular file nor a block device`);
    }
    const present = stat.isFile() ? stat.size : blockDeviceSize(stat.rdev);
    if (size === undefined) {
      if (present === 0) throw invalidArgument(`${path} is empty; give the size of the namespace`);
      return present;
    }
    if (size > present) {
      if (!stat.isFile()) {
        throw invalidArgument(`${path} has ${present} bytes, fewer than the ${size} of the namespace`);
      }
      told(path, 'ftruncate', () => {
        ftruncateSync(this.#fd, size);
      });
    }
    return size;
  }
}

/** Returns the size in bytes. The kernel counts units of 512, whatever the device's blocks are (sysfs-block, `size`). */
function blockDeviceSize(device: number): number {
  // What glibc's gnu_dev_major and gnu_dev_minor do, for the bits that Linux uses.
  const major = Math.floor(device / 256) & 0xfff;
  const minor = (device & 0xff) | (Math.floor(device / 4096) & 0xfff00);
  return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * 512;
}

/** Tells what an error of `readSync` or `writeSync` means. */
function resultOf(error: unknown): BackendResult {
  switch (-((error as NodeJS.ErrnoException).errno ?? 0)) {
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

/** Runs a system call of `node:fs`, and tells its failure as the package does. */
function told<T>(path: string, syscall: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).errno ?? 0;
    throw systemError(syscall, -errno, `Opening ${path} as a namespace`);
  }
}
