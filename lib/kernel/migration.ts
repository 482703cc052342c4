// SPDX-License-Identifier: MIT
import { promised } from '../async';
import type { MigratingDevice, PreCopyInfo } from '../device/migrating-device';
import { migrationFlags, migrationState } from '../device/migration-feature';
import { VfioUserError, systemError } from '../errors';
import type { MigrationFile, VfioDeviceFile } from '../native';
import { MigrationState, type MigrationStateCode } from '../protocol';
import { isUnsupported, type KernelFeatures } from './device-feature';

/** Bytes that are moved by one system call: as many as QEMU moves. */
const MAX_TRANSFER = 1 << 20;
const EINVAL = 22;
/** States in which there is something to read or write. */
const TRANSFERS: ReadonlySet<number> = new Set([
  MigrationState.stopCopy,
  MigrationState.resuming,
  MigrationState.preCopy,
  MigrationState.preCopyP2p,
]);

/** A device of the kernel's whose driver can migrate it (`linux/vfio.h`, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE). */
export class MigratingKernelDevice implements MigratingDevice {
  readonly name: string;
  /** A device that has gone does not come back. */
  readonly epoch = 0;
  readonly maxRead = MAX_TRANSFER;
  readonly maxWrite = MAX_TRANSFER;
  readonly #file: VfioDeviceFile;
  readonly #features: KernelFeatures;
  readonly #reset: () => Promise<void>;
  /** What the data go through while there are any. */
  #data: MigrationFile | null = null;

  constructor(file: VfioDeviceFile, features: KernelFeatures, reset: () => Promise<void>) {
    this.name = file.name;
    this.#file = file;
    this.#features = features;
    this.#reset = reset;
  }

  get connected(): boolean {
    return !this.#file.closed;
  }

  assertConnected(): void {
    this.#file.assertOpen();
  }

  flags(): Promise<number> {
    return migrationFlags(this.#features, isUnsupported);
  }

  state(): Promise<MigrationStateCode> {
    return migrationState(this.#features);
  }

  /** The kernel answers when the device is in the state; from `preCopy` to `stopCopy` the data go on as they went. */
  async setState(state: MigrationStateCode): Promise<MigrationStateCode> {
    const data = await this.#file.setMigrationState(state);
    if (data !== null || !TRANSFERS.has(state)) this.close();
    if (data !== null && this.#file.closed) data.close();
    else if (data !== null) this.#data = data;
    return state;
  }

  isRefusal(error: unknown): error is VfioUserError {
    return error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_SYSTEM';
  }

  async readData(size: number): Promise<Uint8Array> {
    const data = this.#transfer();
    const bytes = new Uint8Array(size);
    let length = 0;
    // A short read is none that ends: a driver may give a part of what it has.
    for (let count = -1; length < size && count !== 0; length += count)
      count = await data.read(bytes, length).catch(noneForNow);
    return bytes.subarray(0, length);
  }

  async writeData(bytes: Uint8Array): Promise<void> {
    const data = this.#transfer();
    for (let at = 0; at < bytes.length;) {
      const count = await data.write(bytes, at);
      if (count === 0)
        throw new VfioUserError('ERR_VFIO_USER_MIGRATION', `${this.name} takes no more of its state`);
      at += count;
    }
  }

  preCopyInfo(): Promise<PreCopyInfo> {
    return promised(() => {
      const view = new DataView(this.#transfer().precopyInfo().buffer);
      return {
        initialBytes: Number(view.getBigUint64(8, true)),
        dirtyBytes: Number(view.getBigUint64(16, true)),
      };
    });
  }

  /** The driver brings a device that was reset to `running`, and ends the transfer. */
  async reset(): Promise<void> {
    await this.#reset();
    this.close();
  }

  /** Lets go of what the data went through. */
  close(): void {
    this.#data?.close();
    this.#data = null;
  }

  #transfer(): MigrationFile {
    this.#file.assertOpen();
    if (this.#data === null)
      throw systemError('read', EINVAL, `${this.name} is in no state in which its own can be moved`);
    return this.#data;
  }
}

/** A device that runs says by ENOMSG that it has told all for now (`linux/vfio.h`, "PRE_COPY"). */
function noneForNow(error: unknown): number {
  if (error instanceof VfioUserError && error.errnoName === 'ENOMSG') return 0;
  throw error;
}
