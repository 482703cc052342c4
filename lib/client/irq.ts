// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { IrqExclusion } from '../irq/exclusion';
import { IrqIndex, type IrqDescription } from '../irq/irq-index';
import type { VectorRange } from '../irq/targets';
import type { EventFd } from '../native';
import { Command, IrqInfoFlag, encodeSetIrqsRequest, type IrqAction, type IrqChange } from '../protocol';
import type { Connection } from '../transport';
import type { Asked } from './ask';
import type { Link } from './link';

/** libvfio-user and QEMU take at most this many descriptors with one message, whatever they announce. */
const MAX_FDS = 16;
/** Most vectors of an index, far more than the 2048 of MSI-X. What a server announces beyond that is left out. */
const MAX_VECTORS = 65_535;

/** An interrupt index of a vfio-user device: INTx, MSI, MSI-X, ERR or REQ. */
export class VfioUserIrq extends IrqIndex {
  readonly #link: Link;
  readonly #fdsPerMessage: number;
  /** libvfio-user neither masks INTx by itself nor says that it can be masked; other servers need the UNMASK. */
  #refusesUnmask = false;
  /** Vectors that the user has masked, and eventfds that the user has bound, by action. */
  readonly #masked = new Set<number>();
  readonly #bound = { mask: new Map<number, EventFd>(), unmask: new Map<number, EventFd>() };
  /** Whose server has the eventfds of the vectors: that of the link, or the one that is being set up. */
  #connection: Connection;
  /** Whether {@link enable} waits for answers. */
  #enabling = false;

  /** @param exclusion shared by the interrupt indexes of a device. @internal */
  constructor(link: Link, description: IrqDescription, maxMsgFds: number, exclusion = new IrqExclusion()) {
    super(link.name, { ...description, count: Math.min(description.count, MAX_VECTORS) }, exclusion);
    this.#link = link;
    this.#connection = link.connection;
    this.#fdsPerMessage = Math.max(1, Math.min(maxMsgFds, MAX_FDS));
  }

  /**
   * Gives the server of a new connection what the one before had: the eventfds of the enabled vectors, so that these go on,
   * then what is masked, and what is bound.
   *
   * @returns number of vectors that are enabled
   * @throws VfioUserError ERR_VFIO_USER_REMOTE when the server refuses what the one before took; others of a message
   * @internal
   */
  async setUp(connection: Connection): Promise<number> {
    this.#connection = connection;
    const enabled = this.enabledVectors();
    const count = 1 + Math.max(-1, ...enabled.map(({ vector }) => vector));
    try {
      for (const { start, fds } of this.#runs(count)) await this.#assign(start, fds, connection);
      // A server that has lost the connection alone may wait for the end of an interrupt.
      if (this.unmasks && enabled.length > 0 && !this.#masked.has(0)) await this.#unmaskAnew(connection);
      for (const start of this.#masked)
        await this.#send({ data: 'none', action: 'mask', start, count: 1 }, [], connection);
      for (const action of ['mask', 'unmask'] as const) {
        for (const [start, eventFd] of this.#bound[action])
          if (!eventFd.closed)
            await this.#send({ data: 'eventfd', action, start, count: 1 }, [eventFd.fd], connection);
      }
    } catch (error) {
      // What `enable` waits for is sent again, and fails there.
      if (!this.#enabling || connection.closed) throw error;
    }
    return enabled.length;
  }

  /** @internal */
  protected override get unmasks(): boolean {
    return super.unmasks && !this.#refusesUnmask;
  }

  /** @internal */
  protected override handled(vector: number): void {
    if (!this.unmasks || this.#link.state !== 'connected') return;
    this.act('unmask', { start: vector, count: 1 }).catch((error: unknown) => {
      if (this.#link.state === 'closed') return;
      const told = (this.flags & (IrqInfoFlag.maskable | IrqInfoFlag.automasked)) !== 0;
      // A server that knows no masks may refuse to unmask.
      if (!told && error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_REMOTE')
        this.#refusesUnmask = true;
      else process.emitWarning(`${this.name} stays masked: ${String(error)}`, 'VfioUserWarning');
    });
  }

  /** @internal */
  protected override async assign(count: number): Promise<void> {
    let sent = false;
    this.#enabling = true;
    try {
      for (const { start, fds } of this.#runs(count)) {
        await this.#assign(start, fds);
        sent = true;
      }
    } catch (error) {
      this.release();
      // The server holds the vectors that it took before; the error to tell is the first one.
      if (sent) await this.#sendDisable().catch(() => undefined);
      throw error;
    } finally {
      this.#enabling = false;
    }
  }

  /** @internal */
  protected override async unassign(): Promise<void> {
    // A server that has gone has let go of them, and the next one is not given them.
    if (!this.#connection.closed || this.#link.state === 'closed') await this.#sendDisable();
  }

  /** @internal */
  protected override async act(action: IrqAction, vectors: VectorRange | readonly boolean[]): Promise<void> {
    if ('start' in vectors) {
      const { start, count } = vectors;
      await this.#send({ data: 'none', action, start, count });
      for (let vector = start; vector < start + count; vector++) this.#note(action, vector);
      return;
    }
    const booleans = Uint8Array.from(vectors, Number);
    await this.#send({ data: 'bool', action, start: 0, count: booleans.length, booleans });
    for (const [vector, chosen] of vectors.entries()) if (chosen) this.#note(action, vector);
  }

  /** @internal */
  protected override async bind(
    action: 'mask' | 'unmask',
    start: number,
    eventFd: EventFd | null,
  ): Promise<void> {
    await this.#send({ data: 'eventfd', action, start, count: 1 }, eventFd === null ? [] : [eventFd.fd]);
    if (eventFd === null) this.#bound[action].delete(start);
    else this.#bound[action].set(start, eventFd);
  }

  /** Unmasks INTx. A server that knows no masks may refuse that, and needs it not. */
  async #unmaskAnew(connection: Connection): Promise<void> {
    try {
      await this.#send({ data: 'none', action: 'unmask', start: 0, count: 1 }, [], connection);
    } catch (error) {
      if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_REMOTE') throw error;
    }
  }

  /** The enabled vectors in messages: without holes, which servers differ about, and not too many at once. */
  #runs(count: number): { start: number; fds: number[] }[] {
    const runs: { start: number; fds: number[] }[] = [];
    for (let vector = 0; vector < count; vector++) {
      const fd = this.vector(vector).fd;
      if (fd === null) continue;
      const last = runs.at(-1);
      if (
        last !== undefined &&
        last.start + last.fds.length === vector &&
        last.fds.length < this.#fdsPerMessage
      )
        last.fds.push(fd);
      else runs.push({ start: vector, fds: [fd] });
    }
    return runs;
  }

  /** @internal */
  override async pass(change: Readonly<IrqChange>, eventFds: readonly EventFd[] = []): Promise<void> {
    if (eventFds.length === 0) {
      await this.#send(change);
      return;
    }
    const most = this.#fdsPerMessage;
    for (let at = 0; at < eventFds.length; at += most) {
      const fds = eventFds.slice(at, at + most).map(({ fd }) => fd);
      await this.#send({ ...change, start: change.start + at, count: fds.length }, fds);
    }
  }

  /** Disables the whole index at once: libvfio-user cannot disable single vectors (vfio-user, VFIO_USER_DEVICE_SET_IRQS, "count"). */
  #sendDisable(): Promise<void> {
    return this.#send({ data: 'none', action: 'trigger', start: 0, count: 0 });
  }

  /** Notes what a new connection has to be told. */
  #note(action: IrqAction, vector: number): void {
    if (action === 'mask') this.#masked.add(vector);
    else if (action === 'unmask') this.#masked.delete(vector);
  }

  #assign(start: number, fds: readonly number[], to?: Asked): Promise<void> {
    return this.#send({ data: 'eventfd', action: 'trigger', start, count: fds.length }, fds, to);
  }

  /** @param to whom it is told; default the server of the device */
  async #send(
    request: Readonly<IrqChange>,
    fds: readonly number[] = [],
    to: Asked = this.#link,
  ): Promise<void> {
    const payload = encodeSetIrqsRequest({ ...request, index: this.index });
    const signals = request.action === 'trigger' && request.data !== 'eventfd' && request.count > 0;
    await to.request({ command: Command.deviceSetIrqs, payload, fds, loss: signals ? 'fail' : undefined });
  }
}
