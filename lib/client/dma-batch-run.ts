// SPDX-License-Identifier: MIT
import type { BatchPlan, DmaBatchOutcome, DmaOperation } from './dma-batch';
import { BorrowedFiles } from './dma-memory';
import type { DmaRange } from './dma-range';
import type { DmaTable } from './dma-table';
import { callBack, pipelined } from './pipeline';

/**
 * Does the operations of a batch that was checked, in their order, without waiting for one before the next.
 *
 * @returns by operation, what became of it; nothing when none has failed
 * @throws VfioUserError ERR_VFIO_USER_SYSTEM, RangeError: the memory of a map cannot be had; nothing was sent then
 */
export async function runBatch(
  table: DmaTable,
  operations: readonly DmaOperation[],
  plan: BatchPlan,
): Promise<readonly DmaBatchOutcome[]> {
  takeMemory(operations, plan);
  // A range that takes the place of others enters the table when those have left it.
  let unmapped: Promise<unknown> = Promise.resolve();
  const { ranges } = plan;
  const results = await pipelined(
    operations.length,
    (done) => {
      const enter = table.entrance(ranges, done);
      return (index) => {
        if (operations[index]?.kind === 'map') {
          enter(index, unmapped);
          return;
        }
        const left = table.leave(ranges[index] as DmaRange);
        unmapped = Promise.allSettled([unmapped, left]);
        callBack(left, done, index);
      };
    },
    table.deviceCount,
  );
  if (results.every((result) => result === null)) return [];
  return operations.map(({ kind }, index) => {
    const { iova, size } = ranges[index] as DmaRange;
    return { operation: kind, iova, size, error: results[index]?.error ?? null };
  });
}

/** The memory of all maps. When one cannot be had, there is none. */
function takeMemory(operations: readonly DmaOperation[], { mapped }: BatchPlan): void {
  const files = new BorrowedFiles();
  try {
    let next = 0;
    for (const operation of operations) {
      if (operation.kind !== 'map') continue;
      const { fd, offset = 0, size } = operation.options;
      const range = mapped[next++];
      if (fd !== undefined) range?.back(files.take(fd, offset, size), offset);
    }
  } catch (error) {
    for (const { memory } of mapped) memory?.close();
    throw error;
  }
}
