// SPDX-License-Identifier: MIT
import { memoize } from '../async';
import { VfioUserError, invalidArgument } from '../errors';
import {
  Command,
  Feature,
  MigrationFlag,
  MigrationState,
  decodeMigDataReadReply,
  decodeMigrationFeature,
  decodeMigrationState,
  encodeMigDataReadRequest,
  encodeMigDataWriteRequest,
  encodeMigrationState,
  migrationPath,
  migrationStateName,
  type MigrationStateName,
} from '../protocol';
import { isUnsupported, type DeviceFeatures } from './device-feature';
import type { Link } from './link';
import {
  MigrationReadStream,
  MigrationWriteStream,
  type MigrationReadOptions,
  type MigrationWriteOptions,
} from './migration-stream';
import { MigrationTransfer } from './migration-transfer';
import { MAX_WRITE } from './region';

/** What a device can do of migration (vfio-user, VFIO_DEVICE_FEATURE_MIGRATION). All false when it cannot migrate. */
export interface MigrationSupport {
  /** The state can be read while the device is stopped: what every device that migrates can do. */
  readonly stopCopy: boolean;
  /** A part of the state can be read while the device runs. */
  readonly preCopy: boolean;
  /** The device can refrain from accessing other devices. Not used in vfio-user. */
  readonly p2p: boolean;
}

/** What {@link DeviceMigration} needs of its device. */
export interface MigrationLimits {
  /** Largest transfer, in bytes. */
  readonly maxTransfer: number;
  /** Milliseconds for transfers: they may follow a change that waits for the I/O in flight. */
  readonly timeout: number;
  /** Resets the device; throws ERR_VFIO_USER_UNSUPPORTED when it has no reset. */
  reset(): Promise<void>;
}

/**
 * Moves the state of a device out of one server and into another (vfio-user, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
 * VFIO_USER_MIG_DATA_READ and VFIO_USER_MIG_DATA_WRITE).
 *
 * @example
 * await pipeline(source.migration.createReadStream(), target.migration.createWriteStream());
 */
export class DeviceMigration {
  readonly #link: Link;
  readonly #features: DeviceFeatures;
  readonly #limits: MigrationLimits;
  readonly #transfers = new Set<MigrationTransfer>();
  readonly #support = memoize(() => this.#fetchSupport());

  /** @internal */
  constructor(link: Link, features: DeviceFeatures, limits: MigrationLimits) {
    this.#link = link;
    this.#features = features;
    this.#limits = limits;
  }

  /** What the device can do of migration. The server is asked once, since this does not change while connected. */
  supported(): Promise<MigrationSupport> {
    return this.#support();
  }

  /** The state that the device is in now. */
  async state(): Promise<MigrationStateName> {
    return migrationStateName(decodeMigrationState(await this.#features.get(Feature.migDeviceState)));
  }

  /**
   * Brings the device into a state. The server goes through the states in between by itself. Nothing is sent when the device
   * is in that state already.
   *
   * @throws TypeError ERR_INVALID_ARG_VALUE for `error` and the P2P states, which cannot be set
   * @throws VfioUserError ERR_VFIO_USER_MIGRATION when no transitions lead there, before anything is sent, or when the
   *   device fails on its way: the message tells in which state it is then. Only a reset leads out of `error`.
   */
  async setState(target: MigrationStateName): Promise<void> {
    if (target === 'error' || target === 'runningP2p' || target === 'preCopyP2p')
      throw invalidArgument(
        `a device cannot be brought into state ${target}; set running, stop, stopCopy, resuming or preCopy`,
      );
    const { epoch } = this.#link;
    this.#link.assertConnected(`going to state ${target}`);
    const from = await this.state();
    const path = migrationPath(from, target, (await this.supported()).preCopy);
    this.#link.assertConnected(`going to state ${target}`, epoch);
    if (path === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_MIGRATION',
        `${this.#link.name} is in state ${from}, from which no transition leads to ${target}` +
          (from === 'error' ? '; reset the device' : ''),
      );
    }
    if (path.length === 0) return;
    const reply = await this.#transition(from, target);
    const state = migrationStateName(decodeMigrationState(reply));
    if (state !== target) {
      throw new VfioUserError(
        'ERR_VFIO_USER_PROTOCOL',
        `${this.#link.name} answered the transition to ${target} with state ${state}`,
        { command: 'DEVICE_FEATURE' },
      );
    }
  }

  /**
   * The state of the device, as a stream of bytes. It stops the device and reads until there is no more, with `preCopy`
   * first while the device runs; at its end the device is in `stop`. Destroyed before, it brings the device back to where
   * it was, `running` or `stop`. When the other side of the migration fails after the end, `setState('running')` lets the
   * device go on.
   */
  createReadStream(options: MigrationReadOptions = {}): MigrationReadStream {
    const transfer = this.#begin();
    return transfer.of(new MigrationReadStream(transfer, this.#limits.maxTransfer, options));
  }

  /**
   * Loads the state of a device from bytes. At its end the device has taken the state, and runs unless `resume` is false.
   * Destroyed before, it resets the device, which then runs with its initial state.
   */
  createWriteStream(options: MigrationWriteOptions = {}): MigrationWriteStream {
    const transfer = this.#begin();
    const most = Math.min(this.#limits.maxTransfer, MAX_WRITE);
    return transfer.of(new MigrationWriteStream(transfer, most, options));
  }

  /**
   * Sends one MIG_DATA_READ. The device must be in a saving state. Use {@link createReadStream} to read all.
   *
   * @param size bytes, at most `maxDataXferSize`
   * @returns the bytes; fewer than asked for when there are no more
   */
  async readData(size: number): Promise<Uint8Array> {
    const reply = await this.#link.request({
      command: Command.migDataRead,
      payload: encodeMigDataReadRequest(size),
      timeout: this.#limits.timeout,
      maxReply: 8 + size,
    });
    return decodeMigDataReadReply(reply.payload, size);
  }

  /** Sends one MIG_DATA_WRITE of at most `maxDataXferSize` bytes. The device must be `resuming`. Use {@link createWriteStream} to write all. */
  async writeData(data: Uint8Array): Promise<void> {
    await this.#link.request({
      command: Command.migDataWrite,
      payload: encodeMigDataWriteRequest(data.byteLength),
      data,
      timeout: this.#limits.timeout,
    });
  }

  /** Ends the transfers that are under way, as their device has gone. Returns whether there were any. @internal */
  connectionEnded(error: VfioUserError | null): boolean {
    const lost = [...this.#transfers];
    for (const transfer of lost) transfer.lose(error);
    return lost.length > 0;
  }

  #begin(): MigrationTransfer {
    const transfer = new MigrationTransfer(
      this,
      this.#link,
      () => this.#limits.reset(),
      () => {
        this.#transfers.delete(transfer);
      },
    );
    this.#transfers.add(transfer);
    return transfer;
  }

  async #transition(from: MigrationStateName, target: MigrationStateName): Promise<Uint8Array> {
    try {
      return await this.#features.set(Feature.migDeviceState, encodeMigrationState(MigrationState[target]));
    } catch (error) {
      if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_REMOTE') throw error;
      const state = await this.state();
      throw new VfioUserError(
        'ERR_VFIO_USER_MIGRATION',
        `${this.#link.name} failed to go from ${from} to ${target} (${error.errnoName ?? 'no errno'}); it is in state ${state} now` +
          (state === 'error' ? ', out of which only a reset leads' : ''),
        { errno: error.errno, command: 'DEVICE_FEATURE', cause: error },
      );
    }
  }

  async #fetchSupport(): Promise<MigrationSupport> {
    let flags = 0;
    try {
      flags = decodeMigrationFeature(await this.#features.get(Feature.migration));
    } catch (error) {
      if (!isUnsupported(error)) throw error;
    }
    return {
      stopCopy: (flags & MigrationFlag.stopCopy) !== 0,
      preCopy: (flags & MigrationFlag.preCopy) !== 0,
      p2p: (flags & MigrationFlag.p2p) !== 0,
    };
  }
}
