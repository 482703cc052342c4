// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { IovaMap, formatRange, type IovaRange } from '../pci/iova-map';
import {
  checkPages,
  type DmaMapOptions,
  type DmaMapping,
  type DmaRange,
  type MappedRange,
} from './dma-range';

/** One operation of a {@link DmaBatch}. */
export type DmaOperation =
  | { readonly kind: 'map'; readonly options: DmaMapOptions }
  | { readonly kind: 'unmap'; readonly iova: bigint; readonly size: number };

/** What became of one operation of a batch. */
export interface DmaBatchOutcome extends IovaRange {
  readonly operation: 'map' | 'unmap';
  /** Why it failed; null when every device did it. */
  readonly error: unknown;
}

/** A batch was not done as a whole (code `ERR_VFIO_USER_DMA`). The container's `ranges` are what is mapped now. */
export class DmaBatchError extends VfioUserError {
  /** By operation, in the order in which they were added. */
  readonly outcomes: readonly DmaBatchOutcome[];

  constructor(outcomes: readonly DmaBatchOutcome[], mapped: string) {
    const failed = outcomes.filter(({ error }) => error !== null);
    const first = failed[0];
    const reason = first?.error instanceof VfioUserError ? first.error.message : String(first?.error);
    const what = first === undefined ? 'nothing' : `${first.operation} ${formatRange(first)} (${reason})`;
    super(
      'ERR_VFIO_USER_DMA',
      `${String(failed.length)} of ${String(outcomes.length)} operations of a DMA batch failed, the first is ${what}. ` +
        `The others were done; error.outcomes tells of each. Mapped: ${mapped}`,
      { cause: first?.error },
    );
    this.outcomes = outcomes;
  }

  /** As for the base class, which would take every error of the package for one of these. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    return VfioUserError[Symbol.hasInstance](value) && 'outcomes' in (value as object);
  }
}

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
  readonly #commit: (operations: readonly DmaOperation[]) => Promise<DmaMapping[]>;
  #operations: DmaOperation[] = [];

  /** Use the container's `batch()`. */
  constructor(commit: (operations: readonly DmaOperation[]) => Promise<DmaMapping[]>) {
    this.#commit = commit;
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

  /** Adds an unmap. Address and size must be those of one mapping, which may be one of this batch. */
  unmap(iova: number | bigint, size: number): this {
    this.#operations.push({ kind: 'unmap', iova: BigInt(iova), size });
    return this;
  }

  /**
   * Checks all operations, then does them in the order in which they were added. The batch is empty afterwards.
   *
   * @returns the mappings, in the order of the maps
   * @throws VfioUserError ERR_VFIO_USER_DMA, TypeError: an operation makes no sense after those before it; nothing was sent
   * @throws DmaBatchError when a device refused one: the others were done. A map that one device refused is taken back
   *   from the others; a range whose unmap was refused stays in the container, as the device may still use it
   */
  async commit(): Promise<DmaMapping[]> {
    const operations = this.#operations;
    this.#operations = [];
    return this.#commit(operations);
  }
}

/** What a batch is checked against. */
export interface BatchLimits {
  /** What is mapped now. */
  readonly ranges: Iterable<DmaRange>;
  /** Ranges at a time that each device takes. */
  readonly maxDmaMaps: number;
  /** Size of the pages that a map must be made of, in bytes. */
  readonly pageSize: number;
  /** The same of a map with memory. */
  readonly memoryPageSize: number;
}

/** A batch that was checked. */
export interface BatchPlan {
  /** Of each operation, the range that it enters or takes. */
  readonly ranges: readonly DmaRange[];
  /** Those of the maps, in their order. */
  readonly mapped: readonly MappedRange[];
}

/**
 * Checks a batch as a whole.
 *
 * @param rangeOf makes the range of a map, still without memory
 * @throws VfioUserError ERR_VFIO_USER_DMA; TypeError ERR_INVALID_ARG_VALUE
 */
export function planBatch(
  operations: readonly DmaOperation[],
  limits: BatchLimits,
  rangeOf: (options: DmaMapOptions) => MappedRange,
): BatchPlan {
  const table = new IovaMap<DmaRange>();
  for (const range of limits.ranges) table.add(range);
  const mapped: MappedRange[] = [];
  const numberOf = (index: number): string =>
    `operation ${String(index + 1)} of ${String(operations.length)}`;
  const ranges = operations.map((operation, index) => {
    if (operation.kind === 'map') {
      const { options } = operation;
      checkPages(options, options.fd === undefined ? limits.pageSize : limits.memoryPageSize);
      if (table.size >= limits.maxDmaMaps) {
        throw new VfioUserError(
          'ERR_VFIO_USER_DMA',
          `${numberOf(index)}: ${String(table.size)} ranges would be mapped, no more are taken`,
        );
      }
      const range = rangeOf(options);
      table.add(range);
      mapped.push(range);
      return range;
    }
    const taken = table.get(operation.iova, operation.size);
    if (taken === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_DMA',
        `${numberOf(index)}: ${formatRange(operation)} would not be mapped; address and size must be those of one mapping. Mapped: ${table.dump()}`,
      );
    }
    table.delete(taken);
    return taken;
  });
  return { ranges, mapped };
}
