// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../errors';
import { EventFd } from '../native';
import type { DeviceIrq } from '../pci/device';
import { Command, IrqInfoFlag, encodeSetIrqsRequest, type IrqData } from '../protocol';
import type { Connection } from '../transport';

/** What the server told about an interrupt index. */
export interface IrqDescription {
  readonly index: number;
  readonly count: number;
  /** `IrqInfoFlag` bits. */
  readonly flags: number;
}

/** libvfio-user and QEMU take at most this many descriptors with one message, whatever they announce. */
const MAX_FDS = 16;

/** An interrupt index of a vfio-user device: INTx, MSI, MSI-X, ERR or REQ. */
export class VfioUserIrq implements DeviceIrq {
  readonly index: number;
  readonly count: number;
  /** `IrqInfoFlag` bits as the server sent them. */
  readonly flags: number;
  readonly #connection: Connection;
  readonly #fdsPerMessage: number;
  #eventFds: EventFd[] = [];

  constructor(connection: Connection, description: IrqDescription, maxMsgFds: number) {
    this.#connection = connection;
    this.index = description.index;
    this.count = description.count;
    this.flags = description.flags;
    this.#fdsPerMessage = Math.max(1, Math.min(maxMsgFds, MAX_FDS));
  }

  /** Number of vectors enabled now. */
  get enabled(): number {
    return this.#eventFds.length;
  }

  async enable(handlers: readonly ((signals: number) => void)[]): Promise<void> {
    if (handlers.length < 1 || handlers.length > this.count) {
      throw outOfRange(
        `${String(handlers.length)} handlers for interrupt index ${String(this.index)}, which has ${String(this.count)} vectors`,
      );
    }
    if ((this.flags & IrqInfoFlag.eventfd) === 0) {
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `interrupt index ${String(this.index)} of ${this.#connection.name} cannot signal eventfds`,
      );
    }
    await this.disable();
    // Held from the start, so that a device that is closed meanwhile closes them.
    const eventFds = this.#eventFds;
    let start = 0;
    try {
      for (const handler of handlers) {
        const eventFd = EventFd.create();
        eventFds.push(eventFd);
        eventFd.watch(handler);
      }
      for (; start < eventFds.length; start += this.#fdsPerMessage) {
        const fds = eventFds.slice(start, start + this.#fdsPerMessage).map((eventFd) => eventFd.fd);
        await this.#trigger('eventfd', start, fds.length, fds);
      }
    } catch (error) {
      this.release();
      // The server holds the vectors that it took before; the error to tell is the first one.
      if (start > 0) await this.#trigger('none', 0, 0, []).catch(() => undefined);
      throw error;
    }
  }

  async disable(): Promise<void> {
    if (this.#eventFds.length === 0) return;
    this.release();
    // The whole index at once: libvfio-user cannot disable single vectors (vfio-user, VFIO_USER_DEVICE_SET_IRQS, "count").
    await this.#trigger('none', 0, 0, []);
  }

  /** Closes the eventfds without a message to the device. Called by the device when it closes. */
  release(): void {
    for (const eventFd of this.#eventFds) eventFd.close();
    this.#eventFds = [];
  }

  async #trigger(data: IrqData, start: number, count: number, fds: readonly number[]): Promise<void> {
    const payload = encodeSetIrqsRequest({ index: this.index, data, action: 'trigger', start, count });
    const reply = await this.#connection.request({ command: Command.deviceSetIrqs, payload, fds });
    reply.fds.close();
  }
}
