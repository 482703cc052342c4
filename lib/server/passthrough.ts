// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';
import type { EventFd } from '../native';
import {
  encodeDeviceFeatureReply,
  encodeMigDataReadReply,
  decodeDeviceFeatureRequest,
  decodeMigDataReadRequest,
  decodeMigDataWriteRequest,
  type DeviceFeatureRequest,
  type SetIrqsRequest,
} from '../protocol';
import type { CommandReply, FdList } from '../transport';
import { checkRoom } from './device-feature';
import type { IrqDescription } from './function-state';
import type { Eventually, ModelCall } from './model-calls';
import { takeSetIrqs } from './set-irqs';

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

/** The interrupts of one client, as far as a server has to do with them. */
export interface ServedInterrupts {
  /** See `Client.setInterrupt`. */
  set(high: boolean, vector: number): boolean;
  /** See `Client.trigger`. */
  trigger(irqIndex: number, vector: number): boolean;
  /** Configuration space has changed, or what the client has set. */
  configured(): void;
  /** The device is reset: its interrupts are low, and none is pending. */
  reset(): void;
  /** Serves a DEVICE_SET_IRQS. */
  setIrqs(request: Readonly<SetIrqsRequest>, fds: FdList): Eventually<void>;
  /** Signals nothing any more, and closes all eventfds. Resolves when that is done. */
  close(): Promise<void>;
}

/** Interrupts that the device itself signals. It also lets them go, when its client has gone. */
export class PassedInterrupts implements ServedInterrupts {
  readonly #passthrough: Passthrough;
  readonly #call: ModelCall;
  readonly #maxDescriptor: number;

  /** @param maxDescriptor see `ProcessLimits` */
  constructor(passthrough: Passthrough, call: ModelCall, maxDescriptor: number) {
    this.#passthrough = passthrough;
    this.#call = call;
    this.#maxDescriptor = maxDescriptor;
  }

  set(): never {
    throw invalidArgument('a device that is passed through signals its interrupts itself');
  }

  trigger(): never {
    return this.set();
  }

  configured(): void {
    // The device has seen the write itself.
  }

  reset(): void {
    // The device was reset itself.
  }

  setIrqs(request: Readonly<SetIrqsRequest>, fds: FdList): Eventually<void> {
    const vectors = this.#passthrough.irqs.get(request.index)?.count ?? 0;
    const eventFds = takeSetIrqs(request, fds, vectors, this.#maxDescriptor);
    return this.#call(() => this.#passthrough.setIrqs(request, eventFds));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Serves DEVICE_FEATURE, MIG_DATA_READ and MIG_DATA_WRITE by the device itself. Methods reject with what a command is refused with. */
export class PassedFeatures {
  readonly #passthrough: Passthrough;
  readonly #call: ModelCall;
  readonly #maxTransfer: number;

  /** @param maxTransfer most bytes of migration data in a message */
  constructor(passthrough: Passthrough, call: ModelCall, maxTransfer: number) {
    this.#passthrough = passthrough;
    this.#call = call;
    this.#maxTransfer = maxTransfer;
  }

  async feature(payload: Uint8Array): Promise<CommandReply> {
    const request = decodeDeviceFeatureRequest(payload);
    const { feature, get, set, probe, argsz } = request;
    const data = await this.#call(() => this.#passthrough.feature(request));
    checkRoom(data, argsz);
    return { payload: encodeDeviceFeatureReply({ feature, get, set, probe, data }) };
  }

  async read(payload: Uint8Array): Promise<CommandReply> {
    const { size } = decodeMigDataReadRequest(payload, this.#maxTransfer);
    const data = await this.#call(() => this.#passthrough.readMigrationData(size));
    return { payload: encodeMigDataReadReply(data.byteLength), data };
  }

  async write(payload: Uint8Array): Promise<CommandReply> {
    const data = decodeMigDataWriteRequest(payload, this.#maxTransfer);
    await this.#call(() => this.#passthrough.writeMigrationData(data));
    return { payload: new Uint8Array(0) };
  }
}
