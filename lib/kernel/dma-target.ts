// SPDX-License-Identifier: MIT
import { ALL_ADDRESSES, type IovaSpan } from '../dma/iova-spans';
import { formatRange } from '../dma/table';
import type { DmaChange, DmaTarget, DmaTargetLog, TargetRange } from '../dma/target';
import { VfioUserError, asError, type VfioUserErrorDetails } from '../errors';
import { DmaAccessBit } from '../native';
import type { IommuSpace } from './iommu-space';
import { MORE_MEMORY, lockableBytes } from './memory-limit';

const ENOMEM = 12;

/** A space of the kernel's IOMMU as a target of a DMA container: all devices in it have the same mappings. */
export class KernelDmaTarget implements DmaTarget {
  readonly dirtyLog: DmaTargetLog;
  readonly #space: IommuSpace;
  readonly #proc: string;
  #name: string;
  /** Bytes that are mapped. */
  #mapped = 0;
  /** What the process was allowed to lock when that was looked at last. */
  #lockable = 0;

  /**
   * @param name of the first device
   * @param proc mount point of procfs
   */
  constructor(name: string, space: IommuSpace, proc: string) {
    this.#name = name;
    this.#space = space;
    this.#proc = proc;
    this.dirtyLog = new NoLog(this);
  }

  /** The devices in the space. */
  get name(): string {
    return this.#name;
  }

  /** Another device has come into the space. */
  join(name: string): void {
    this.#name += `, ${name}`;
  }

  get maxDmaMaps(): number {
    return this.#space.maxMaps;
  }

  get dmaPageSize(): number {
    return this.#space.pageSize;
  }

  /** All where the kernel does not tell: it refuses what it must. */
  get iovaSpans(): readonly IovaSpan[] {
    return this.#space.spans ?? ALL_ADDRESSES;
  }

  change(changes: readonly DmaChange[]): Promise<readonly (Error | null)[]> {
    return Promise.resolve(
      changes.map(({ kind, range }) => (kind === 'map' ? this.#map(range) : this.#unmap(range))),
    );
  }

  /** One by one, as the kernel does it too. */
  unmapAll(ranges: readonly TargetRange[]): Promise<readonly (Error | null)[]> {
    return Promise.resolve(ranges.map((range) => this.#unmap(range)));
  }

  #map(range: TargetRange): Error | null {
    try {
      const memory = range.memory();
      if (memory === null || range.fd === null)
        throw new VfioUserError(
          'ERR_VFIO_USER_DMA',
          `${formatRange(range)} is to be reached by messages, which a device of the kernel's VFIO does not send; map it with a descriptor, and direct`,
        );
      this.#assertLockable(range);
      this.#space.map(memory, range.iova, DmaAccessBit[range.access]);
      this.#mapped += range.size;
      return null;
    } catch (error) {
      return error instanceof VfioUserError ? this.#explained(error, range) : asError(error);
    }
  }

  #unmap(range: TargetRange): Error | null {
    try {
      this.#space.unmap(range.iova, range.size);
      this.#mapped -= range.size;
      return null;
    } catch (error) {
      return asError(error);
    }
  }

  /** The limit is looked at when what was seen of it does not suffice: it may have been raised meanwhile. */
  #assertLockable(range: TargetRange): void {
    const needed = this.#mapped + range.size;
    if (needed <= this.#lockable) return;
    this.#lockable = lockableBytes(this.#proc);
    if (needed > this.#lockable) throw this.#tooMuch(range);
  }

  #tooMuch(range: TargetRange, details: VfioUserErrorDetails = { errno: ENOMEM }): VfioUserError {
    return new VfioUserError(
      'ERR_VFIO_USER_SYSTEM',
      `${formatRange(range)} cannot be mapped for ${this.name}: its pages are locked, and this process may lock ${this.#lockable} bytes ` +
        `(RLIMIT_MEMLOCK), of which ${this.#mapped + range.size} are needed here. ${MORE_MEMORY}`,
      details,
    );
  }

  #explained(error: VfioUserError, range: TargetRange): VfioUserError {
    const { errno, syscall } = error;
    const details = { errno, syscall, cause: error };
    // An iommufd counts what all processes of the user lock, and a container what the process locks besides.
    if (errno === ENOMEM) this.#lockable = lockableBytes(this.#proc);
    if (errno === ENOMEM && this.#lockable !== Infinity) return this.#tooMuch(range, details);
    if (error.errnoName === 'ENOSPC')
      return new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${formatRange(range)} cannot be mapped for ${this.name}: the kernel takes no more mappings in a container ` +
          '(dma_entry_limit of the module vfio_iommu_type1); make fewer and larger ones',
        details,
      );
    return error;
  }
}

/** What devices of the kernel's VFIO write is not logged here. */
class NoLog implements DmaTargetLog {
  readonly #target: DmaTarget;

  constructor(target: DmaTarget) {
    this.#target = target;
  }

  mark(): void {
    // There is no log that the write of another device could enter.
  }

  checkUnmap(): never {
    throw new VfioUserError(
      'ERR_VFIO_USER_UNSUPPORTED',
      `${this.#target.name} does not log the pages that it writes; unmap without a report, and take all pages for dirty`,
    );
  }

  unmap(): Promise<void> {
    return this.checkUnmap();
  }

  take(): never {
    return this.checkUnmap();
  }
}
