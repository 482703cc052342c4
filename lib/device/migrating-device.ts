// SPDX-License-Identifier: MIT
import type { VfioUserError } from '../errors';
import type { MigrationStateCode } from '../protocol';

/** What a device can do of migration (VFIO_DEVICE_FEATURE_MIGRATION). All false when it cannot migrate. */
export interface MigrationSupport {
  /** The state can be read while the device is stopped: what every device that migrates can do. */
  readonly stopCopy: boolean;
  /** A part of the state can be read while the device runs. */
  readonly preCopy: boolean;
  /** The device can refrain from accessing other devices, in states of which the package makes no use. */
  readonly p2p: boolean;
}

/** How much of its state a device still has to tell while it runs (`DeviceMigration.preCopyInfo`). */
export interface PreCopyInfo {
  /** Bytes that are to be moved before the device is stopped, or what follows takes long to load; an estimate. */
  readonly initialBytes: number;
  /** Bytes that have changed since they were read; an estimate. */
  readonly dirtyBytes: number;
}

/** How a `DeviceMigration` reaches its device. States are numbers, as in `enum vfio_device_mig_state`. */
export interface MigratingDevice {
  /** For messages. */
  readonly name: string;
  /** Counts what has been behind the name: a transfer ends with the device that it began on. */
  readonly epoch: number;
  /** Whether there is a device now. */
  readonly connected: boolean;
  /** Most bytes of one read. */
  readonly maxRead: number;
  /** Most bytes of one write. */
  readonly maxWrite: number;
  /** @throws VfioUserError when there is no device, or another one than that of `epoch` */
  assertConnected(action: string, epoch?: number): void;
  /** `MigrationFlag` bits; 0 when the device cannot migrate. */
  flags(): Promise<number>;
  state(): Promise<MigrationStateCode>;
  /** Brings the device into a state, through those in between. Returns the one that it is in then. */
  setState(state: MigrationStateCode): Promise<MigrationStateCode>;
  /** Whether {@link setState} failed since the device said no. */
  isRefusal(error: unknown): error is VfioUserError;
  /** Reads bytes of the state; fewer than asked for when there are no more. */
  readData(size: number): Promise<Uint8Array>;
  /** Writes at most {@link maxWrite} bytes of the state. */
  writeData(data: Uint8Array): Promise<void>;
  preCopyInfo(): Promise<PreCopyInfo>;
  /** Resets the device; throws ERR_VFIO_USER_UNSUPPORTED when it has no reset. */
  reset(): Promise<void>;
}
