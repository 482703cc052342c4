// SPDX-License-Identifier: MIT
import { read, write } from 'node:fs';
import { promisify } from 'node:util';
import { VfioUserError, systemError } from '../../errors';
import { addon } from '../addon';
import { closeFd } from '../fd';

const readFd = promisify(read);
const writeFd = promisify(write);

/** Bytes of `struct vfio_precopy_info`. */
const PRECOPY_INFO = 24;
const EIO = 5;

/** What the state of a device goes through while it is migrated (`linux/vfio.h`, `data_fd`). Owns its descriptor. */
export class MigrationFile {
  /** For messages. */
  readonly #name: string;
  readonly #fd: number;
  #closed = false;
  /** Reads and writes under way, during which the number of the descriptor must not come to name another file. */
  #busy = 0;

  /** @param fd taken over */
  constructor(name: string, fd: number) {
    this.#name = name;
    this.#fd = fd;
  }

  /** read(2): the number of bytes, 0 at the end. Fails with ENOMSG when a device that runs has no more for now. */
  async read(into: Uint8Array, at: number): Promise<number> {
    const { bytesRead } = await this.#run('read', (fd) => readFd(fd, into, at, into.length - at, null));
    return bytesRead;
  }

  /** write(2): the number of bytes that were taken. */
  async write(data: Uint8Array, at: number): Promise<number> {
    const { bytesWritten } = await this.#run('write', (fd) => writeFd(fd, data, at, data.length - at, null));
    return bytesWritten;
  }

  /** `VFIO_MIG_GET_PRECOPY_INFO`: `struct vfio_precopy_info`. */
  precopyInfo(): Uint8Array {
    this.#assertOpen();
    const out = new Uint8Array(PRECOPY_INFO);
    const result = addon().vfio.precopyInfo(this.#fd, out);
    if (result < 0) throw systemError('ioctl', -result, `VFIO_MIG_GET_PRECOPY_INFO of ${this.#name}`);
    return out;
  }

  /** Idempotent. What is under way is waited for. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#busy === 0) closeFd(this.#fd);
  }

  async #run<T>(syscall: string, call: (fd: number) => Promise<T>): Promise<T> {
    this.#assertOpen();
    this.#busy++;
    try {
      return await call(this.#fd);
    } catch (error) {
      const errno = Math.abs((error as NodeJS.ErrnoException).errno ?? EIO);
      throw systemError(syscall, errno, `The state of ${this.#name}`);
    } finally {
      this.#busy--;
      if (this.#closed && this.#busy === 0) closeFd(this.#fd);
    }
  }

  #assertOpen(): void {
    if (this.#closed)
      throw new VfioUserError('ERR_VFIO_USER_CLOSED', `the transfer of the state of ${this.#name} has ended`);
  }
}
