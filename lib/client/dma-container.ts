// SPDX-License-Identifier: MIT
import { VfioUserError, invalidArgument, outOfRange } from '../errors';
import { Mapping, closeFd, createSharedMemory, duplicateFd, pageSize } from '../native';
import type { DeviceDma, DmaMemory } from '../pci/device';
import { IovaMap, formatRange, type IovaRange } from '../pci/iova-map';

/** What the device may do with a mapped range. */
export type DmaAccess = 'read' | 'write' | 'readwrite';

/** A device that is told what the container maps. Implemented by the client's device. */
export interface DmaTarget {
  readonly name: string;
  /** Most ranges that may be mapped at once. */
  readonly maxDmaMaps: number;
  mapDma(range: DmaRange): Promise<void>;
  unmapDma(range: DmaRange): Promise<void>;
}

/** One mapped range, as the devices are told of it. */
export interface DmaRange extends IovaRange {
  readonly access: DmaAccess;
  /** Descriptor that the device may map, null when it has to send messages. Owned by the container. */
  readonly fd: number | null;
  readonly fdOffset: number;
  /** Our own view of the memory, from which DMA_READ and DMA_WRITE messages are served; null when there is none. */
  readonly mapping: Mapping | null;
}

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

/** A range to map, for {@link DmaContainer.map}. */
export interface DmaMapOptions {
  /** Address at which the device sees the first byte: 0 to 2^64 - 1, a multiple of the page size. */
  readonly iova: number | bigint;
  /** Bytes, a multiple of the page size. */
  readonly size: number;
  /** File with the memory; it is duplicated, and stays the caller's. Without it, the device can only send messages. */
  readonly fd?: number;
  /** Offset of the first byte in `fd`, a multiple of the page size. Default 0. */
  readonly offset?: number;
  /** Default `readwrite`. */
  readonly access?: DmaAccess;
}

/** A range that {@link DmaContainer.map} has mapped. */
export interface DmaMapping extends IovaRange {
  /** Our view of the memory, null for a range without descriptor. Detached after {@link close}. */
  readonly buffer: ArrayBuffer | null;
  /** Takes the range from the devices. Idempotent. */
  close(): Promise<void>;
}

const HUGE_PAGE = 0x20_0000;
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
  readonly #directDma: boolean;
  readonly #hugePages: 'auto' | 'always' | 'never';
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
    const huge = this.#hugePages !== 'never' && size >= HUGE_PAGE;
    const unit = huge ? HUGE_PAGE : pageSize;
    const rounded = Math.ceil(size / unit) * unit;
    // Aligned to huge pages whenever large, so that a server can map it so: SPDK ignores other memory for real DMA.
    const alignment = rounded >= HUGE_PAGE ? HUGE_PAGE : pageSize;
    const iova = this.#ranges.findGap(rounded, alignment, ALLOCATION_BASE, ALLOCATION_LIMIT);
    if (iova === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `no ${String(rounded)} free bytes of I/O address space are left. Mapped: ${this.dump()}`,
      );
    }
    const { fd, mapping } = this.#createMemory(rounded, huge, alignment);
    const range: DmaRange = { iova, size: rounded, access: 'readwrite', fd, fdOffset: 0, mapping };
    await this.#enter(range);
    return this.#memoryOf(range, mapping, fd);
  }

  /**
   * Shows the caller's memory, or a bare range, to the devices.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when the range overlaps or is unaligned, before anything is sent
   */
  async map(options: DmaMapOptions): Promise<DmaMapping> {
    const iova = BigInt(options.iova);
    const fdOffset = options.offset ?? 0;
    const access = options.access ?? 'readwrite';
    for (const [name, value] of [
      ['iova', iova],
      ['size', options.size],
      ['offset', fdOffset],
    ] as const) {
      if (BigInt(value) % BigInt(pageSize) !== 0n) {
        throw invalidArgument(
          `${name} ${String(value)} is not a multiple of the page size, ${String(pageSize)} bytes`,
        );
      }
    }
    this.#check({ iova, size: options.size });
    if (options.fd === undefined) {
      const bare: DmaRange = { iova, size: options.size, access, fd: null, fdOffset: 0, mapping: null };
      await this.#enter(bare);
      return this.#mappingOf(bare);
    }
    const fd = duplicateFd(options.fd);
    let mapping;
    try {
      mapping = Mapping.map(fd, fdOffset, options.size);
    } catch (error) {
      closeFd(fd);
      throw error;
    }
    const range: DmaRange = { iova, size: options.size, access, fd, fdOffset, mapping };
    await this.#enter(range);
    return this.#mappingOf(range);
  }

  /**
   * Takes a range from the devices. Address and size must be those of one mapping (vfio-user, VFIO_USER_DMA_UNMAP).
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when there is no such mapping
   */
  async unmap(iova: number | bigint, size: number): Promise<void> {
    const range = this.#ranges.get(BigInt(iova), size);
    if (range === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${formatRange({ iova: BigInt(iova), size })} is not mapped; address and size must be those of one mapping. Mapped: ${this.dump()}`,
      );
    }
    await this.#leave(range);
  }

  /** Takes everything from the devices. */
  async unmapAll(): Promise<void> {
    for (const range of this.ranges) await this.#leave(range);
  }

  /** Adds a device, and tells it what is mapped. */
  async attach(target: DmaTarget): Promise<void> {
    // Entered first, so that it is also told of what is mapped from now on.
    this.#targets.add(target);
    try {
      for (const range of this.ranges) await target.mapDma(this.#shown(range));
    } catch (error) {
      this.#targets.delete(target);
      throw error;
    }
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
    const segments = this.#accessible(iova, length, 'read');
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
    for (const { buffer, offset, length } of this.#accessible(iova, data.length, 'write')) {
      new Uint8Array(buffer, offset, length).set(data.subarray(at, at + length));
      at += length;
    }
  }

  #accessible(
    iova: bigint,
    length: number,
    access: 'read' | 'write',
  ): { buffer: ArrayBuffer; offset: number; length: number }[] {
    const segments = this.#ranges.lookup(iova, length);
    const wanted = formatRange({ iova, size: length });
    if (segments === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `the device asked to ${access} ${wanted}, which is not mapped. Mapped: ${this.dump()}`,
      );
    }
    return segments.map(({ range, offset, length: part }) => {
      if (range.access !== 'readwrite' && range.access !== access) {
        throw new VfioUserError(
          'ERR_VFIO_USER_DMA',
          `the device asked to ${access} ${wanted}, which is mapped for ${range.access} only`,
        );
      }
      if (range.mapping === null) {
        throw new VfioUserError(
          'ERR_VFIO_USER_DMA',
          `the device asked to ${access} ${wanted}, which was mapped without memory of this process`,
        );
      }
      return { buffer: range.mapping.buffer, offset, length: part };
    });
  }

  #createMemory(size: number, huge: boolean, alignment: number): { fd: number; mapping: Mapping } {
    if (huge) {
      try {
        return this.#mapNew(createSharedMemory(size, { hugePageSize: HUGE_PAGE }), size, alignment);
      } catch (error) {
        // mmap reserves the huge pages, so a lack of them shows here and not as a fault later.
        if (this.#hugePages === 'always') throw error;
      }
    }
    return this.#mapNew(createSharedMemory(size), size, alignment);
  }

  #mapNew(fd: number, size: number, alignment: number): { fd: number; mapping: Mapping } {
    try {
      return { fd, mapping: Mapping.map(fd, 0, size, { alignment }) };
    } catch (error) {
      closeFd(fd);
      throw error;
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
    const told: DmaTarget[] = [];
    try {
      if (this.#closed) {
        throw new VfioUserError(
          'ERR_VFIO_USER_CLOSED',
          'the DMA container is closed, and its device with it; connect again',
        );
      }
      this.#check(range);
      this.#ranges.add(range);
      // Those of now: a device that is attached meanwhile finds the range in the table.
      for (const target of [...this.#targets]) {
        await target.mapDma(this.#shown(range));
        told.push(target);
      }
    } catch (error) {
      await Promise.allSettled(told.map((target) => target.unmapDma(this.#shown(range))));
      this.#release(range);
      throw error;
    }
  }

  /** The range leaves the table only when every device has let go of it (vfio-user, VFIO_USER_DMA_UNMAP, "Reply"). */
  #leave(range: DmaRange): Promise<void> {
    const leaving = this.#leaving.get(range) ?? this.#takeBack(range);
    this.#leaving.set(range, leaving);
    return leaving;
  }

  async #takeBack(range: DmaRange): Promise<void> {
    const results = await Promise.allSettled(
      [...this.#targets].map((target) => target.unmapDma(this.#shown(range))),
    );
    this.#release(range);
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  #shown(range: DmaRange): DmaRange {
    return this.#directDma ? range : { ...range, fd: null, fdOffset: 0 };
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

  #memoryOf(range: DmaRange, mapping: Mapping, fd: number): DmaMemory {
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
