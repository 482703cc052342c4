// SPDX-License-Identifier: MIT
import { constants } from 'node:buffer';
import { VfioUserError } from '../errors';
import { Mapping } from '../native';
import { DmaMapFlag } from '../protocol';
import { CommandError, Errno } from '../transport';
import type { ClientRange } from './device-model';

/** What is done with a range. */
export type Access = 'read' | 'write' | 'readwrite';

/** What a DMA_MAP says of a range, once it has been checked. */
export interface RangeRequest {
  readonly iova: bigint;
  readonly size: number;
  /** `DmaMapFlag` bits. */
  readonly flags: number;
  /** Offset in the file. */
  readonly offset: number;
}

/** A range that the client has mapped, and our view of its memory. */
export class MappedRange implements ClientRange {
  readonly iova: bigint;
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
  /** First address as a number, NaN above 2^53, so that comparisons with it fail. */
  readonly first: number;
  readonly #mapping: Mapping | null;

  /**
   * Maps the descriptor that came with a DMA_MAP, if there is one. A range that is too long for an ArrayBuffer of this
   * Node.js is reached by messages.
   *
   * @param fd stays the caller's; null when none came
   * @param onLost called when an access found that the client has truncated the memory; the lost part reads as zero
   * @throws CommandError with the errno of mmap(2)
   */
  constructor(
    { iova, size, flags, offset }: RangeRequest,
    fd: number | null,
    onLost: (range: MappedRange) => void,
  ) {
    this.iova = iova;
    this.size = size;
    this.readable = (flags & DmaMapFlag.read) !== 0;
    this.writable = (flags & DmaMapFlag.write) !== 0;
    this.first = iova + BigInt(size) <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(iova) : NaN;
    this.#mapping = size > constants.MAX_LENGTH ? null : mapDescriptor(fd, offset, size, this.writable);
    if (this.#mapping === null) return;
    this.#mapping.onLost = () => {
      onLost(this);
    };
  }

  get buffer(): ArrayBuffer | null {
    return this.#mapping === null || this.#mapping.closed ? null : this.#mapping.buffer;
  }

  allows(access: Access): boolean {
    return (access === 'write' || this.readable) && (access === 'read' || this.writable);
  }

  close(): void {
    this.#mapping?.close();
  }
}

function mapDescriptor(fd: number | null, offset: number, size: number, writable: boolean): Mapping | null {
  if (fd === null) return null;
  try {
    return Mapping.map(fd, offset, size, { writable });
  } catch (error) {
    const errno = error instanceof VfioUserError ? error.errno : undefined;
    throw new CommandError(
      errno ?? Errno.EIO,
      error instanceof VfioUserError ? error.message : String(error),
    );
  }
}
