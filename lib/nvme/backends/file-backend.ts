// SPDX-License-Identifier: MIT
import {
  type Stats,
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  ftruncateSync,
  openSync,
  realpathSync,
} from 'node:fs';
import { constants as system } from 'node:os';
import { promisify } from 'node:util';
import { VfioUserError, invalidArgument, systemError } from '../../errors';
import { fileSize, zeroRange } from '../../native';
import { BackendResult, type Deallocation, type SynchronousBackend } from './backend';
import { failureOf, resultOf } from './backend-error';
import { type BlockDeviceInfo, blockDeviceInfo } from './block-device';
import { DirectFile, readFully, writeFully } from './direct-file';
import { VolatileWrites } from './volatile-writes';

const { EBADF, EINVAL, EIO, ENOSYS, ENXIO, EOPNOTSUPP } = system.errno;

const sync = promisify(fdatasync);

/** Source of the zeros of {@link FileBackend.zero}. */
const ZEROS = new Uint8Array(2 ** 17);

/** Options of {@link FileBackend}. */
export interface FileBackendOptions {
  /**
   * Whether data bypasses the page cache (O_DIRECT): it is not kept in memory twice, and every access waits for the storage.
   * Default false.
   */
  readonly direct?: boolean | undefined;
}

/**
 * A backend in a regular file or block device: other processes see what is written at once, and {@link flush} makes it
 * durable. The loop waits while bytes that are not in the page cache are read.
 *
 * Bytes are moved by pread(2) and pwrite(2), which tell of each access whether it succeeded. A store to a mapping would
 * find out by SIGBUS that the disk is full, or later, or never.
 */
export class FileBackend implements SynchronousBackend {
  readonly kind = 'file';
  readonly volatileCache = true;
  /** The path of the file, without links. */
  readonly identity: string;
  #size: number;
  /** Holes of the file, or what the block device makes of them; undefined when there are none. */
  readonly deallocation: Deallocation | undefined;
  /** -1 once closed: its number may be another file's by then. */
  #fd: number;
  readonly #path: string;
  /** Whether {@link size} is held against the size of the file, as a block device does not have one. */
  readonly #canShrink: boolean;
  readonly #device: BlockDeviceInfo | null;
  readonly #direct: DirectFile | null;
  /** After a failed fdatasync(2) the kernel takes the pages for clean and may drop them, so that the success of a later one proves nothing. */
  readonly #writes: VolatileWrites;
  #closed = false;

  /**
   * Opens a file, or creates it when a size is given.
   *
   * @param path path of a regular file or block device that can be read and written
   * @param size bytes of the namespace. A regular file that is shorter is extended. Default: the size of the file
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`; TypeError when the size does not fit the file
   */
  constructor(path: string, size?: number, { direct = false }: FileBackendOptions = {}) {
    this.#path = path;
    this.#fd = openFile(path, size !== undefined, direct);
    try {
      const stat = fstatSync(this.#fd);
      this.#canShrink = stat.isFile();
      this.#device = stat.isBlockDevice() ? blockDeviceInfo(stat.rdev) : null;
      this.identity = told(path, 'realpath', () => realpathSync(path));
      this.#size = this.#prepare(stat, size);
      this.deallocation = this.#findDeallocation(stat);
      this.#direct = direct ? new DirectFile(this.#fd, () => this.#size) : null;
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
    const what = `Flushing ${path}`;
    this.#writes = new VolatileWrites({
      sync: () => this.#sync(what),
      verify: () => {
        if (!this.#closed && this.#isShort(this.#fd, this.size)) {
          const problem = `${what}, which was truncated to less than ${this.size} bytes`;
          throw systemError('fdatasync', ENXIO, problem);
        }
      },
      failure: (lost) => systemError('fdatasync', EIO, `${what}, of which ${lost}`),
    });
  }

  get size(): number {
    return this.#size;
  }

  read(offset: number, target: Uint8Array, at: number, length: number): BackendResult {
    try {
      const count =
        this.#direct === null
          ? readFully(this.#fd, target, at, length, offset)
          : this.#direct.read(target, at, length, offset);
      return count < length ? BackendResult.mediumError : BackendResult.success; // The file was truncated.
    } catch (error) {
      return failureOf(error);
    }
  }

  write(offset: number, source: Uint8Array, at: number, length: number): BackendResult {
    try {
      // A write beyond the end would extend a file that was truncated, and all that was cut off would read as zeros.
      if (this.#isShort(this.#fd, offset + length)) return BackendResult.mediumError;
      // Before the first byte: those of a write that fails halfway are flushed like any others.
      this.#writes.add(offset, length);
      const count =
        this.#direct === null
          ? writeFully(this.#fd, source, at, length, offset)
          : this.#direct.write(source, at, length, offset);
      if (count < length) return BackendResult.mediumError;
      this.#writes.replaced(offset, length);
      return BackendResult.success;
    } catch (error) {
      return failureOf(error);
    }
  }

  zero(offset: number, length: number, deallocate: boolean): BackendResult {
    const errno =
      deallocate && this.deallocation !== undefined ? this.#zeroRange(offset, length, true) : EOPNOTSUPP;
    if (!isUnsupported(errno)) return resultOf(errno);
    const second = this.#zeroRange(offset, length, false);
    return isUnsupported(second) ? this.#writeZeros(offset, length) : resultOf(second);
  }

  deallocate(offset: number, length: number): BackendResult {
    if (this.deallocation === undefined) return BackendResult.success;
    // A file takes any range, a device whole blocks.
    const unit = this.#device?.blockSize ?? 1;
    const start = Math.ceil(offset / unit) * unit;
    const end = Math.floor((offset + length) / unit) * unit;
    if (start >= end) return BackendResult.success;
    const errno = this.#zeroRange(start, end - start, true);
    return isUnsupported(errno) ? BackendResult.success : resultOf(errno);
  }

  flush(): Promise<void> {
    return this.#writes.flush();
  }

  /**
   * A regular file that is shorter is extended, and never truncated. Rejects as the constructor throws, and then nothing has changed.
   */
  resize(size?: number): Promise<void> {
    return new Promise((resolve) => {
      const previous = this.#size;
      this.#size = this.#prepare(fstatSync(this.#fd), size);
      // Nobody asks any more for what was lost there.
      if (this.#size < previous) this.#writes.replaced(this.#size, previous - this.#size);
      resolve();
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const fd = this.#fd;
    this.#fd = -1;
    this.#direct?.close();
    // A thread of the pool uses the descriptor while a flush runs.
    const { idle } = this.#writes;
    if (idle === null) closeSync(fd);
    else {
      void idle.then(() => {
        closeSync(fd);
      });
    }
  }

  async #sync(what: string): Promise<void> {
    const fd = this.#fd;
    if (fd < 0) {
      throw new VfioUserError('ERR_VFIO_USER_CLOSED', `The backend ${this.#path} is closed`);
    }
    try {
      await sync(fd);
    } catch (error) {
      throw systemError('fdatasync', -((error as NodeJS.ErrnoException).errno ?? 0), what);
    }
  }

  /** Zeroes without writing. Returns 0 or an errno. */
  #zeroRange(offset: number, length: number, deallocate: boolean): number {
    if (this.#closed) return EBADF;
    // What was cut off would be taken for zeroed.
    if (this.#isShort(this.#fd, offset + length)) return EIO;
    this.#writes.add(offset, length);
    const errno = zeroRange(this.#fd, offset, length, deallocate);
    if (errno === 0) this.#writes.replaced(offset, length);
    return errno;
  }

  #writeZeros(offset: number, length: number): BackendResult {
    for (let done = 0; done < length;) {
      const part = Math.min(length - done, ZEROS.length);
      const result = this.write(offset + done, ZEROS, 0, part);
      if (result !== BackendResult.success) return result;
      done += part;
    }
    return BackendResult.success;
  }

  /** Whether somebody has truncated the file so that it has fewer than `bytes`. */
  #isShort(fd: number, bytes: number): boolean {
    return this.#canShrink && fileSize(fd) < bytes;
  }

  /** Finds out whether there can be holes, by one behind the end, where nothing is. */
  #findDeallocation(stat: Stats): Deallocation | undefined {
    if (this.#device !== null) {
      const unit = this.#device.deallocationUnit;
      return unit === 0 ? undefined : { unit, readsZero: true };
    }
    const unit = stat.blksize;
    const end = Math.ceil(Math.max(stat.size, this.size) / unit) * unit;
    return zeroRange(this.#fd, end, unit, true) === 0 ? { unit, readsZero: true } : undefined;
  }

  #prepare(stat: Stats, size: number | undefined): number {
    const path = this.#path;
    if (!stat.isFile() && this.#device === null) {
      throw invalidArgument(`${path} is neither a regular file nor a block device`);
    }
    const present = stat.isFile() ? stat.size : blockDeviceInfo(stat.rdev).size;
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

function openFile(path: string, create: boolean, direct: boolean): number {
  const flags = constants.O_RDWR | (create ? constants.O_CREAT : 0) | (direct ? constants.O_DIRECT : 0);
  try {
    return told(path, 'open', () => openSync(path, flags, 0o644));
  } catch (error) {
    if (!direct || (error as VfioUserError).errno !== EINVAL) throw error;
    const advice = 'its file system has no direct I/O (O_DIRECT): serve it without';
    throw systemError('open', EINVAL, `Opening ${path} as a namespace`, advice);
  }
}

function isUnsupported(errno: number): boolean {
  return errno === EOPNOTSUPP || errno === ENOSYS || errno === EINVAL;
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
