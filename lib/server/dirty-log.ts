// SPDX-License-Identifier: MIT
import { isPowerOfTwo } from '../power-of-two';
import {
  DirtyPages,
  MIN_DIRTY_PAGE_SIZE,
  decodeDmaLoggingControl,
  decodeDmaLoggingQuery,
  dirtyBitmapSize,
  encodeDmaLoggingControl,
  encodeDmaLoggingReport,
  type U64,
} from '../protocol';
import { CommandError, Errno } from '../transport';

/**
 * Most memory of a log, in blocks of 4 KiB: 32 MiB tell of 1 TiB in pages of 4 KiB. A client may have ranges of 2^53 bytes, without
 * memory behind them, and have the device write here and there.
 */
const MAX_BLOCKS = 8192;

/** What a device has written of one client's memory (vfio-user, VFIO_DEVICE_FEATURE_DMA_LOGGING_*). */
export class ClientDirtyLog {
  readonly #maxBitmap: number;
  #pages: DirtyPages | null = null;

  /** @param maxBitmap largest bitmap that is made, in bytes */
  constructor(maxBitmap: number) {
    this.#maxBitmap = maxBitmap;
  }

  /** Marks what has been written; nothing happens while nobody logs. */
  mark(iova: U64, length: number): void {
    this.#pages?.mark(iova, length);
  }

  /** Forgets a range that is no longer mapped. */
  clear(iova: U64, length: number): void {
    this.#pages?.clear(iova, length);
  }

  /** Forgets everything, since nothing is mapped any more. */
  clearAll(): void {
    if (this.#pages !== null) this.#pages = new DirtyPages(this.#pages.pageSize, MAX_BLOCKS);
  }

  /**
   * Starts to log. The ranges are a hint only, and all is logged.
   *
   * @returns the data with the page size that was chosen
   */
  start(data: Uint8Array): Uint8Array {
    const { pageSize, ranges } = decodeDmaLoggingControl(data);
    const chosen = isPowerOfTwo(pageSize) ? Math.max(pageSize, MIN_DIRTY_PAGE_SIZE) : MIN_DIRTY_PAGE_SIZE;
    if (this.#pages === null) this.#pages = new DirtyPages(chosen, MAX_BLOCKS);
    else if (this.#pages.pageSize !== chosen) {
      throw new CommandError(
        Errno.EINVAL,
        `pages of ${this.#pages.pageSize} bytes are logged, ${chosen} were asked for`,
      );
    }
    return encodeDmaLoggingControl({ pageSize: chosen, ranges });
  }

  stop(): void {
    this.#pages = null;
  }

  /**
   * Serves DMA_LOGGING_REPORT: what it tells is clean afterwards.
   *
   * @param room bytes of data that the client takes
   */
  report(data: Uint8Array, room: number): Uint8Array {
    const query = decodeDmaLoggingQuery(data);
    const size = this.#bitmapSize(query.length, query.pageSize);
    if (24 + size > room)
      throw new CommandError(Errno.EINVAL, `a dirty bitmap of ${size} bytes, ${room} are taken`);
    return encodeDmaLoggingReport(query, this.#take(query.iova, Number(query.length), query.pageSize));
  }

  /**
   * Checks a bitmap that DMA_UNMAP asks for, before anything is unmapped (libvfio-user, `struct vfio_user_bitmap`).
   *
   * @throws CommandError ENOTSUP while nobody logs, EINVAL for a bitmap of a wrong size
   */
  checkUnmapBitmap(length: U64, bitmap: { readonly pageSize: number; readonly size: number }): void {
    if (this.#pages === null) throw new CommandError(Errno.ENOTSUP, 'dirty pages are not logged');
    if (!isPowerOfTwo(bitmap.pageSize) || this.#bitmapSize(length, bitmap.pageSize) !== bitmap.size)
      throw new CommandError(Errno.EINVAL, `a dirty bitmap of ${bitmap.size} bytes does not fit the range`);
  }

  /** The bitmap of a range that {@link checkUnmapBitmap} has checked. */
  unmapBitmap(address: U64, length: U64, pageSize: number): Uint8Array {
    return this.#take(address, Number(length), pageSize);
  }

  #take(iova: U64, length: number, pageSize: number): Uint8Array {
    if (this.#pages === null) throw new CommandError(Errno.EINVAL, 'dirty pages are not logged');
    return this.#pages.take(iova, length, pageSize).bytes;
  }

  #bitmapSize(length: U64, pageSize: number): number {
    const size = dirtyBitmapSize(length, pageSize);
    if (typeof length !== 'number' || length < 1 || size > this.#maxBitmap)
      throw new CommandError(Errno.EINVAL, `${length} bytes, which one dirty bitmap cannot describe`);
    return size;
  }
}
