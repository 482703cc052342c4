// SPDX-License-Identifier: MIT
import { VfioUserError, asError, outOfRange } from '../errors';
import { pageSize } from '../native';
import type { DeviceDma, DmaMemory } from '../pci/device';
import type { DirtyBitmap } from '../protocol/dirty-pages';
import { DmaBatch, assertDone } from './batch';
import { intersect, type IovaSpan } from './iova-spans';
import {
  BorrowedFiles,
  HUGE_PAGE,
  MappedRange,
  checkPages,
  type DmaMapOptions,
  type DmaMapping,
  type HugePages,
} from './memory';
import { DmaDevices, mappingsWithin, notMapped } from './devices';

/** How a {@link DmaContainer} allocates and shares. */
export interface DmaContainerOptions {
  /**
   * False: descriptors are never sent, the device reaches all memory by message. For servers that are not trusted
   * with our memory. Default true.
   */
  readonly directDma?: boolean;
  /**
   * Use 2 MiB huge pages for allocations of at least that size: `auto` takes them when the system has them (SPDK
   * registers only such memory with real devices), `always` fails without, `never` does not ask. Default `auto`.
   */
  readonly hugePages?: 'auto' | 'always' | 'never';
}

/** Where an address is, in one mapped range. */
export interface DmaPlace {
  /** The mapping that the address is in. */
  readonly range: DmaMapping;
  /** Our view of the range, null when it was mapped without memory of this process. */
  readonly buffer: ArrayBuffer | null;
  /** Offset of the address in the range, in bytes. */
  readonly offset: number;
}

/**
 * Where allocations are made: above 4 GiB, clear of addresses that callers like to choose themselves, and then below for a
 * device that cannot be told of others. NVMe and many other devices have at most 48 address bits.
 */
const ALLOCATION_SPANS: readonly IovaSpan[] = [
  { first: 1n << 32n, last: (1n << 47n) - 1n },
  { first: 1n << 20n, last: (1n << 32n) - 1n },
];

/** The devices of a container, for the code that adds and removes them. It is no part of the public API. */
export let devicesOf: (container: DmaContainer) => DmaDevices;

/**
 * The memory that devices may access, by I/O virtual address: what QEMU's vfio-user series calls the container.
 * It allocates and maps, tells its devices, and serves their DMA_READ and DMA_WRITE messages from what is mapped.
 *
 * Each device has one, unless it is given one that devices share (`connect(path, { dma })`).
 */
export class DmaContainer implements DeviceDma {
  readonly #devices = new DmaDevices();
  readonly #directDma: boolean;
  readonly #hugePages: HugePages;

  static {
    devicesOf = (container) => container.#devices;
  }

  /** A container without devices. `connect(path, { dma })` adds one, any number of times. */
  constructor(options: DmaContainerOptions = {}) {
    this.#directDma = options.directDma ?? true;
    this.#hugePages = options.hugePages ?? 'auto';
  }

  /** What is mapped now, by address. */
  get ranges(): readonly DmaMapping[] {
    return [...this.#devices.ranges];
  }

  /** What is mapped, in one line. */
  dump(): string {
    return this.#devices.ranges.dump();
  }

  /**
   * Allocates zeroed memory, and shows it to the devices.
   *
   * @param size bytes, 1 to 2^53 - 1; rounded up to pages, or to huge pages
   * @throws RangeError for a size that makes no sense; VfioUserError ERR_VFIO_USER_DMA when no address is free or a device
   *   takes no more ranges, SYSTEM when there is no memory, REMOTE and others of a message when a device refuses
   */
  async allocate(size: number): Promise<DmaMemory> {
    if (!Number.isSafeInteger(size) || size < 1)
      throw outOfRange(`size is ${size}; it is an integer from 1 to 2^53 - 1`);
    return this.#devices.shared(async () => {
      const range = this.#enterFree(size);
      await this.#devices.show(range);
      return {
        buffer: range.buffer as ArrayBuffer,
        iova: Number(range.iova),
        size: range.size,
        fd: range.ownFd as number,
        fdOffset: range.fdOffset,
        close: () => range.close(),
      };
    });
  }

  /**
   * Shows the caller's memory to the devices, or a range without memory.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when the range overlaps, or a device takes no more ranges; TypeError when it is not
   *   made of pages that all devices take; VfioUserError ERR_VFIO_USER_SYSTEM when the memory cannot be mapped here. Nothing
   *   has been sent then
   * @throws VfioUserError ERR_VFIO_USER_REMOTE and others of a message when a device refuses. It is mapped nowhere then
   */
  async map(options: DmaMapOptions): Promise<DmaMapping> {
    return this.#devices.shared(async () => {
      const { fd, offset = 0 } = options;
      checkPages(options, fd === undefined ? this.#devices.pageSize : this.#memoryPageSize);
      const range = new MappedRange(options, this.#directDma, this.#devices);
      this.#devices.enter(range);
      try {
        if (fd !== undefined) new BorrowedFiles().back(range, fd, offset);
      } catch (error) {
        this.#devices.release(range);
        throw error;
      }
      await this.#devices.show(range);
      return range;
    });
  }

  /**
   * Takes all mappings that lie within a range from the devices; there may be none. Each device gets a message for each of them:
   * not every server takes one for several (vfio-user, VFIO_USER_DMA_UNMAP). A mapping stays when a device that is still there
   * refuses or does not answer, as the device may still use it. Try again, or close the device.
   *
   * @param size bytes, 1 to 2^64
   * @returns the bytes that were unmapped
   * @throws VfioUserError ERR_VFIO_USER_DMA when the range cuts through a mapping, or is none; nothing has been sent then
   * @throws VfioUserError ERR_VFIO_USER_REMOTE and others of a message: the first that failed. The others were done
   */
  async unmap(iova: number | bigint, size: number | bigint): Promise<number> {
    return this.#devices.shared(async () => {
      const ranges = mappingsWithin(this.#devices.ranges, BigInt(iova), BigInt(size));
      const results = await Promise.allSettled(ranges.map((range) => this.#devices.leave(range)));
      for (const result of results) if (result.status === 'rejected') throw asError(result.reason);
      return ranges.reduce((sum, range) => sum + range.size, 0);
    });
  }

  /**
   * Takes a range from the devices, as {@link unmap}, and tells which of its pages they have written since that was last
   * reported: no write comes between the answer and the unmap. Every device must log dirty pages. It is an extension of
   * libvfio-user (flag GET_DIRTY_BITMAP and `struct vfio_user_bitmap` of its vfio-user.h), which other servers refuse.
   *
   * When it fails after something was sent, the range stays as with {@link unmap}. What devices have told already comes with
   * the next `report` of their dirty logs. After a reply that makes no sense it is not known whether the device still has the
   * range, and another unmap tells. The log of a device that has gone is lost: take all pages for dirty.
   *
   * @param pageSize bytes that one bit stands for, a power of two; default the smallest granularity of the devices' logs
   * @throws TypeError when a device does not log, or the page size makes no sense; VfioUserError ERR_VFIO_USER_DMA when
   *   there is no such mapping, or a device cannot send a bitmap of its size. Nothing has been sent then
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when a device refuses; ERR_VFIO_USER_PROTOCOL for a reply without the bitmap
   */
  async unmapAndReport(iova: number | bigint, size: number, pageSize?: number): Promise<DirtyBitmap> {
    return this.#devices.shared(() => this.#devices.leaveReporting(this.#get(BigInt(iova), size), pageSize));
  }

  /**
   * Takes all ranges from the devices: with one message from a server that knows libvfio-user's flag for that, else range by
   * range.
   *
   * @throws DmaBatchError when a device refused; what it may still use stays
   */
  async unmapAll(): Promise<void> {
    const devices = this.#devices;
    await devices.alone(async () => {
      assertDone(await devices.leaveAll(), devices);
    });
  }

  /** Several maps and unmaps that are checked and sent together; see {@link DmaBatch}. */
  batch(): DmaBatch {
    return new DmaBatch(this.#devices, this.#directDma);
  }

  /**
   * Where `length` bytes at an address are. Sends nothing.
   *
   * @param length bytes, at least 1
   * @returns undefined when they are not mapped, or not within one range
   */
  lookup(iova: number | bigint, length = 1): DmaPlace | undefined {
    const address = BigInt(iova);
    const range = this.#devices.ranges.at(address);
    if (range === undefined || !(length > 0)) return undefined;
    const offset = Number(address - range.iova);
    if (offset + length > range.size) return undefined;
    return { range, offset, buffer: range.buffer };
  }

  /** Releases all memory without a message to any device. Call it when they are gone. Nothing can be mapped afterwards. Idempotent. */
  close(): void {
    this.#devices.close();
  }

  /** Page size of memory that is also mapped in this process, in bytes. */
  get #memoryPageSize(): number {
    return Math.max(pageSize, this.#devices.pageSize);
  }

  /** @throws VfioUserError ERR_VFIO_USER_DMA when no device could be told of so many free addresses */
  #findGap(size: number, alignment: number): bigint {
    const { ranges, iovaSpans } = this.#devices;
    for (const { first, last } of intersect(ALLOCATION_SPANS, iovaSpans)) {
      const iova = ranges.findGap(size, alignment, first, last + 1n);
      if (iova !== undefined) return iova;
    }
    throw new VfioUserError(
      'ERR_VFIO_USER_DMA',
      `no ${size} free bytes of I/O address space are left; unmap something, or map at an address of your own. Mapped: ${this.dump()}`,
    );
  }

  #get(iova: bigint, size: number): MappedRange {
    const range = this.#devices.ranges.get(iova, size);
    if (range === undefined) throw notMapped({ iova, size }, this.#devices.ranges);
    return range;
  }

  /** Enters a range with new memory at a free address. */
  #enterFree(size: number): MappedRange {
    const huge = this.#hugePages !== 'never' && size >= HUGE_PAGE;
    const unit = Math.max(huge ? HUGE_PAGE : pageSize, this.#devices.pageSize);
    const rounded = Math.ceil(size / unit) * unit;
    // Aligned to huge pages whenever large, so that a server can map it so: SPDK ignores other memory for real DMA.
    const alignment = rounded >= HUGE_PAGE ? HUGE_PAGE : pageSize;
    const iova = this.#findGap(rounded, Math.max(alignment, unit));
    const range = new MappedRange({ iova, size: rounded }, this.#directDma, this.#devices);
    this.#devices.enter(range);
    try {
      range.allocate(alignment, huge ? this.#hugePages : 'never');
      return range;
    } catch (error) {
      this.#devices.release(range);
      throw error;
    }
  }
}
