// SPDX-License-Identifier: MIT
import type { DmaDevices } from '../dma/devices';
import type { DmaRange } from '../dma/memory';
import { VfioUserError, invalidArgument, outOfRange } from '../errors';
import { isPowerOfTwo } from '../power-of-two';
import { DirtyPages, MIN_DIRTY_PAGE_SIZE, dirtyBitmapSize, type DirtyBitmap } from '../protocol';

/** What to log, for {@link DirtyLog.start}. */
export interface DirtyLogOptions {
  /** Granularity in bytes, a power of two of at least 4096; the device may choose another. Default 4096. */
  readonly pageSize?: number;
  /** Ranges of addresses that are logged. When there are none, which is the default, all are. */
  readonly ranges?: readonly {
    /** First address, 0 to 2^64 - 1. */
    readonly iova: number | bigint;
    /** Bytes. */
    readonly length: number;
  }[];
}

/**
 * Which memory a device has written. Of a vfio-user device, that is what it has logged of its own stores, and what came from
 * it by DMA_WRITE messages, which libvfio-user does not log. Of a device of the kernel's, it is what the device or else the
 * IOMMU has logged.
 *
 * @example
 * await device.dirtyLog.start();
 * for (const iova of await device.dirtyLog.report(memory.iova, memory.size)) …
 */
export interface DirtyLog {
  /** Whether the device can log. */
  supported(): Promise<boolean>;

  /**
   * Starts to log, with all pages clean. When devices share a container, DMA_WRITE messages of each are in the logs of all.
   *
   * @returns the granularity that the device has chosen, in bytes
   * @throws TypeError for a page size that makes no sense, or when it logs already
   * @throws VfioUserError ERR_VFIO_USER_REMOTE, UNSUPPORTED or SYSTEM when the device cannot log
   */
  start(options?: DirtyLogOptions): Promise<number>;

  /** Stops logging, and forgets what was logged. Does nothing while nothing is logged. */
  stop(): Promise<void>;

  /**
   * The pages of a range that were written since they were last reported; they are clean afterwards. Pages that are not
   * mapped are clean.
   *
   * @param length bytes
   * @param pageSize bytes that one bit stands for, a power of two; default the granularity of the log
   * @throws TypeError while nothing is logged, or for a page size that makes no sense; RangeError for addresses beyond 64 bits
   */
  report(iova: number | bigint, length: number, pageSize?: number): Promise<DirtyBitmap>;
}

/** Ranges of addresses to log; none for all. */
export type LoggedRanges = NonNullable<DirtyLogOptions['ranges']>;

/**
 * A dirty log of the memory in a container. How the device is asked is for the classes that extend this one, which fetch what it
 * has logged of a range that is mapped: the rest of a range that the user did not ask for is kept.
 */
export abstract class MappedDirtyLog implements DirtyLog {
  /** What is dirty and has not been asked for yet; null when nothing is logged. */
  protected pages: DirtyPages | null = null;
  /** Granularity of the device's log; 0 until the device has chosen it. */
  protected pageSize = 0;
  readonly #name: string;
  readonly #devices: DmaDevices;

  /**
   * @param name of the device
   * @param devices of the container
   */
  constructor(name: string, devices: DmaDevices) {
    this.#name = name;
    this.#devices = devices;
  }

  abstract supported(): Promise<boolean>;
  /** Lets the device log; returns the granularity that it has chosen, in bytes. */
  protected abstract begin(pageSize: number, ranges: LoggedRanges): Promise<number>;
  /** Lets the device end its log, which had the granularity that is given. */
  protected abstract end(pageSize: number): Promise<void>;
  /** Takes what the device has logged of a range that is mapped. */
  protected abstract fetch(pages: DirtyPages, range: DmaRange): Promise<void>;

  async start(options: DirtyLogOptions = {}): Promise<number> {
    const { pageSize = MIN_DIRTY_PAGE_SIZE, ranges = [] } = options;
    if (!isPageSize(pageSize))
      throw invalidArgument(`pageSize is ${pageSize}; give a power of two of at least 4096`);
    if (this.pages !== null)
      throw invalidArgument(`${this.#name} logs dirty pages already; stop that before it is started again`);
    // Logging begins before the device is asked, since a DMA_WRITE may come before the reply.
    this.pages = new DirtyPages(pageSize);
    try {
      const chosen = await this.begin(pageSize, ranges);
      // Smaller ones would be a bitmap of the size of the memory.
      if (!isPageSize(chosen)) {
        throw new VfioUserError(
          'ERR_VFIO_USER_PROTOCOL',
          `${this.#name} logs pages of ${chosen} bytes, which is no power of two of at least ${MIN_DIRTY_PAGE_SIZE}`,
          { command: 'DEVICE_FEATURE' },
        );
      }
      this.pageSize = chosen;
      return chosen;
    } catch (error) {
      this.release();
      throw error;
    }
  }

  async stop(): Promise<void> {
    if (this.pages === null) return;
    const { pageSize } = this;
    this.release();
    await this.end(pageSize);
  }

  async report(iova: number | bigint, length: number, pageSize?: number): Promise<DirtyBitmap> {
    const pages = this.logged();
    if (
      !Number.isSafeInteger(length) ||
      length < 1 ||
      BigInt(iova) < 0n ||
      BigInt(iova) + BigInt(length) > 1n << 64n
    )
      throw outOfRange(`${length} bytes at 0x${iova.toString(16)} are not a range of 64-bit addresses`);
    const unit = pageSize ?? this.pageSize;
    // Throws for a page size that makes no sense, before anything is asked.
    dirtyBitmapSize(length, unit);
    for (const range of this.#devices.ranges.overlapping(BigInt(iova), BigInt(length))) {
      // Memory that the device cannot map is written by message only, and our own account is complete.
      if (range.fd !== null) await this.fetch(pages, range);
    }
    return pages.take(iova, length, unit);
  }

  /** Ends the log without telling the device. */
  release(): void {
    this.pages = null;
    this.pageSize = 0;
  }

  /** @throws TypeError while nothing is logged */
  protected logged(): DirtyPages {
    if (this.pages === null || this.pageSize === 0)
      throw invalidArgument(`${this.#name} does not log dirty pages; start that first`);
    return this.pages;
  }
}

function isPageSize(value: number): boolean {
  return Number.isSafeInteger(value) && value >= MIN_DIRTY_PAGE_SIZE && isPowerOfTwo(value);
}
