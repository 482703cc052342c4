// SPDX-License-Identifier: MIT
import { closeSync, constants, fdatasync, fstatSync, ftruncateSync, openSync, readFileSync } from 'node:fs';
import { VfioUserError, invalidArgument, systemError } from '../../errors';
import type { Backend } from './backend';
import { MappedStorage } from './mapped-storage';

/**
 * A backend in a regular file or block device, mapped shared: other processes see what is written at once, and
 * {@link flush} makes it durable. A page that is not in the page cache is read while the loop waits for it.
 */
export class FileBackend implements Backend {
  readonly kind = 'file';
  readonly volatileCache = true;
  readonly size: number;
  readonly #fd: number;
  readonly #storage: MappedStorage;
  readonly #path: string;
  #flushing = 0;
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
      this.size = this.#prepare(size);
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
    this.#storage = new MappedStorage(this.#fd, this.size);
  }

  read(offset: number, target: Uint8Array, at: number, length: number): boolean {
    return this.#storage.read(offset, target, at, length);
  }

  write(offset: number, source: Uint8Array, at: number, length: number): boolean {
    return this.#storage.write(offset, source, at, length);
  }

  zero(offset: number, length: number): boolean {
    return this.#storage.zero(offset, length);
  }

  /** Flushes the file, and with it the pages of shared mappings (fsync(2), mmap(2) MAP_SHARED). */
  flush(): Promise<void> {
    if (this.#closed) {
      return Promise.reject(new VfioUserError('ERR_VFIO_USER_CLOSED', `The backend ${this.#path} is closed`));
    }
    this.#flushing++;
    return new Promise((resolve, reject) => {
      fdatasync(this.#fd, (error) => {
        this.#flushing--;
        if (this.#closed) this.#closeFile();
        if (error === null) resolve();
        else reject(systemError('fdatasync', -(error.errno ?? 0), `Flushing ${this.#path}`));
      });
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#storage.close();
    this.#closeFile();
  }

  /** The descriptor stays open while a thread of the pool uses it: its number could be another file's by then. */
  #closeFile(): void {
    if (this.#flushing === 0) closeSync(this.#fd);
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

/** Runs a system call of `node:fs`, and tells its failure as the package does. */
function told<T>(path: string, syscall: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    const errno = (error as NodeJS.ErrnoException).errno ?? 0;
    throw systemError(syscall, -errno, `Opening ${path} as a namespace`);
  }
}
