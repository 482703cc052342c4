// SPDX-License-Identifier: MIT
import { Mutex } from '../async';

/** An interrupt index that is disabled when another takes its place. */
export interface ExclusiveIrq {
  /** Called while the exclusion runs a change. @internal */
  yieldTo(): Promise<void>;
}

/**
 * Keeps changes of a device's interrupts apart: each begins when the one before has ended. Of INTx, MSI and MSI-X a
 * function uses one at a time (PCI Local Bus 3.0, 6.8), and libvfio-user keeps their eventfds in one array.
 */
export class IrqExclusion extends Mutex {
  /** Which of INTx, MSI and MSI-X is enabled; null for none. */
  active: ExclusiveIrq | null = null;
}
