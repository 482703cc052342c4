// SPDX-License-Identifier: MIT
import type { EventFd } from '../native';
import type { DeviceFeatureRequest, SetIrqsRequest } from '../protocol';
import type { IrqDescription } from './irq-description';

/**
 * What a device that is itself behind a driver does in place of the server: its interrupts are signalled, and its state is saved,
 * where the device is. The server hands through what clients ask for, and keeps no account of it. All functions refuse with a
 * `CommandError`.
 */
export interface Passthrough {
  /** What clients are told of each interrupt index, INTx, MSI and MSI-X among them. */
  readonly irqs: ReadonlyMap<number, IrqDescription>;
  /** Serves a DEVICE_SET_IRQS. The eventfds, one for each vector or none, become the model's. */
  setIrqs(request: Readonly<SetIrqsRequest>, eventFds: readonly EventFd[]): Promise<void>;
  /** Serves a DEVICE_FEATURE, and resolves with the data of its reply. */
  feature(request: Readonly<DeviceFeatureRequest>): Promise<Uint8Array>;
  /** Serves a MIG_DATA_READ of at most `size` bytes. */
  readMigrationData(size: number): Promise<Uint8Array>;
  /** Serves a MIG_DATA_WRITE. */
  writeMigrationData(data: Uint8Array): Promise<void>;
}
