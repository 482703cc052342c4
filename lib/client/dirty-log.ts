// SPDX-License-Identifier: MIT
import { MappedDirtyLog, type LoggedRanges } from '../device/dirty-log';
import type { DmaDevices } from '../dma/devices';
import type { DmaRange } from '../dma/memory';
import { formatRange } from '../dma/table';
import type { DmaTarget, DmaTargetLog, TargetRange } from '../dma/target';
import { VfioUserError } from '../errors';
import {
  DirtyBitmap,
  Feature,
  decodeDmaLoggingControl,
  decodeDmaLoggingReport,
  dirtyBitmapSize,
  encodeDmaLoggingControl,
  encodeDmaLoggingQuery,
  type DirtyBitmapInfo,
  type DirtyPages,
} from '../protocol';
import type { DeviceFeatures } from './device-feature';

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
export class DeviceDirtyLog extends MappedDirtyLog implements DmaTargetLog {
  readonly #device: LoggingDevice;
  readonly #feature: DeviceFeatures;
  readonly #maxBitmap: number;
  /** Whether a log ended with its connection, and none was started since. */
  #lost = false;

  /**
   * @param devices of the container
   * @param maxBitmap largest bitmap of one message, in bytes
   */
  constructor(device: LoggingDevice, feature: DeviceFeatures, devices: DmaDevices, maxBitmap: number) {
    super(device.name, devices);
    this.#device = device;
    this.#feature = feature;
    this.#maxBitmap = Math.max(8, maxBitmap - (maxBitmap % 8));
  }

  override async supported(): Promise<boolean> {
    return (
      (await this.#feature.probe(Feature.dmaLoggingStart, { set: true })) &&
      (await this.#feature.probe(Feature.dmaLoggingReport, { get: true }))
    );
  }

  override async stop(): Promise<void> {
    this.#lost = false;
    await super.stop();
  }

  protected override async begin(pageSize: number, ranges: LoggedRanges): Promise<number> {
    this.#lost = false;
    const control = encodeDmaLoggingControl({ pageSize, ranges });
    return decodeDmaLoggingControl(await this.#feature.set(Feature.dmaLoggingStart, control)).pageSize;
  }

  protected override async end(pageSize: number): Promise<void> {
    await this.#feature.set(Feature.dmaLoggingStop, encodeDmaLoggingControl({ pageSize, ranges: [] }));
  }

  mark(iova: bigint, length: number): void {
    this.pages?.mark(iova, length);
  }

  checkUnmap(range: DmaRange): number {
    this.logged();
    const size = dirtyBitmapSize(range.size, this.pageSize);
    if (range.fd !== null && UNMAP_SIZE + size > this.#maxBitmap) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${formatRange(range)} has a dirty bitmap of ${size} bytes, and ${this.#device.name} transfers at most ${this.#maxBitmap} of a whole message; report first, then unmap`,
      );
    }
    return this.pageSize;
  }

  async unmap(range: TargetRange): Promise<void> {
    const pages = this.logged();
    // As in a report, memory without a descriptor is written by message only, and our own account of that is complete.
    if (range.fd === null) {
      const [error] = await this.#device.change([{ kind: 'unmap', range }]);
      if (error instanceof Error) throw error;
      return;
    }
    // The bitmap has the granularity of the log: at any other, libvfio-user's is wrong beyond 256 pages.
    const pageSize = this.pageSize;
    const bitmap = { pageSize, size: dirtyBitmapSize(range.size, pageSize) };
    const bytes = await this.#device.unmapWithBitmap(range, bitmap);
    pages.merge(new DirtyBitmap(range.iova, range.size, pageSize, bytes));
  }

  take(iova: bigint, length: number, pageSize: number): DirtyBitmap {
    return this.logged().take(iova, length, pageSize);
  }

  /** Ends the log, as its device has gone. Returns whether there was one. */
  connectionEnded(): boolean {
    if (this.pages === null) return false;
    this.release();
    this.#lost = true;
    return true;
  }

  protected override logged(): DirtyPages {
    if (!this.#lost) return super.logged();
    throw new VfioUserError(
      'ERR_VFIO_USER_DISCONNECTED',
      `the dirty log of ${this.#device.name} was lost with its connection: take all pages for dirty, and start it again`,
    );
  }

  /**
   * Asks for all of a mapped range, at the granularity of the log: libvfio-user refuses a part of a range, and its bitmap is
   * wrong beyond 256 pages at any other granularity. What the caller did not ask for is kept in `pages`.
   */
  protected override async fetch(pages: DirtyPages, range: DmaRange): Promise<void> {
    const most = this.#maxBitmap * 8 * this.pageSize;
    for (let at = 0; at < range.size; at += most) {
      const length = Math.min(most, range.size - at);
      const query = { iova: range.iova + BigInt(at), length, pageSize: this.pageSize };
      const room = REPORT_SIZE + dirtyBitmapSize(length, query.pageSize);
      const data = await this.#feature.get(Feature.dmaLoggingReport, encodeDmaLoggingQuery(query), room);
      pages.merge(new DirtyBitmap(query.iova, length, query.pageSize, decodeDmaLoggingReport(data, query)));
    }
  }
}
