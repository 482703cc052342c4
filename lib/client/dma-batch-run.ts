// SPDX-License-Identifier: MIT
import type { DmaBatchOutcome, PlannedOperation } from './dma-batch';
import type { DmaMapOptions, DmaRange } from './dma-range';
import type { DmaTable } from './dma-table';
import { callBack, pipelined, type Done } from './pipeline';

/**
 * Does the operations of a batch that was checked, in their order, without waiting for one before the next.
 *
 * @param rangeFor makes the range of a map, with its memory
 * @returns by operation, its range and what became of it; nothing of it when none has failed
 * @throws what `rangeFor` throws; nothing was sent then
 */
export async function runBatch(
  table: DmaTable,
  plan: readonly PlannedOperation[],
  rangeFor: (options: DmaMapOptions) => DmaRange,
): Promise<{ ranges: readonly DmaRange[]; outcomes: readonly DmaBatchOutcome[] }> {
  const ranges = prepare(table, plan, rangeFor);
  // A range that takes the place of others enters the table when those have left it.
  let unmapped: Promise<unknown> = Promise.resolve();
  const act = (range: DmaRange, index: number, done: Done): void => {
    if (plan[index]?.kind === 'map') {
      table.enterAfter(range, unmapped, done);
      return;
    }
    const left = table.leave(range);
    unmapped = Promise.allSettled([unmapped, left]);
    callBack(left, done);
  };
  const results = await pipelined(ranges, act, table.deviceCount);
  if (results.every((result) => result === null)) return { ranges, outcomes: [] };
  const outcomes = plan.map(({ kind }, index) => {
    const { iova, size } = ranges[index] as DmaRange;
    return { operation: kind, iova, size, error: results[index]?.error ?? null };
  });
  return { ranges, outcomes };
}

/** The ranges of a plan, with their memory. When one cannot be had, there is none. */
function prepare(
  table: DmaTable,
  plan: readonly PlannedOperation[],
  rangeFor: (options: DmaMapOptions) => DmaRange,
): DmaRange[] {
  const ranges: DmaRange[] = [];
  try {
    for (const operation of plan) {
      if (operation.kind === 'map') ranges.push(rangeFor(operation.options));
      else if (typeof operation.target !== 'number') ranges.push(operation.target);
      else ranges.push(ranges[operation.target] as DmaRange);
    }
    return ranges;
  } catch (error) {
    ranges.forEach((range, index) => {
      if (plan[index]?.kind === 'map') table.release(range);
    });
    throw error;
  }
}
