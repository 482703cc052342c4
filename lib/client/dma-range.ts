// SPDX-License-Identifier: MIT
import { VfioUserError, invalidArgument } from '../errors';
import type { IovaRange } from '../pci/iova-map';
import type { DirtyBitmap } from '../protocol';
import type { RangeMemory } from './dma-memory';
import type { Done } from './pipeline';

/** What the device may do with a mapped range. */
export type DmaAccess = 'read' | 'write' | 'readwrite';

/** A device that is told what the container maps. */
export interface DmaTarget {
  readonly name: string;
  /** Most ranges that may be mapped at once. */
  readonly maxDmaMaps: number;
  /** Addresses, sizes and offsets must be multiples of this many bytes: the smallest page that the server takes. */
  readonly dmaPageSize: number;
  /** @param index for `done` */
  mapDma(range: DmaRange, done: Done, index: number): void;
  /** Does nothing when the device is gone. */
  unmapDma(range: DmaRange): Promise<void>;
  /** Everything with one message; fails when the server does not know how. */
  unmapAllDma(): Promise<void>;
  readonly dirtyLog: DmaTargetLog;
}

/** The log of what a {@link DmaTarget} writes, as far as it concerns its container. */
export interface DmaTargetLog {
  /**
   * Checks that {@link unmap} could tell what was written.
   *
   * @returns the granularity of the log, in bytes
   * @throws TypeError while nothing is logged; VfioUserError ERR_VFIO_USER_DMA when the range is too large
   */
  checkUnmap(range: DmaRange): number;
  /** Takes a range from the device; what the device tells that it has written joins the log. */
  unmap(range: DmaRange): Promise<void>;
  /** The dirty pages of a range, which become clean. */
  take(iova: bigint, length: number, pageSize: number): DirtyBitmap;
}

/** One mapped range, as the devices are told of it. */
export interface DmaRange extends IovaRange {
  readonly access: DmaAccess;
  /** Descriptor that the device may map, null when it has to send messages. Owned by the container. */
  readonly fd: number | null;
  readonly fdOffset: number;
  /** The memory, from which DMA_READ and DMA_WRITE messages are served; null when there is none. */
  readonly memory: RangeMemory | null;
  /** Whether the devices get the descriptor. */
  readonly direct: boolean;
}

/** A range to map. */
export interface DmaMapOptions {
  /** Address at which the device sees the first byte: 0 to 2^64 - 1, a multiple of the page size. */
  readonly iova: number | bigint;
  /** Bytes, a multiple of the page size. */
  readonly size: number;
  /** File with the memory; it is duplicated, and stays the caller's. Without it, the device can only send messages. */
  readonly fd?: number;
  /** Offset of the first byte in `fd`, a multiple of the page size. Default 0. */
  readonly offset?: number;
  /** What the device may do. Default `readwrite`. */
  readonly access?: DmaAccess;
  /** False: the device does not get `fd` and reaches the memory by message. Default: as the container's `directDma`. */
  readonly direct?: boolean;
}

/** The range of {@link DmaMapOptions}. A batch is checked before any memory is taken, so that {@link back} gives it that. */
export class MappedRange implements DmaRange {
  readonly iova: bigint;
  readonly size: number;
  readonly access: DmaAccess;
  readonly direct: boolean;
  fd: number | null = null;
  fdOffset = 0;
  memory: RangeMemory | null = null;

  /** @param direct unless the options tell */
  constructor(options: DmaMapOptions, direct: boolean) {
    this.iova = BigInt(options.iova);
    this.size = options.size;
    this.access = options.access ?? 'readwrite';
    this.direct = options.direct ?? direct;
  }

  /** @param offset of the first byte in its file */
  back(memory: RangeMemory, offset: number): void {
    this.fd = memory.fd;
    this.fdOffset = offset;
    this.memory = memory;
  }
}

/** A range that was mapped. */
export interface DmaMapping extends IovaRange {
  /**
   * Our view of the memory, null for a range without descriptor. Detached after {@link close}. The memory of a batch is
   * mapped when this is read first, which throws a VfioUserError ERR_VFIO_USER_SYSTEM when its file has shrunk since.
   */
  readonly buffer: ArrayBuffer | null;
  /** Takes the range from the devices. Idempotent. */
  close(): Promise<void>;
}

/** Where an address is, in one mapped range. */
export interface DmaPlace {
  readonly range: DmaRange;
  /** Our view of the range, null when it was mapped without memory of this process. */
  readonly buffer: ArrayBuffer | null;
  /** Offset of the address in the range, in bytes. */
  readonly offset: number;
}

/**
 * Checks that a range to map is made of whole pages.
 *
 * @param unit size of a page in bytes
 * @throws TypeError ERR_INVALID_ARG_VALUE
 */
export function checkPages({ iova, size, offset = 0 }: DmaMapOptions, unit: number): void {
  if (!isMultiple(iova, unit)) throw notPages('iova', iova, unit);
  if (!isMultiple(size, unit)) throw notPages('size', size, unit);
  if (!isMultiple(offset, unit)) throw notPages('offset', offset, unit);
}

function isMultiple(value: number | bigint, unit: number): boolean {
  // The remainder of a double is exact, however large it is, and NaN for what is no number.
  return typeof value === 'bigint' ? value % BigInt(unit) === 0n : value % unit === 0;
}

function notPages(name: string, value: number | bigint, unit: number): Error {
  return invalidArgument(
    `${name} ${String(value)} is not a multiple of the page size, ${String(unit)} bytes`,
  );
}

/**
 * Whether a device that failed to unmap a range may still use it: not when it is gone, or says that it has no such range
 * (ENOENT).
 */
export function mayStillHold(error: unknown): boolean {
  if (!(error instanceof VfioUserError)) return true;
  if (error.code === 'ERR_VFIO_USER_DISCONNECTED' || error.code === 'ERR_VFIO_USER_CLOSED') return false;
  return !(error.code === 'ERR_VFIO_USER_REMOTE' && error.errnoName === 'ENOENT');
}
