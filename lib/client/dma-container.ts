// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../errors';
import { pageSize } from '../native';
import type { DeviceDma, DmaMemory } from '../pci/device';
import type { DirtyBitmap } from '../protocol';
import { DmaBatch, DmaBatchError, planBatch, type DmaBatchOutcome, type DmaOperation } from './dma-batch';
import { runBatch } from './dma-batch-run';
import { placeOf, readMemory, writeMemory } from './dma-lookup';
import { BorrowedFiles, HUGE_PAGE, createMemory, type HugePages, type RangeMemory } from './dma-memory';
import {
  MappedRange,
  checkPages,
  type DmaMapOptions,
  type DmaMapping,
  type DmaPlace,
  type DmaRange,
  type DmaTarget,
} from './dma-range';
import { DmaTable } from './dma-table';

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
  readonly hugePages?: HugePages;
}

/** Allocations begin above 4 GiB, clear of addresses that callers like to choose themselves. */
const ALLOCATION_BASE = 1n << 32n;
/** NVMe and many other devices have at most 48 address bits. */
const ALLOCATION_LIMIT = 1n << 47n;

/**
 * The memory that devices may access, by I/O virtual address: what QEMU's vfio-user series calls the container.
 * It allocates and maps, tells its devices, and serves their DMA_READ and DMA_WRITE messages from what is mapped.
 */
export class DmaContainer implements DeviceDma {
  readonly #table = new DmaTable();
  readonly #writeWatchers = new Set<(iova: bigint, length: number) => void>();
  readonly #directDma: boolean;
  readonly #hugePages: HugePages;
  /** Resolves when the operation that needs the table for itself is done. */
  #exclusive: Promise<void> | null = null;
  #closed = false;

  constructor(options: DmaContainerOptions = {}) {
    this.#directDma = options.directDma ?? true;
    this.#hugePages = options.hugePages ?? 'auto';
  }

  /** What is mapped now. */
  get ranges(): readonly DmaRange[] {
    return [...this.#table.ranges];
  }

  /** What is mapped, in one line. */
  dump(): string {
    return this.#table.ranges.dump();
  }

  async allocate(size: number): Promise<DmaMemory> {
    if (!Number.isSafeInteger(size) || size < 1)
      throw outOfRange(`size is ${String(size)}; at least 1 byte is needed`);
    while (this.#exclusive !== null) await this.#exclusive;
    const huge = this.#hugePages !== 'never' && size >= HUGE_PAGE;
    const unit = Math.max(huge ? HUGE_PAGE : pageSize, this.#table.pageSize);
    const rounded = Math.ceil(size / unit) * unit;
    // Aligned to huge pages whenever large, so that a server can map it so: SPDK ignores other memory for real DMA.
    const alignment = rounded >= HUGE_PAGE ? HUGE_PAGE : pageSize;
    const { ranges } = this.#table;
    const iova = ranges.findGap(rounded, Math.max(alignment, unit), ALLOCATION_BASE, ALLOCATION_LIMIT);
    if (iova === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `no ${String(rounded)} free bytes of I/O address space are left. Mapped: ${this.dump()}`,
      );
    }
    const memory = createMemory(rounded, alignment, huge ? this.#hugePages : 'never');
    const range = new MappedRange({ iova, size: rounded }, this.#directDma);
    range.back(memory, 0);
    await this.#enter(range);
    return this.#memoryOf(range, memory);
  }

  /**
   * Shows the caller's memory, or a bare range, to the devices.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when the range overlaps; TypeError when it is not made of pages that all
   *   devices take. Nothing has been sent then
   */
  async map(options: DmaMapOptions): Promise<DmaMapping> {
    while (this.#exclusive !== null) await this.#exclusive;
    checkPages(options, this.#pageSizeFor(options));
    this.#table.check({ iova: BigInt(options.iova), size: options.size });
    const { fd, offset = 0, size } = options;
    const range = new MappedRange(options, this.#directDma);
    if (fd !== undefined) range.back(new BorrowedFiles().take(fd, offset, size), offset);
    await this.#enter(range);
    return new TableMapping(this.#table, range);
  }

  /**
   * Takes a range from the devices. Address and size must be those of one mapping (vfio-user, VFIO_USER_DMA_UNMAP).
   * It stays when a device that is still there refuses or does not answer, as that may still use it; try again, or
   * close the device.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when there is no such mapping
   */
  async unmap(iova: number | bigint, size: number): Promise<void> {
    while (this.#exclusive !== null) await this.#exclusive;
    await this.#table.leave(this.#table.get(BigInt(iova), size));
  }

  /**
   * Takes a range from the devices, as {@link unmap}, and tells which of its pages they have written since that was last
   * reported: no write comes between the answer and the unmap. Every device must log dirty pages. It is an extension of
   * libvfio-user (flag GET_DIRTY_BITMAP and `struct vfio_user_bitmap` of its vfio-user.h), which other servers refuse.
   *
   * When it fails after something was sent, the range stays as with {@link unmap}, and what devices have told already is
   * told by `report` of their dirty logs. A reply that makes no sense is such a failure: whether the device still has
   * the range is not known, and another unmap tells. A device that has gone takes its log along: take all pages for dirty.
   *
   * @param pageSize bytes that one bit stands for, a power of two; default the smallest granularity of the devices' logs
   * @throws TypeError when a device does not log, or the page size makes no sense; VfioUserError ERR_VFIO_USER_DMA when
   *   there is no such mapping, or a device cannot send a bitmap of its size. Nothing has been sent then
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when a device refuses; ERR_VFIO_USER_PROTOCOL for a reply without the bitmap
   */
  async unmapAndReport(iova: number | bigint, size: number, pageSize?: number): Promise<DirtyBitmap> {
    while (this.#exclusive !== null) await this.#exclusive;
    return this.#table.leaveReporting(this.#table.get(BigInt(iova), size), pageSize);
  }

  /**
   * Takes everything from the devices: with one message where a server knows libvfio-user's flag for that, range by range
   * where it does not.
   *
   * @throws DmaBatchError when a device refused; what it may still use stays
   */
  async unmapAll(): Promise<void> {
    await this.#alone(async () => {
      this.#settle(await this.#table.leaveAll());
    });
  }

  /** Several maps and unmaps that are checked and sent together; see {@link DmaBatch}. */
  batch(): DmaBatch {
    return new DmaBatch((operations) => this.#alone(() => this.#commit(operations)));
  }

  /**
   * Where `length` bytes at an address are.
   *
   * @returns undefined when they are not mapped, or not within one range
   */
  lookup(iova: number | bigint, length = 1): DmaPlace | undefined {
    return placeOf(this.#table.ranges, BigInt(iova), length);
  }

  /**
   * Adds a device, and tells it what is mapped.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when the device does not take so many ranges or their pages; nothing was sent
   */
  async attach(target: DmaTarget): Promise<void> {
    await this.#alone(async () => {
      this.#assertOpen();
      await this.#table.attach(target);
    });
  }

  /** Forgets a device, without a message to it. */
  detach(target: DmaTarget): void {
    this.#table.detach(target);
  }

  /** Releases all memory without a message to any device, for when they are gone; nothing can be mapped afterwards. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#table.close();
  }

  /**
   * Bytes for a device's DMA_READ.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when a byte is not mapped, not readable, or its mapping was not allocated here
   */
  read(iova: bigint, length: number): Uint8Array {
    return readMemory(this.#table.ranges, iova, length);
  }

  /** Stores the bytes of a device's DMA_WRITE; errors as {@link read}. */
  write(iova: bigint, data: Uint8Array): void {
    writeMemory(this.#table.ranges, iova, data);
    for (const watcher of this.#writeWatchers) watcher(iova, data.length);
  }

  /** Calls `watcher` for every {@link write} that was done, until the function that it returns is called. */
  watchWrites(watcher: (iova: bigint, length: number) => void): () => void {
    this.#writeWatchers.add(watcher);
    return () => this.#writeWatchers.delete(watcher);
  }

  /** Whether devices can map a range, so that they can write it without a message. */
  isShared(range: DmaRange): boolean {
    return range.direct && range.fd !== null;
  }

  /** Runs an action while no other changes the table; those that are under way go on. */
  async #alone<T>(action: () => Promise<T>): Promise<T> {
    while (this.#exclusive !== null) await this.#exclusive;
    let end = (): void => undefined;
    this.#exclusive = new Promise((resolve) => {
      end = resolve;
    });
    try {
      return await action();
    } finally {
      this.#exclusive = null;
      end();
    }
  }

  #assertOpen(): void {
    if (!this.#closed) return;
    throw new VfioUserError(
      'ERR_VFIO_USER_CLOSED',
      'the DMA container is closed, and its device with it; connect again',
    );
  }

  /** Memory that is mapped here is made of our own pages too. */
  #pageSizeFor({ fd }: DmaMapOptions): number {
    return fd === undefined ? this.#table.pageSize : this.#memoryPageSize;
  }

  get #memoryPageSize(): number {
    return Math.max(pageSize, this.#table.pageSize);
  }

  async #enter(range: DmaRange): Promise<void> {
    try {
      this.#assertOpen();
    } catch (error) {
      this.#table.release(range);
      throw error;
    }
    await this.#table.enter(range);
  }

  async #commit(operations: readonly DmaOperation[]): Promise<DmaMapping[]> {
    this.#assertOpen();
    const limits = {
      ranges: this.#table.staying,
      maxDmaMaps: this.#table.maxDmaMaps,
      pageSize: this.#table.pageSize,
      memoryPageSize: this.#memoryPageSize,
    };
    const plan = planBatch(operations, limits, (options) => new MappedRange(options, this.#directDma));
    this.#settle(await runBatch(this.#table, operations, plan));
    return plan.mapped.map((range) => new TableMapping(this.#table, range));
  }

  /** @throws DmaBatchError when an operation failed */
  #settle(outcomes: readonly DmaBatchOutcome[]): void {
    if (outcomes.some(({ error }) => error !== null)) throw new DmaBatchError(outcomes, this.dump());
  }

  #memoryOf(range: DmaRange, memory: RangeMemory): DmaMemory {
    return {
      buffer: memory.buffer,
      iova: Number(range.iova),
      size: range.size,
      fd: memory.fd,
      fdOffset: range.fdOffset,
      close: async () => {
        if (!memory.closed) await this.#table.leave(range);
      },
    };
  }
}

/** A range of the table, for who mapped it. */
class TableMapping implements DmaMapping {
  readonly iova: bigint;
  readonly size: number;
  readonly #table: DmaTable;
  readonly #range: DmaRange;

  constructor(table: DmaTable, range: DmaRange) {
    this.iova = range.iova;
    this.size = range.size;
    this.#table = table;
    this.#range = range;
  }

  get buffer(): ArrayBuffer | null {
    return this.#range.memory?.buffer ?? null;
  }

  async close(): Promise<void> {
    const { iova, size } = this.#range;
    if (this.#table.ranges.get(iova, size) === this.#range) await this.#table.leave(this.#range);
  }
}
