// SPDX-License-Identifier: MIT
import { readSync, writeSync } from 'node:fs';
import { constants as system } from 'node:os';
import { Mapping, closeFd, createSharedMemory } from '../../native';

/** What offset, length and address of an access with O_DIRECT are multiples of, on every device. */
const ALIGNMENT = 4096;
/** Bytes of the buffer. */
const BOUNCE_BYTES = 2 ** 20;

/** Reads until the end of the file at most. Returns the number of bytes. Throws as `readSync` does. */
export function readFully(
  fd: number,
  target: Uint8Array,
  at: number,
  length: number,
  offset: number,
): number {
  let done = 0;
  while (done < length) {
    const count = readSync(fd, target, at + done, length - done, offset + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/** Writes as much as the storage takes. Returns the number of bytes. Throws as `writeSync` does. */
export function writeFully(
  fd: number,
  source: Uint8Array,
  at: number,
  length: number,
  offset: number,
): number {
  let done = 0;
  while (done < length) {
    const count = writeSync(fd, source, at + done, length - done, offset + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

/**
 * Accesses to a file that was opened with O_DIRECT. The kernel refuses those whose memory, offset or length are not aligned as the
 * device wants them (EINVAL), and nobody can tell beforehand; these go through a buffer that is aligned for every device. What
 * surrounds a write in its aligned blocks is read before and written back with it.
 */
export class DirectFile {
  readonly #fd: number;
  /** Bytes of the namespace: nothing beyond them is written. */
  readonly #size: () => number;
  #mapping: Mapping | undefined;
  #buffer: Uint8Array | undefined;

  /**
   * @param fd stays the caller's, and open as long as this object is used
   * @param size tells the bytes of the namespace
   */
  constructor(fd: number, size: () => number) {
    this.#fd = fd;
    this.#size = size;
  }

  /** As {@link readFully}. */
  read(target: Uint8Array, at: number, length: number, offset: number): number {
    return aligned(
      () => readFully(this.#fd, target, at, length, offset),
      () => {
        let done = 0;
        while (done < length) {
          const { buffer, start, end, from, part } = this.#bounce(offset + done, length - done);
          const count = Math.min(readFully(this.#fd, buffer, 0, end - start, start) - from, part);
          if (count <= 0) break;
          target.set(buffer.subarray(from, from + count), at + done);
          done += count;
          if (count < part) break;
        }
        return done;
      },
    );
  }

  /** As {@link writeFully}. */
  write(source: Uint8Array, at: number, length: number, offset: number): number {
    return aligned(
      () => writeFully(this.#fd, source, at, length, offset),
      () => {
        let done = 0;
        while (done < length) {
          const { buffer, start, end, from, part } = this.#bounce(offset + done, length - done);
          const whole = part === end - start;
          if (!whole && readFully(this.#fd, buffer, 0, end - start, start) < end - start) break;
          buffer.set(source.subarray(at + done, at + done + part), from);
          if (writeFully(this.#fd, buffer, 0, end - start, start) < end - start) break;
          done += part;
        }
        return done;
      },
    );
  }

  /** Frees the buffer. Idempotent. */
  close(): void {
    this.#mapping?.close();
    this.#mapping = undefined;
    this.#buffer = undefined;
  }

  /** The first part of a range that the buffer has room for: the aligned bytes around it, and where it is in them. */
  #bounce(offset: number, length: number) {
    const start = Math.floor(offset / ALIGNMENT) * ALIGNMENT;
    const from = offset - start;
    const part = Math.min(length, BOUNCE_BYTES - from);
    const end = Math.min(Math.ceil((offset + part) / ALIGNMENT) * ALIGNMENT, this.#size());
    return { buffer: (this.#buffer ??= this.#newBuffer()), start, end, from, part };
  }

  #newBuffer(): Uint8Array {
    const fd = createSharedMemory(BOUNCE_BYTES, { name: 'nvme-bounce' });
    try {
      this.#mapping = Mapping.map(fd, 0, BOUNCE_BYTES);
    } finally {
      closeFd(fd);
    }
    return new Uint8Array(this.#mapping.buffer);
  }
}

/** Tries an access as it is, and once more through the buffer when the kernel refuses it. */
function aligned(access: () => number, bounced: () => number): number {
  try {
    return access();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).errno !== -system.errno.EINVAL) throw error;
    return bounced();
  }
}
