// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import type { Iommufd, VfioContainer, VfioDeviceFile } from '../native';
import { MIN_DIRTY_PAGE_SIZE } from '../protocol';

/** Addresses to log. */
export interface LoggedSpan {
  readonly iova: bigint;
  /** Bytes. */
  readonly length: bigint;
}

/** Who in the kernel or below it knows which pages a device has written: the device itself, or its IOMMU. */
export interface DirtyTracker {
  /** Whether it logs the spans that it is given alone; else it logs all that is mapped. */
  readonly bySpans: boolean;
  /** Most bytes of a range whose log can be taken with one call. */
  readonly maxLength: number;
  /** Begins a log. Returns its granularity, in bytes. */
  start(pageSize: number, spans: readonly LoggedSpan[]): number;
  stop(): void;
  /** Sets a bit of `bitmap` for each page of `pageSize` bytes that was written, and forgets it. */
  take(iova: bigint, length: number, pageSize: number, bitmap: Uint8Array): void;
}

/** A log of up to 1 MiB for pages of 4 KiB. */
const LARGE = 2 ** 35;

/** The device logs its own writes (`linux/vfio.h`, VFIO_DEVICE_FEATURE_DMA_LOGGING_START). */
export class DeviceTracker implements DirtyTracker {
  readonly bySpans = true;
  readonly maxLength = LARGE;
  readonly #file: VfioDeviceFile;

  constructor(file: VfioDeviceFile) {
    this.#file = file;
  }

  start(pageSize: number, spans: readonly LoggedSpan[]): number {
    const words = BigUint64Array.from(spans.flatMap(({ iova, length }) => [iova, length]));
    return this.#file.startLog(pageSize, new Uint8Array(words.buffer));
  }

  stop(): void {
    this.#file.stopLog();
  }

  take(iova: bigint, length: number, pageSize: number, bitmap: Uint8Array): void {
    this.#file.takeLog(iova, length, pageSize, bitmap);
  }
}

/**
 * The IOMMU logs the writes of a device, in a page table of the device's own, which is made for that (`linux/iommufd.h`,
 * IOMMU_HWPT_ALLOC_DIRTY_TRACKING) and takes the place of the one that its space has.
 */
export class PageTableTracker implements DirtyTracker {
  readonly bySpans = false;
  readonly maxLength = LARGE;
  readonly #iommufd: Iommufd;
  readonly #file: VfioDeviceFile;
  readonly #device: number;
  readonly #space: number;
  #table: number | null = null;

  /**
   * @param device id of the device in the iommufd
   * @param space id of its address space
   */
  constructor(iommufd: Iommufd, file: VfioDeviceFile, device: number, space: number) {
    this.#iommufd = iommufd;
    this.#file = file;
    this.#device = device;
    this.#space = space;
  }

  start(): number {
    this.#table = this.#iommufd.allocatePageTable(this.#device, this.#space);
    try {
      this.#file.attach(this.#table);
      this.#iommufd.log(this.#table, true);
    } catch (error) {
      this.stop();
      throw error;
    }
    return MIN_DIRTY_PAGE_SIZE;
  }

  /** The table lives no longer than the device, or the log. */
  stop(): void {
    if (this.#table === null) return;
    const table = this.#table;
    this.#table = null;
    if (!this.#file.closed) this.#file.attach(this.#space);
    this.#iommufd.destroy(table);
  }

  take(iova: bigint, length: number, pageSize: number, bitmap: Uint8Array): void {
    if (this.#table !== null) this.#iommufd.takeLog(this.#table, iova, length, pageSize, bitmap);
  }
}

/**
 * The container of a group logs what was written of its mappings, by all its devices. IOMMUs do not tell this interface, so
 * that all that is mapped counts as written, except of drivers that pin what they need
 * (`linux/vfio.h`, VFIO_IOMMU_DIRTY_PAGES).
 */
export class ContainerTracker implements DirtyTracker {
  readonly bySpans = false;
  /** The kernel refuses to tell of a part of a mapping. */
  readonly maxLength = Number.MAX_SAFE_INTEGER;
  readonly #container: VfioContainer;
  readonly #pageSize: number;
  #on = false;

  /** @param pageSize smallest page of the container, the only one that it logs by */
  constructor(container: VfioContainer, pageSize: number) {
    this.#container = container;
    this.#pageSize = pageSize;
  }

  start(): number {
    if (this.#on)
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        'the container has one log, which was started for another device in it: its report tells what all of them write',
      );
    this.#container.log(true);
    this.#on = true;
    return this.#pageSize;
  }

  stop(): void {
    this.#on = false;
    if (!this.#container.closed) this.#container.log(false);
  }

  take(iova: bigint, length: number, _pageSize: number, bitmap: Uint8Array): void {
    this.#container.takeLog(iova, length, this.#pageSize, bitmap);
  }
}
