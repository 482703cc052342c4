// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { pageSize } from '../native';
import { BorrowedFiles, MappedRange, checkPages, type DmaMapOptions, type DmaMapping } from './memory';
import { IovaTable, formatRange } from './table';
import { mappingsWithin, type DmaDevices } from './devices';
import { RangeChange } from './range-change';

/** What became of a map of a batch, or of one of the mappings that it unmaps. */
export interface DmaBatchOutcome {
  /** What was to be done. */
  readonly operation: 'map' | 'unmap';
  /** First address of the range. */
  readonly iova: bigint;
  /** Bytes of the range. */
  readonly size: number;
  /** Why it failed; null when every device did it. */
  readonly error: Error | null;
}

/** A batch was not done as a whole (code `ERR_VFIO_USER_DMA`). The container's `ranges` are what is mapped now. */
export class DmaBatchError extends VfioUserError {
  /** In the order of the operations; an unmap has one for each mapping. */
  readonly outcomes: readonly DmaBatchOutcome[];

  /** @internal */
  constructor(outcomes: readonly DmaBatchOutcome[], mapped: string) {
    const failed = outcomes.filter(({ error }) => error !== null);
    const [first] = failed;
    const reason = first?.error instanceof VfioUserError ? first.error.message : String(first?.error);
    const what = first === undefined ? 'nothing' : `${first.operation} ${formatRange(first)} (${reason})`;
    super(
      'ERR_VFIO_USER_DMA',
      `${failed.length} of ${outcomes.length} operations of a DMA batch failed, the first is ${what}. ` +
        `The others were done; error.outcomes tells of each. Mapped: ${mapped}`,
      { cause: first?.error },
    );
    this.outcomes = outcomes;
  }

  /** True for errors of this class from any copy of the package. That of the base class is true for all errors of the package. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return VfioUserError[Symbol.hasInstance](value) && 'outcomes' in (value as object);
  }
}

/** One operation of a {@link DmaBatch}. */
type Operation =
  | { readonly kind: 'map'; readonly options: DmaMapOptions }
  | { readonly kind: 'unmap'; readonly iova: bigint; readonly size: bigint };

/**
 * Maps and unmaps that are done together, as between QEMU's memory listener `begin` and `commit`: nothing is sent before
 * {@link commit}, which sends all messages one behind the other and waits once.
 *
 * @example
 * const batch = dma.batch();
 * batch.unmap(0x10_0000, 0x1000);
 * batch.map({ iova: 0x10_0000, size: 0x2000, fd });
 * await batch.commit();
 */
export class DmaBatch {
  readonly #devices: DmaDevices;
  readonly #directDma: boolean;
  #operations: Operation[] = [];

  /** Use the container's `batch()`. @internal */
  constructor(devices: DmaDevices, directDma: boolean) {
    this.#devices = devices;
    this.#directDma = directDma;
  }

  /** Operations that {@link commit} would do. */
  get length(): number {
    return this.#operations.length;
  }

  /** Adds a map; as the container's `map`. The descriptor must be open until {@link commit} has returned. */
  map(options: DmaMapOptions): this {
    this.#operations.push({ kind: 'map', options: { ...options } });
    return this;
  }

  /** Adds an unmap of all mappings that lie within a range, as the container's `unmap`. They may be of this batch. */
  unmap(iova: number | bigint, size: number | bigint): this {
    this.#operations.push({ kind: 'unmap', iova: BigInt(iova), size: BigInt(size) });
    return this;
  }

  /**
   * Checks all operations, then does them in the order in which they were added. The batch is empty afterwards.
   *
   * @returns the mappings, in the order of the maps
   * @throws VfioUserError ERR_VFIO_USER_DMA, TypeError: an operation makes no sense after those before it; nothing was sent
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM, RangeError: the memory of a map cannot be had; nothing was sent
   * @throws DmaBatchError when a device refused one: the others were done. A map that one device refused is taken back
   *   from the others; a range whose unmap was refused stays in the container, as the device may still use it
   */
  async commit(): Promise<DmaMapping[]> {
    const operations = this.#operations;
    this.#operations = [];
    return this.#devices.alone(() => this.#do(operations));
  }

  async #do(operations: readonly Operation[]): Promise<MappedRange[]> {
    const devices = this.#devices;
    devices.assertOpen();
    const { changes, runs } = new BatchPlan(operations, devices, this.#directDma);
    takeMemory(operations, changes);
    for (const { kind, range } of runs[0] ?? []) if (kind === 'map') devices.ranges.add(range);
    await devices.change(runs);
    assertDone(changes, devices);
    return changes.filter(({ kind }) => kind === 'map').map(({ range }) => range);
  }
}

/** @throws DmaBatchError when a change failed */
export function assertDone(changes: readonly RangeChange[], devices: DmaDevices): void {
  if (changes.every(({ error }) => error === null)) return;
  const outcomes = changes.map(({ kind, range: { iova, size }, error }) => ({
    operation: kind,
    iova,
    size,
    error,
  }));
  throw new DmaBatchError(outcomes, devices.ranges.dump());
}

/** Checks the operations of a batch, each as if those before it were done, and makes the changes that they ask for. */
class BatchPlan {
  /** In the order of the operations; the ranges of maps are without memory still. */
  readonly changes: RangeChange[] = [];
  /** The changes in runs, see {@link DmaDevices.change}: a map that takes the place of what a run unmaps begins a new run. */
  readonly runs: RangeChange[][] = [[]];
  readonly #devices: DmaDevices;
  readonly #directDma: boolean;
  readonly #limits: { readonly maxDmaMaps: number; readonly pageSize: number };
  readonly #table: IovaTable<MappedRange>;
  /** What the last run unmaps. */
  #left = new IovaTable<MappedRange>();

  /** @throws VfioUserError ERR_VFIO_USER_DMA; TypeError ERR_INVALID_ARG_VALUE */
  constructor(operations: readonly Operation[], devices: DmaDevices, directDma: boolean) {
    this.#devices = devices;
    this.#directDma = directDma;
    this.#limits = { maxDmaMaps: devices.maxDmaMaps, pageSize: devices.pageSize };
    this.#table = devices.ranges.copy();
    for (const [index, operation] of operations.entries()) {
      const which = `operation ${index + 1} of ${operations.length}: `;
      if (operation.kind === 'map') this.#map(operation.options, which);
      else this.#unmap(operation.iova, operation.size, which);
    }
  }

  #map(options: DmaMapOptions, which: string): void {
    const { maxDmaMaps, pageSize: unit } = this.#limits;
    checkPages(options, options.fd === undefined ? unit : Math.max(pageSize, unit));
    if (this.#table.size >= maxDmaMaps) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${which}${this.#table.size} ranges would be mapped, no more are taken`,
      );
    }
    const range = new MappedRange(options, this.#directDma, this.#devices);
    this.#devices.checkSpans(range);
    this.#table.add(range);
    if (this.#left.overlap(range.iova, range.size) !== undefined) {
      this.runs.push([]);
      this.#left = new IovaTable();
    }
    this.#add(new RangeChange('map', range));
  }

  #unmap(iova: bigint, size: bigint, which: string): void {
    for (const range of mappingsWithin(this.#table, iova, size, which)) {
      this.#table.delete(range);
      this.#left.add(range);
      this.#add(new RangeChange('unmap', range));
    }
  }

  #add(change: RangeChange): void {
    this.changes.push(change);
    this.runs.at(-1)?.push(change);
  }
}

/** Takes the memory of all maps. When that of one cannot be had, none is kept. */
function takeMemory(operations: readonly Operation[], changes: readonly RangeChange[]): void {
  const files = new BorrowedFiles();
  const ranges = changes.filter(({ kind }) => kind === 'map').map(({ range }) => range);
  const maps = operations.filter((operation) => operation.kind === 'map');
  try {
    for (const [index, range] of ranges.entries()) {
      const { fd, offset = 0 } = maps[index]?.options ?? {};
      if (fd !== undefined) files.back(range, fd, offset);
    }
  } catch (error) {
    for (const range of ranges) range.release();
    throw error;
  }
}
