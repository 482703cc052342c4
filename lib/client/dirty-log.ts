// SPDX-License-Identifier: MIT
import type { DmaRange } from '../dma/memory';
import { formatRange } from '../dma/table';
import type { DmaDevices } from '../dma/devices';
import type { DmaTarget, DmaTargetLog, TargetRange } from '../dma/target';
import { VfioUserError, invalidArgument, outOfRange } from '../errors';
import {
  DirtyBitmap,
  DirtyPages,
  Feature,
  MIN_DIRTY_PAGE_SIZE,
  decodeDmaLoggingControl,
  decodeDmaLoggingReport,
  dirtyBitmapSize,
  encodeDmaLoggingControl,
  encodeDmaLoggingQuery,
  type DirtyBitmapInfo,
} from '../protocol';
import type { DeviceFeatures } from './device-feature';

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
 * Which memory a device has written: what the device has logged of its own stores, and what came from it by DMA_WRITE
 * messages, which libvfio-user does not log.
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
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when the device cannot log
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

/** The device whose writes a {@link DeviceDirtyLog} logs. */
interface LoggingDevice extends Pick<DmaTarget, 'name' | 'change'> {
  /** Takes a range from the server, which sends a bitmap of what it has written of it. */
  unmapWithBitmap(range: DmaRange, bitmap: DirtyBitmapInfo): Promise<Uint8Array>;
}

/** The fixed part of a report (vfio-user, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT). */
const REPORT_SIZE = 24;
/** The fixed part of a DMA_UNMAP with a bitmap. libvfio-user limits it and the bitmap together to its max_data_xfer_size. */
const UNMAP_SIZE = 40;

/** The log of one device, for its user and for its container. */
export class DeviceDirtyLog implements DirtyLog, DmaTargetLog {
  readonly #device: LoggingDevice;
  readonly #feature: DeviceFeatures;
  readonly #devices: DmaDevices;
  readonly #maxBitmap: number;
  /** What is dirty and has not been asked for yet; null when nothing is logged. */
  #pages: DirtyPages | null = null;
  /** Granularity of the device's log; 0 until the device has chosen it. */
  #pageSize = 0;
  /** Whether a log ended with its connection, and none was started since. */
  #lost = false;

  /**
   * @param devices of the container
   * @param maxBitmap largest bitmap of one message, in bytes
   */
  constructor(device: LoggingDevice, feature: DeviceFeatures, devices: DmaDevices, maxBitmap: number) {
    this.#device = device;
    this.#feature = feature;
    this.#devices = devices;
    this.#maxBitmap = Math.max(8, maxBitmap - (maxBitmap % 8));
  }

  async supported(): Promise<boolean> {
    return (
      (await this.#feature.probe(Feature.dmaLoggingStart, { set: true })) &&
      (await this.#feature.probe(Feature.dmaLoggingReport, { get: true }))
    );
  }

  async start(options: DirtyLogOptions = {}): Promise<number> {
    const { pageSize = MIN_DIRTY_PAGE_SIZE, ranges = [] } = options;
    if (!isPageSize(pageSize) || pageSize < MIN_DIRTY_PAGE_SIZE)
      throw invalidArgument(`pageSize is ${pageSize}; give a power of two of at least 4096`);
    if (this.#pages !== null)
      throw invalidArgument(
        `${this.#device.name} logs dirty pages already; stop that before it is started again`,
      );
    this.#lost = false;
    // Logging begins before the request is sent, since a DMA_WRITE may come before the reply.
    this.#pages = new DirtyPages(pageSize);
    try {
      const reply = await this.#feature.set(
        Feature.dmaLoggingStart,
        encodeDmaLoggingControl({ pageSize, ranges }),
      );
      const chosen = decodeDmaLoggingControl(reply).pageSize;
      // Smaller ones would be a bitmap of the size of the memory.
      if (!isPageSize(chosen) || chosen < MIN_DIRTY_PAGE_SIZE) {
        throw new VfioUserError(
          'ERR_VFIO_USER_PROTOCOL',
          `${this.#device.name} logs pages of ${chosen} bytes, which is no power of two of at least ${MIN_DIRTY_PAGE_SIZE}`,
          { command: 'DEVICE_FEATURE' },
        );
      }
      this.#pageSize = chosen;
      return chosen;
    } catch (error) {
      this.release();
      throw error;
    }
  }

  async stop(): Promise<void> {
    this.#lost = false;
    if (this.#pages === null) return;
    const pageSize = this.#pageSize;
    this.release();
    await this.#feature.set(Feature.dmaLoggingStop, encodeDmaLoggingControl({ pageSize, ranges: [] }));
  }

  async report(iova: number | bigint, length: number, pageSize?: number): Promise<DirtyBitmap> {
    const pages = this.#logged();
    if (
      !Number.isSafeInteger(length) ||
      length < 1 ||
      BigInt(iova) < 0n ||
      BigInt(iova) + BigInt(length) > 1n << 64n
    )
      throw outOfRange(`${length} bytes at 0x${iova.toString(16)} are not a range of 64-bit addresses`);
    const unit = pageSize ?? this.#pageSize;
    // Throws for a page size that makes no sense, before anything is asked.
    dirtyBitmapSize(length, unit);
    for (const range of this.#devices.ranges.overlapping(BigInt(iova), BigInt(length))) {
      // Memory that the device cannot map is written by message only, and our own account is complete.
      if (range.fd !== null) await this.#fetch(pages, range);
    }
    return pages.take(iova, length, unit);
  }

  mark(iova: bigint, length: number): void {
    this.#pages?.mark(iova, length);
  }

  checkUnmap(range: DmaRange): number {
    this.#logged();
    const size = dirtyBitmapSize(range.size, this.#pageSize);
    if (range.fd !== null && UNMAP_SIZE + size > this.#maxBitmap) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${formatRange(range)} has a dirty bitmap of ${size} bytes, and ${this.#device.name} transfers at most ${this.#maxBitmap} of a whole message; report first, then unmap`,
      );
    }
    return this.#pageSize;
  }

  async unmap(range: TargetRange): Promise<void> {
    const pages = this.#logged();
    // As in a report, memory without a descriptor is written by message only, and our own account of that is complete.
    if (range.fd === null) {
      const [error] = await this.#device.change([{ kind: 'unmap', range }]);
      if (error instanceof Error) throw error;
      return;
    }
    // The bitmap has the granularity of the log: at any other, libvfio-user's is wrong beyond 256 pages.
    const pageSize = this.#pageSize;
    const bitmap = { pageSize, size: dirtyBitmapSize(range.size, pageSize) };
    const bytes = await this.#device.unmapWithBitmap(range, bitmap);
    pages.merge(new DirtyBitmap(range.iova, range.size, pageSize, bytes));
  }

  take(iova: bigint, length: number, pageSize: number): DirtyBitmap {
    return this.#logged().take(iova, length, pageSize);
  }

  /** Ends the log, as its device has gone. Returns whether there was one. */
  connectionEnded(): boolean {
    if (this.#pages === null) return false;
    this.release();
    this.#lost = true;
    return true;
  }

  /** Ends the log without a message to the device. */
  release(): void {
    this.#pages = null;
    this.#pageSize = 0;
  }

  #logged(): DirtyPages {
    if (this.#lost) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DISCONNECTED',
        `the dirty log of ${this.#device.name} was lost with its connection: take all pages for dirty, and start it again`,
      );
    }
    if (this.#pages === null || this.#pageSize === 0)
      throw invalidArgument(`${this.#device.name} does not log dirty pages; start that first`);
    return this.#pages;
  }

  /**
   * Asks for all of a mapped range, at the granularity of the log: libvfio-user refuses a part of a range, and its bitmap is
   * wrong beyond 256 pages at any other granularity. What the caller did not ask for is kept in `pages`.
   */
  async #fetch(pages: DirtyPages, range: DmaRange): Promise<void> {
    const most = this.#maxBitmap * 8 * this.#pageSize;
    for (let at = 0; at < range.size; at += most) {
      const length = Math.min(most, range.size - at);
      const query = { iova: range.iova + BigInt(at), length, pageSize: this.#pageSize };
      const room = REPORT_SIZE + dirtyBitmapSize(length, query.pageSize);
      const data = await this.#feature.get(Feature.dmaLoggingReport, encodeDmaLoggingQuery(query), room);
      pages.merge(new DirtyBitmap(query.iova, length, query.pageSize, decodeDmaLoggingReport(data, query)));
    }
  }
}

function isPageSize(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value));
}
