// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../errors';
import { closeFd, pageSize } from '../native';
import type { DeviceDma, DmaMemory } from '../pci/device';
import { IovaMap, formatRange, type IovaRange } from '../pci/iova-map';
import {
  DmaBatch,
  DmaBatchError,
  planBatch,
  type DmaBatchOutcome,
  type DmaOperation,
  type PlannedOperation,
} from './dma-batch';
import { accessible } from './dma-lookup';
import { HUGE_PAGE, borrowMemory, createMemory, type HugePages, type OwnedMemory } from './dma-memory';
import {
  checkPages,
  mayStillHold,
  type DmaMapOptions,
  type DmaMapping,
  type DmaPlace,
  type DmaRange,
  type DmaTarget,
} from './dma-range';
import { pipelined } from './pipeline';

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

/** The protocol knows none below (vfio-user, VFIO_USER_VERSION, "pgsizes"). */
const SMALLEST_PAGE = 4096;
/** Allocations begin above 4 GiB, clear of addresses that callers like to choose themselves. */
const ALLOCATION_BASE = 1n << 32n;
/** NVMe and many other devices have at most 48 address bits. */
const ALLOCATION_LIMIT = 1n << 47n;

/**
 * The memory that devices may access, by I/O virtual address: what QEMU's vfio-user series calls the container.
 * It allocates and maps, tells its devices, and serves their DMA_READ and DMA_WRITE messages from what is mapped.
 */
export class DmaContainer implements DeviceDma {
  readonly #ranges = new IovaMap<DmaRange>();
  readonly #targets = new Set<DmaTarget>();
  /** Ranges that are being taken from the devices, and when they are. */
  readonly #leaving = new WeakMap<DmaRange, Promise<void>>();
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
    return [...this.#ranges];
  }

  /** What is mapped, in one line. */
  dump(): string {
    return this.#ranges.dump();
  }

  async allocate(size: number): Promise<DmaMemory> {
    if (!Number.isSafeInteger(size) || size < 1)
      throw outOfRange(`size is ${String(size)}; at least 1 byte is needed`);
    while (this.#exclusive !== null) await this.#exclusive;
    const huge = this.#hugePages !== 'never' && size >= HUGE_PAGE;
    const unit = Math.max(huge ? HUGE_PAGE : pageSize, this.#dmaPageSize());
    const rounded = Math.ceil(size / unit) * unit;
    // Aligned to huge pages whenever large, so that a server can map it so: SPDK ignores other memory for real DMA.
    const alignment = rounded >= HUGE_PAGE ? HUGE_PAGE : pageSize;
    const iova = this.#ranges.findGap(rounded, Math.max(alignment, unit), ALLOCATION_BASE, ALLOCATION_LIMIT);
    if (iova === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `no ${String(rounded)} free bytes of I/O address space are left. Mapped: ${this.dump()}`,
      );
    }
    const memory = createMemory(rounded, alignment, huge ? this.#hugePages : 'never');
    const range = this.#rangeOf({ iova, size: rounded }, memory);
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
    this.#check({ iova: BigInt(options.iova), size: options.size });
    const range = this.#rangeFor(options);
    await this.#enter(range);
    return this.#mappingOf(range);
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
    const range = this.#ranges.get(BigInt(iova), size);
    if (range === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${formatRange({ iova: BigInt(iova), size })} is not mapped; address and size must be those of one mapping. Mapped: ${this.dump()}`,
      );
    }
    await this.#leave(range);
  }

  /**
   * Takes everything from the devices: with one message where a server knows libvfio-user's flag for that, range by range
   * where it does not.
   *
   * @throws DmaBatchError when a device refused; what it may still use stays
   */
  async unmapAll(): Promise<void> {
    await this.#alone(async () => {
      const ranges = this.ranges;
      if (ranges.length === 0) return;
      const results = await Promise.all([...this.#targets].map((target) => this.#clear(target, ranges)));
      this.#settle(
        ranges.map((range, index) => {
          const errors = results.map((result) => result[index] ?? null).filter((failure) => failure !== null);
          if (!errors.some(({ error }) => mayStillHold(error))) this.#release(range);
          const { iova, size } = range;
          return { operation: 'unmap', iova, size, error: errors[0]?.error ?? null };
        }),
      );
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
    const [segment, other] = this.#ranges.lookup(BigInt(iova), length) ?? [];
    if (segment === undefined || other !== undefined) return undefined;
    const { range, offset } = segment;
    return { range, offset, buffer: range.mapping?.buffer ?? null };
  }

  /**
   * Adds a device, and tells it what is mapped.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when the device does not take so many ranges or their pages; nothing was sent
   */
  async attach(target: DmaTarget): Promise<void> {
    await this.#alone(async () => {
      this.#assertOpen();
      // What is being taken from the others is not shown any more.
      const ranges = this.ranges.filter((range) => !this.#leaving.has(range));
      this.#checkTarget(target, ranges);
      // Entered first, so that it is also told of what is mapped from now on.
      this.#targets.add(target);
      const results = await pipelined(ranges, (range) => target.mapDma(this.#shown(range)));
      const [failure] = results.filter((result) => result !== null);
      if (failure === undefined) return;
      this.#targets.delete(target);
      throw failure.error;
    });
  }

  /** Forgets a device, without a message to it. */
  detach(target: DmaTarget): void {
    this.#targets.delete(target);
  }

  /** Releases all memory without a message to any device, for when they are gone; nothing can be mapped afterwards. Idempotent. */
  close(): void {
    this.#closed = true;
    this.#targets.clear();
    for (const range of this.ranges) this.#release(range);
  }

  /**
   * Bytes for a device's DMA_READ.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when a byte is not mapped, not readable, or its mapping was not allocated here
   */
  read(iova: bigint, length: number): Uint8Array {
    const segments = accessible(this.#ranges, iova, length, 'read');
    const data = new Uint8Array(length);
    let at = 0;
    for (const { buffer, offset, length: part } of segments) {
      data.set(new Uint8Array(buffer, offset, part), at);
      at += part;
    }
    return data;
  }

  /** Stores the bytes of a device's DMA_WRITE; errors as {@link read}. */
  write(iova: bigint, data: Uint8Array): void {
    let at = 0;
    for (const { buffer, offset, length } of accessible(this.#ranges, iova, data.length, 'write')) {
      new Uint8Array(buffer, offset, length).set(data.subarray(at, at + length));
      at += length;
    }
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

  /** The largest of the pages that devices take as their smallest. */
  #dmaPageSize(): number {
    return Math.max(SMALLEST_PAGE, ...[...this.#targets].map(({ dmaPageSize }) => dmaPageSize));
  }

  /** Memory that is mapped here is made of our own pages too. */
  #pageSizeFor({ fd }: DmaMapOptions): number {
    return Math.max(fd === undefined ? 0 : pageSize, this.#dmaPageSize());
  }

  #rangeFor(options: DmaMapOptions): DmaRange {
    const { fd, offset = 0, size } = options;
    return this.#rangeOf(options, fd === undefined ? null : borrowMemory(fd, offset, size));
  }

  #rangeOf(options: DmaMapOptions, memory: OwnedMemory | null): DmaRange {
    return {
      iova: BigInt(options.iova),
      size: options.size,
      access: options.access ?? 'readwrite',
      fd: memory?.fd ?? null,
      fdOffset: memory === null ? 0 : (options.offset ?? 0),
      mapping: memory?.mapping ?? null,
      direct: options.direct ?? this.#directDma,
    };
  }

  #checkTarget(target: DmaTarget, ranges: readonly DmaRange[]): void {
    if (ranges.length > target.maxDmaMaps) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${target.name} takes at most ${String(target.maxDmaMaps)} DMA mappings, and ${String(ranges.length)} are in use`,
      );
    }
    const unit = BigInt(target.dmaPageSize);
    for (const range of ranges) {
      if (
        range.iova % unit === 0n &&
        BigInt(range.size) % unit === 0n &&
        BigInt(range.fdOffset) % unit === 0n
      )
        continue;
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${target.name} takes DMA mappings of pages of ${String(unit)} bytes, of which ${formatRange(range)} is not made`,
      );
    }
  }

  #check(range: IovaRange): void {
    const probe = new IovaMap<IovaRange>();
    probe.add(range);
    const other = this.#ranges.overlap(range.iova, range.size);
    if (other !== undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${formatRange(range)} overlaps ${formatRange(other)}. Mapped: ${this.dump()}`,
      );
    }
    for (const target of this.#targets) {
      if (this.#ranges.size >= target.maxDmaMaps) {
        throw new VfioUserError(
          'ERR_VFIO_USER_DMA',
          `${target.name} takes at most ${String(target.maxDmaMaps)} DMA mappings, and so many are in use`,
        );
      }
    }
  }

  /** Enters the range, then tells every device; when one refuses, the others forget it again. */
  async #enter(range: DmaRange): Promise<void> {
    try {
      this.#assertOpen();
      this.#check(range);
      this.#ranges.add(range);
      await this.#show(range);
    } catch (error) {
      this.#release(range);
      throw error;
    }
  }

  async #show(range: DmaRange): Promise<void> {
    const failures = await this.#tell((target) => target.mapDma(this.#shown(range)));
    const [first] = failures;
    if (first === undefined) return;
    // Also those that were attached meanwhile, and found the range in the table.
    const told = [...this.#targets].filter(
      (target) => !failures.some((failure) => failure.target === target),
    );
    await Promise.allSettled(told.map((target) => target.unmapDma(this.#shown(range))));
    throw first.error;
  }

  /** Tells every device of now at once; returns those that failed. */
  async #tell(tell: (target: DmaTarget) => Promise<void>): Promise<{ target: DmaTarget; error: unknown }[]> {
    const targets = [...this.#targets];
    const results = await Promise.allSettled(targets.map(tell));
    return targets.flatMap((target, index) => {
      const result = results[index];
      return result?.status === 'rejected' ? [{ target, error: result.reason as unknown }] : [];
    });
  }

  /** The range leaves the table only when every device has let go of it (vfio-user, VFIO_USER_DMA_UNMAP, "Reply"). */
  #leave(range: DmaRange): Promise<void> {
    const leaving = this.#leaving.get(range) ?? this.#takeBack(range);
    this.#leaving.set(range, leaving);
    return leaving;
  }

  async #takeBack(range: DmaRange): Promise<void> {
    const failures = await this.#tell((target) => target.unmapDma(this.#shown(range)));
    if (failures.some(({ error }) => mayStillHold(error))) this.#leaving.delete(range);
    else this.#release(range);
    if (failures[0] !== undefined) throw failures[0].error;
  }

  /** Everything from one device; by range, why it failed. */
  async #clear(target: DmaTarget, ranges: readonly DmaRange[]): Promise<({ error: unknown } | null)[]> {
    try {
      await target.unmapAllDma();
      return [];
    } catch (error) {
      // Servers that do not know the flag refuse it with any of several errors; those that are gone are no better asked again.
      if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_REMOTE')
        return ranges.map(() => ({ error }));
    }
    return pipelined(ranges, (range) => target.unmapDma(this.#shown(range)));
  }

  async #commit(operations: readonly DmaOperation[]): Promise<DmaMapping[]> {
    this.#assertOpen();
    const plan = planBatch(operations, {
      ranges: this.ranges.filter((range) => !this.#leaving.has(range)),
      maxDmaMaps: Math.min(...[...this.#targets].map(({ maxDmaMaps }) => maxDmaMaps)),
      pageSize: (options) => this.#pageSizeFor(options),
    });
    const ranges = this.#prepare(plan);
    // A range that takes the place of others enters the table when those have left it.
    let unmapped: Promise<unknown> = Promise.resolve();
    const results = await pipelined([...plan.entries()], ([index, { kind }]) => {
      const range = ranges[index] as DmaRange;
      if (kind === 'map') return this.#enterInBatch(range, unmapped);
      const left = this.#leave(range);
      unmapped = Promise.allSettled([unmapped, left]);
      return left;
    });
    this.#settle(
      plan.map(({ kind }, index) => {
        const { iova, size } = ranges[index] as DmaRange;
        return { operation: kind, iova, size, error: results[index]?.error ?? null };
      }),
    );
    return plan.flatMap(({ kind }, index) =>
      kind === 'map' ? [this.#mappingOf(ranges[index] as DmaRange)] : [],
    );
  }

  /** The ranges of a plan, with their memory. When one cannot be had, there is none. */
  #prepare(plan: readonly PlannedOperation[]): DmaRange[] {
    const ranges: DmaRange[] = [];
    try {
      for (const operation of plan) {
        if (operation.kind === 'map') ranges.push(this.#rangeFor(operation.options));
        else if (typeof operation.target !== 'number') ranges.push(operation.target);
        else ranges.push(ranges[operation.target] as DmaRange);
      }
      return ranges;
    } catch (error) {
      ranges.forEach((range, index) => {
        if (plan[index]?.kind === 'map') this.#release(range);
      });
      throw error;
    }
  }

  async #enterInBatch(range: DmaRange, unmapped: Promise<unknown>): Promise<void> {
    try {
      const free = this.#ranges.overlap(range.iova, range.size) === undefined;
      if (free) this.#ranges.add(range);
      await this.#show(range);
      if (free) return;
      await unmapped;
      if (!this.#leaving.has(range)) this.#ranges.add(range);
    } catch (error) {
      this.#release(range);
      throw error;
    }
  }

  /** @throws DmaBatchError when an operation failed */
  #settle(outcomes: readonly DmaBatchOutcome[]): void {
    if (outcomes.some(({ error }) => error !== null)) throw new DmaBatchError(outcomes, this.dump());
  }

  #shown(range: DmaRange): DmaRange {
    return range.direct ? range : { ...range, fd: null, fdOffset: 0 };
  }

  /** The container owns the descriptor of a range as long as its mapping is open. */
  #release(range: DmaRange): void {
    this.#ranges.delete(range);
    if (range.mapping === null || range.mapping.closed) return;
    range.mapping.close();
    if (range.fd !== null) closeFd(range.fd);
  }

  #mappingOf(range: DmaRange): DmaMapping {
    return {
      iova: range.iova,
      size: range.size,
      buffer: range.mapping?.buffer ?? null,
      close: async () => {
        if (this.#ranges.get(range.iova, range.size) === range) await this.#leave(range);
      },
    };
  }

  #memoryOf(range: DmaRange, { mapping, fd }: OwnedMemory): DmaMemory {
    return {
      buffer: mapping.buffer,
      iova: Number(range.iova),
      size: range.size,
      fd,
      fdOffset: range.fdOffset,
      close: async () => {
        if (!mapping.closed) await this.#leave(range);
      },
    };
  }
}
