// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import type { Mapping } from '../native';
import type { DirtyBitmap } from '../protocol/dirty-pages';
import { contains, formatSpans, type IovaSpan } from './iova-spans';
import type { DmaRange } from './memory';
import { formatRange, type IovaRange } from './table';

/** A range, and its memory in this process for a device that is given that instead of a file. */
export interface TargetRange extends DmaRange {
  /**
   * Our own mapping of the range; null when it has no file. It lives until the last device has let go of the range.
   *
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM when it cannot be mapped
   */
  memory(): Mapping | null;
}

/** What a device is told: that it may access a range, or that it may do so no more. */
export interface DmaChange {
  readonly kind: 'map' | 'unmap';
  readonly range: TargetRange;
}

/** A device that is told what a container maps, however it is reached. */
export interface DmaTarget {
  /** For messages. */
  readonly name: string;
  /** Most ranges that may be mapped at once. */
  readonly maxDmaMaps: number;
  /** Addresses, sizes and offsets must be multiples of this many bytes: the smallest page that the device takes. */
  readonly dmaPageSize: number;
  /** Addresses that can be mapped, sorted; all when it is absent. They may become fewer while nothing else is mapped. */
  readonly iovaSpans?: readonly IovaSpan[];
  /**
   * Tells the device of changes, in their order and behind those of earlier calls, without waiting for one before the next.
   * A device that is gone has nothing that could be unmapped.
   *
   * @returns by index, null or why it failed. Never rejects
   */
  change(changes: readonly DmaChange[]): Promise<readonly (Error | null)[]>;
  /**
   * Takes all ranges from the device: with one message when it knows one for that, else one by one.
   *
   * @param ranges what the device has, none of which may be left
   * @returns by index, null or why it failed. Never rejects
   */
  unmapAll(ranges: readonly TargetRange[]): Promise<readonly (Error | null)[]>;
  readonly dirtyLog: DmaTargetLog;
}

/** The log of what a {@link DmaTarget} writes, as far as it concerns its container. */
export interface DmaTargetLog {
  /** Notes what came by message, from whichever device. Does nothing while nothing is logged. */
  mark(iova: bigint, length: number): void;
  /**
   * Checks that {@link unmap} could tell what was written.
   *
   * @returns the granularity of the log, in bytes
   * @throws TypeError while nothing is logged; VfioUserError ERR_VFIO_USER_DMA when the range is too large
   */
  checkUnmap(range: DmaRange): number;
  /** Takes a range from the device; what the device tells that it has written joins the log. */
  unmap(range: TargetRange): Promise<void>;
  /** The dirty pages of a range, which become clean. */
  take(iova: bigint, length: number, pageSize: number): DirtyBitmap;
}
/** @throws VfioUserError ERR_VFIO_USER_DMA when a device does not take so many ranges, their pages or their addresses */
export function checkTarget(target: DmaTarget, ranges: readonly DmaRange[]): void {
  if (ranges.length > target.maxDmaMaps) {
    throw new VfioUserError(
      'ERR_VFIO_USER_DMA',
      `${target.name} takes at most ${target.maxDmaMaps} DMA mappings, and ${ranges.length} are in use; unmap some first`,
    );
  }
  const unit = BigInt(target.dmaPageSize);
  for (const range of ranges) {
    checkSpans(target, range);
    if (range.iova % unit === 0n && BigInt(range.size) % unit === 0n && BigInt(range.fdOffset) % unit === 0n)
      continue;
    throw new VfioUserError(
      'ERR_VFIO_USER_DMA',
      `${target.name} takes DMA mappings of pages of ${target.dmaPageSize} bytes, of which ${formatRange(range)} is not made; align its address, size and offset`,
    );
  }
}

/** @throws VfioUserError ERR_VFIO_USER_DMA when a device cannot be told of the addresses of a range */
export function checkSpans({ name, iovaSpans }: DmaTarget, range: IovaRange): void {
  if (iovaSpans === undefined || contains(iovaSpans, range)) return;
  throw new VfioUserError(
    'ERR_VFIO_USER_DMA',
    `${formatRange(range)} is not within the addresses that the IOMMU lets ${name} use: ${formatSpans(iovaSpans)}; choose an address there, or allocate()`,
  );
}

/**
 * Whether a device that failed to unmap a range may still use it: not when it is gone, or says that it has no such range
 * (ENOENT).
 */
export function mayStillHold(error: Error): boolean {
  if (!(error instanceof VfioUserError)) return true;
  if (error.code === 'ERR_VFIO_USER_DISCONNECTED' || error.code === 'ERR_VFIO_USER_CLOSED') return false;
  return !(error.code === 'ERR_VFIO_USER_REMOTE' && error.errnoName === 'ENOENT');
}
