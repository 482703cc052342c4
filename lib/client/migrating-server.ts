// SPDX-License-Identifier: MIT
import type { MigratingDevice, PreCopyInfo } from '../device/migrating-device';
import { migrationFlags, migrationState } from '../device/migration-feature';
import { VfioUserError } from '../errors';
import {
  Command,
  Feature,
  decodeMigDataReadReply,
  decodeMigrationState,
  encodeMigDataReadRequest,
  encodeMigDataWriteRequest,
  encodeMigrationState,
  type MigrationStateCode,
} from '../protocol';
import { isUnsupported, type DeviceFeatures } from './device-feature';
import type { Link } from './link';
import { MAX_WRITE } from './region';

/** What {@link MigratingServer} needs beside its link. */
export interface MigrationLimits {
  /** Largest transfer, in bytes. */
  readonly maxTransfer: number;
  /** Milliseconds for transfers: they may follow a change that waits for the I/O in flight. */
  readonly timeout: number;
  /** Resets the device; throws ERR_VFIO_USER_UNSUPPORTED when it has no reset. */
  reset(): Promise<void>;
}

/** A server whose device is migrated (vfio-user, VFIO_USER_MIG_DATA_READ and VFIO_USER_MIG_DATA_WRITE). */
export class MigratingServer implements MigratingDevice {
  readonly name: string;
  readonly maxRead: number;
  readonly maxWrite: number;
  readonly #link: Link;
  readonly #features: DeviceFeatures;
  readonly #limits: MigrationLimits;

  constructor(link: Link, features: DeviceFeatures, limits: MigrationLimits) {
    this.name = link.name;
    this.maxRead = limits.maxTransfer;
    this.maxWrite = Math.min(limits.maxTransfer, MAX_WRITE);
    this.#link = link;
    this.#features = features;
    this.#limits = limits;
  }

  get epoch(): number {
    return this.#link.epoch;
  }

  get connected(): boolean {
    return this.#link.state === 'connected';
  }

  assertConnected(action: string, epoch?: number): void {
    this.#link.assertConnected(action, epoch);
  }

  flags(): Promise<number> {
    return migrationFlags(this.#features, isUnsupported);
  }

  state(): Promise<MigrationStateCode> {
    return migrationState(this.#features);
  }

  async setState(state: MigrationStateCode): Promise<MigrationStateCode> {
    return decodeMigrationState(
      await this.#features.set(Feature.migDeviceState, encodeMigrationState(state)),
    );
  }

  isRefusal(error: unknown): error is VfioUserError {
    return error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_REMOTE';
  }

  async readData(size: number): Promise<Uint8Array> {
    const reply = await this.#link.request({
      command: Command.migDataRead,
      payload: encodeMigDataReadRequest(size),
      timeout: this.#limits.timeout,
      maxReply: 8 + size,
    });
    return decodeMigDataReadReply(reply.payload, size);
  }

  async writeData(data: Uint8Array): Promise<void> {
    await this.#link.request({
      command: Command.migDataWrite,
      payload: encodeMigDataWriteRequest(data.byteLength),
      data,
      timeout: this.#limits.timeout,
    });
  }

  preCopyInfo(): Promise<PreCopyInfo> {
    return Promise.reject(
      new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `${this.name} cannot tell how much of its state is left to read: vfio-user has no such question; read until there is no more`,
      ),
    );
  }

  reset(): Promise<void> {
    return this.#limits.reset();
  }
}
