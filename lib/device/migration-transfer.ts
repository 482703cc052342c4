// SPDX-License-Identifier: MIT
import type { Stream } from 'node:stream';
import { VfioUserError } from '../errors';
import type { MigrationStateName } from '../protocol';
import type { MigratingDevice, MigrationSupport } from './migrating-device';
import type { MigrationPort } from './migration-stream';

/** What a transfer does with the migration that it is a part of. */
interface MigrationSteps {
  supported(): Promise<MigrationSupport>;
  state(): Promise<MigrationStateName>;
  setState(target: MigrationStateName): Promise<void>;
  readData(size: number): Promise<Uint8Array>;
  writeData(data: Uint8Array): Promise<void>;
}

/**
 * One transfer of a device's state, out of it or into it. It ends with the device that it began on: that of the next
 * connection has another state.
 */
export class MigrationTransfer implements MigrationPort {
  readonly #migration: MigrationSteps;
  readonly #device: MigratingDevice;
  readonly #epoch: number;
  readonly #ended: () => void;
  #stream: { destroy(error: Error): unknown } | null = null;

  /** @param ended called when the device is done with */
  constructor(migration: MigrationSteps, device: MigratingDevice, ended: () => void) {
    this.#migration = migration;
    this.#device = device;
    this.#epoch = device.epoch;
    this.#ended = ended;
  }

  /** Returns a stream, which is destroyed when the connection ends before the transfer. */
  of<T extends Stream & { destroy(error: Error): unknown }>(stream: T): T {
    this.#stream = stream;
    return stream;
  }

  /** The connection has ended: with null by the user. */
  lose(error: VfioUserError | null): void {
    const why = error === null ? 'was closed' : 'lost its connection';
    const text = `the transfer of the state of ${this.#device.name} ended, as the device ${why}; begin it anew`;
    const code = error?.code ?? 'ERR_VFIO_USER_CLOSED';
    this.#stream?.destroy(new VfioUserError(code, text, { cause: error ?? undefined }));
    this.end();
  }

  /**
   * The state before the transfer.
   *
   * @throws VfioUserError ERR_VFIO_USER_UNSUPPORTED, or ERR_VFIO_USER_MIGRATION when a transfer is under way already
   */
  async begin(preCopy: boolean): Promise<'running' | 'stop'> {
    const supported = await this.#migration.supported();
    if (!supported.stopCopy || (preCopy && !supported.preCopy)) {
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `${this.#device.name} does not offer ${supported.stopCopy ? 'PRE_COPY; leave preCopy out' : 'migration'}`,
      );
    }
    const state = await this.#migration.state();
    this.#assertSame();
    if (state === 'running' || state === 'stop') return state;
    throw new VfioUserError(
      'ERR_VFIO_USER_MIGRATION',
      `${this.#device.name} is in state ${state}; a transfer begins in running or stop` +
        (state === 'error'
          ? '. Reset the device'
          : '. Another one is under way, or was left: set the state to stop'),
    );
  }

  async setState(target: MigrationStateName): Promise<void> {
    this.#assertSame();
    await this.#migration.setState(target);
  }

  async readData(size: number): Promise<Uint8Array> {
    this.#assertSame();
    return this.#migration.readData(size);
  }

  async writeData(data: Uint8Array): Promise<void> {
    this.#assertSame();
    await this.#migration.writeData(data);
  }

  /** Brings the device back to a state from before, unless it is gone or has failed. */
  async restore(state: MigrationStateName): Promise<void> {
    if (this.#gone() || (await this.#migration.state()) === 'error' || this.#gone()) return;
    await this.#migration.setState(state);
  }

  /** Leaves `resuming` without a state that was loaded, which only a reset is sure to do. */
  async abandonLoad(): Promise<void> {
    if (this.#gone()) return;
    try {
      await this.#device.reset();
    } catch (error) {
      if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_UNSUPPORTED') throw error;
      await this.setState('stop');
    }
  }

  end(): void {
    this.#ended();
  }

  /** Whether the device is another by now, or none. */
  #gone(): boolean {
    return !this.#device.connected || this.#device.epoch !== this.#epoch;
  }

  #assertSame(): void {
    this.#device.assertConnected('the transfer of the state', this.#epoch);
  }
}
