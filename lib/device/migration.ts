// SPDX-License-Identifier: MIT
import { memoize } from '../async';
import { VfioUserError, invalidArgument } from '../errors';
import {
  MigrationFlag,
  MigrationState,
  migrationPath,
  migrationStateName,
  type MigrationStateCode,
  type MigrationStateName,
} from '../protocol';
import {
  MigrationReadStream,
  MigrationWriteStream,
  type MigrationReadOptions,
  type MigrationWriteOptions,
} from './migration-stream';
import type { MigratingDevice, MigrationSupport, PreCopyInfo } from './migrating-device';
import { MigrationTransfer } from './migration-transfer';

/**
 * Moves the state of a device out of one and into another: of a vfio-user server by messages (VFIO_USER_MIG_DATA_READ and
 * VFIO_USER_MIG_DATA_WRITE), of the kernel through a descriptor (`linux/vfio.h`, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE).
 *
 * @example
 * await pipeline(source.migration.createReadStream(), target.migration.createWriteStream());
 */
export class DeviceMigration {
  readonly #device: MigratingDevice;
  readonly #transfers = new Set<MigrationTransfer>();
  readonly #support = memoize(() => this.#fetchSupport());

  /** @internal */
  constructor(device: MigratingDevice) {
    this.#device = device;
  }

  /** What the device can do of migration. The device is asked once, since this does not change. */
  supported(): Promise<MigrationSupport> {
    return this.#support();
  }

  /** The state that the device is in now. */
  async state(): Promise<MigrationStateName> {
    return migrationStateName(await this.#device.state());
  }

  /**
   * Brings the device into a state. It goes through the states in between by itself. Nothing is done when it is in that
   * state already.
   *
   * @throws TypeError ERR_INVALID_ARG_VALUE for `error` and the P2P states, which cannot be set
   * @throws VfioUserError ERR_VFIO_USER_MIGRATION when no transitions lead there, before anything is done, or when the
   *   device fails on its way: the message tells in which state it is then. Only a reset leads out of `error`.
   */
  async setState(target: MigrationStateName): Promise<void> {
    if (target === 'error' || target === 'runningP2p' || target === 'preCopyP2p')
      throw invalidArgument(
        `a device cannot be brought into state ${target}; set running, stop, stopCopy, resuming or preCopy`,
      );
    const { epoch } = this.#device;
    this.#device.assertConnected(`going to state ${target}`);
    const from = await this.state();
    const path = migrationPath(from, target, (await this.supported()).preCopy);
    this.#device.assertConnected(`going to state ${target}`, epoch);
    if (path === undefined) {
      throw new VfioUserError(
        'ERR_VFIO_USER_MIGRATION',
        `${this.#device.name} is in state ${from}, from which no transition leads to ${target}` +
          (from === 'error' ? '; reset the device' : ''),
      );
    }
    if (path.length === 0) return;
    const state = migrationStateName(await this.#transition(from, target));
    if (state !== target) {
      throw new VfioUserError(
        'ERR_VFIO_USER_PROTOCOL',
        `${this.#device.name} answered the transition to ${target} with state ${state}`,
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
    return transfer.of(new MigrationReadStream(transfer, this.#device.maxRead, options));
  }

  /**
   * Loads the state of a device from bytes. At its end the device has taken the state, and runs unless `resume` is false.
   * Destroyed before, it resets the device, which then runs with its initial state.
   */
  createWriteStream(options: MigrationWriteOptions = {}): MigrationWriteStream {
    const transfer = this.#begin();
    return transfer.of(new MigrationWriteStream(transfer, this.#device.maxWrite, options));
  }

  /**
   * Reads some of the state. The device must be in a saving state. Use {@link createReadStream} to read all.
   *
   * @param size bytes; of a vfio-user device at most `maxDataXferSize`
   * @returns the bytes; fewer than asked for when there are no more
   */
  readData(size: number): Promise<Uint8Array> {
    return this.#device.readData(size);
  }

  /**
   * Writes some of the state, to a vfio-user device at most `maxDataXferSize` bytes. The device must be `resuming`. Use
   * {@link createWriteStream} to write all.
   */
  writeData(data: Uint8Array): Promise<void> {
    return this.#device.writeData(data);
  }

  /**
   * How much there is to read in `preCopy` (`linux/vfio.h`, VFIO_MIG_GET_PRECOPY_INFO). The device must be in that state.
   *
   * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED of a vfio-user device: the protocol has no such question; SYSTEM in
   *   another state
   */
  preCopyInfo(): Promise<PreCopyInfo> {
    return this.#device.preCopyInfo();
  }

  /** Ends the transfers that are under way, as their device has gone. Returns whether there were any. @internal */
  connectionEnded(error: VfioUserError | null): boolean {
    const lost = [...this.#transfers];
    for (const transfer of lost) transfer.lose(error);
    return lost.length > 0;
  }

  #begin(): MigrationTransfer {
    const transfer = new MigrationTransfer(this, this.#device, () => {
      this.#transfers.delete(transfer);
    });
    this.#transfers.add(transfer);
    return transfer;
  }

  async #transition(from: MigrationStateName, target: MigrationStateName): Promise<MigrationStateCode> {
    try {
      return await this.#device.setState(MigrationState[target]);
    } catch (error) {
      if (!this.#device.isRefusal(error)) throw error;
      const state = await this.state();
      throw new VfioUserError(
        'ERR_VFIO_USER_MIGRATION',
        `${this.#device.name} failed to go from ${from} to ${target} (${error.errnoName ?? 'no errno'}); it is in state ${state} now` +
          (state === 'error' ? ', out of which only a reset leads' : ''),
        { errno: error.errno, command: 'DEVICE_FEATURE', cause: error },
      );
    }
  }

  async #fetchSupport(): Promise<MigrationSupport> {
    const flags = await this.#device.flags();
    return {
      stopCopy: (flags & MigrationFlag.stopCopy) !== 0,
      preCopy: (flags & MigrationFlag.preCopy) !== 0,
      p2p: (flags & MigrationFlag.p2p) !== 0,
    };
  }
}
