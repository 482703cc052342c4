// SPDX-License-Identifier: MIT
import { PciIrq } from '../pci/device';
import { IrqInfoFlag } from '../protocol';

/** What clients are told of an interrupt index. */
export interface IrqDescription {
  /** Number of vectors. */
  readonly count: number;
  /** `IrqInfoFlag` bits. */
  readonly flags: number;
}

/**
 * What clients are told of interrupts that the server itself signals. Vectors can be added one by one, so NORESIZE is not set. INTx is
 * announced as the kernel does, see `IntxLine`: MSI-X is masked in its table.
 */
export function describeIrqs(
  counts: readonly (readonly [index: number, count: number])[],
): Map<number, IrqDescription> {
  return new Map(
    counts.map(([index, count]) => {
      const level = index === PciIrq.intx ? IrqInfoFlag.maskable | IrqInfoFlag.automasked : 0;
      return [index, { count, flags: IrqInfoFlag.eventfd | level }];
    }),
  );
}
