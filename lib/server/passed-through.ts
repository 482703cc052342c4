// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';
import {
  encodeDeviceFeatureReply,
  encodeMigDataReadReply,
  decodeDeviceFeatureRequest,
  decodeMigDataReadRequest,
  decodeMigDataWriteRequest,
  type SetIrqsRequest,
} from '../protocol';
import type { CommandReply, FdList } from '../transport';
import { checkRoom } from './device-feature';
import type { Eventually, ModelCall } from './model-calls';
import type { Passthrough } from './passthrough';
import type { ServedInterrupts } from './served-interrupts';
import { takeSetIrqs } from './set-irqs';

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
