// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../errors';
import { IrqExclusion } from '../irq/exclusion';
import { spinOf, type IrqOptions } from '../irq/options';
import type { IrqTarget, VectorSelection } from '../irq/targets';
import { IrqVector } from '../irq/vector';
import { EventFd } from '../native';
import { PciIrq, type DeviceIrq } from '../pci/device';
import { Command, IrqInfoFlag, encodeSetIrqsRequest, type IrqAction, type SetIrqsRequest } from '../protocol';
import type { Connection } from '../transport';
import type { Asked } from './ask';
import type { Link } from './link';

/** What the server told about an interrupt index. */
export interface IrqDescription {
  readonly index: number;
  readonly count: number;
  /** `IrqInfoFlag` bits. */
  readonly flags: number;
}

/** libvfio-user and QEMU take at most this many descriptors with one message, whatever they announce. */
const MAX_FDS = 16;
/** Most vectors of an index, far more than the 2048 of MSI-X. What a server announces beyond that is left out. */
const MAX_VECTORS = 65_535;

/** An interrupt index of a vfio-user device: INTx, MSI, MSI-X, ERR or REQ. */
export class VfioUserIrq implements DeviceIrq {
  readonly index: number;
  readonly count: number;
  /** `IrqInfoFlag` bits as the server sent them. */
  readonly flags: number;
  readonly #link: Link;
  readonly #fdsPerMessage: number;
  readonly #exclusion: IrqExclusion;
  readonly #vectors = new Map<number, IrqVector>();
  #unmasks: boolean;
  /** Vectors that the user has masked, and eventfds that the user has bound, by action. */
  readonly #masked = new Set<number>();
  readonly #bound = { mask: new Map<number, EventFd>(), unmask: new Map<number, EventFd>() };
  /** Whose server has the eventfds of the vectors: that of the link, or the one that is being set up. */
  #connection: Connection;
  /** Whether {@link enable} waits for answers. */
  #enabling = false;

  /** @param exclusion shared by the interrupt indexes of a device. @internal */
  constructor(link: Link, description: IrqDescription, maxMsgFds: number, exclusion = new IrqExclusion()) {
    this.#link = link;
    this.#connection = link.connection;
    this.index = description.index;
    this.count = Math.min(description.count, MAX_VECTORS);
    this.flags = description.flags;
    this.#fdsPerMessage = Math.max(1, Math.min(maxMsgFds, MAX_FDS));
    this.#exclusion = exclusion;
    // libvfio-user neither masks INTx by itself nor says that it can be masked; other servers need the UNMASK.
    this.#unmasks = description.index === PciIrq.intx;
  }

  /** Number of vectors enabled now. */
  get enabled(): number {
    return this.#enabledVectors().length;
  }

  /**
   * A vector, to wait for, to poll, to mask or to trigger. Always the same object for the same number.
   *
   * @throws RangeError when the index has no such vector
   */
  vector(vector: number): IrqVector {
    if (!Number.isInteger(vector) || vector < 0 || vector >= this.count) {
      throw outOfRange(`${this.#name} has ${this.count} vectors, from 0 on; there is no vector ${vector}`);
    }
    let entry = this.#vectors.get(vector);
    if (entry === undefined) {
      entry = new IrqVector(
        {
          endpoint: this.#link.name,
          index: this.index,
          act: (action, start) => this.#act(action, { start, count: 1 }),
          bind: (action, start, eventFd) => this.#bind(action, start, eventFd),
          unmasks: () => this.#unmasks,
          handled: (start) => {
            this.#handled(start);
          },
        },
        vector,
      );
      this.#vectors.set(vector, entry);
    }
    return entry;
  }

  fd(vector: number): number | null {
    return this.vector(vector).fd;
  }

  /**
   * Delivers vectors `0 … targets.length-1`. Replaces what was enabled before; INTx, MSI and MSI-X exclude each other,
   * so enabling one of them disables the others.
   *
   * @param targets where each vector goes; a number enables as many vectors to be polled, or waited for with
   *   `vector(n).signals()`. INTx is unmasked when a function or loop is done with an interrupt; for
   *   an eventfd of the caller's the caller does that
   * @param options how the event loop waits for signals, of all these vectors
   * @throws RangeError for more vectors than there are, or none, or a negative `spin`; TypeError for a mode that does not
   *   exist, or `spin` in another than `adaptive`; VfioUserError ERR_VFIO_USER_UNSUPPORTED when the index
   *   cannot signal eventfds, REMOTE and others of a message. Nothing is enabled then
   */
  enable(targets: number | readonly IrqTarget[], options: IrqOptions = {}): Promise<void> {
    return this.#exclusion.run(async () => {
      const spin = spinOf(options);
      const list = typeof targets === 'number' ? targets : [...targets];
      this.#check(typeof list === 'number' ? list : list.length);
      const { active } = this.#exclusion;
      if (this.#exclusive && active !== null && active !== this) await active.yieldTo();
      await this.#disable();
      if (this.#exclusive) this.#exclusion.active = this;
      await this.#enable(
        typeof list === 'number' ? Array.from({ length: list }, () => 'polled' as const) : list,
        spin,
      );
    });
  }

  /** Disables all vectors of the index. Loops over `signals()` end. */
  disable(): Promise<void> {
    return this.#exclusion.run(() => this.#disable());
  }

  /**
   * Has the device signal its vectors (vfio-user, VFIO_USER_DEVICE_SET_IRQS, ACTION_TRIGGER). Default: all vectors.
   *
   * @throws RangeError ERR_OUT_OF_RANGE for vectors that the index does not have
   */
  trigger(selection: VectorSelection = {}): Promise<void> {
    return this.#act('trigger', selection);
  }

  /**
   * Masks vectors; what the device signals meanwhile becomes pending. Default: all vectors.
   *
   * @throws RangeError ERR_OUT_OF_RANGE for vectors that the index does not have
   */
  mask(selection: VectorSelection = {}): Promise<void> {
    return this.#act('mask', selection);
  }

  /**
   * Unmasks vectors. Default: all vectors.
   *
   * @throws RangeError ERR_OUT_OF_RANGE for vectors that the index does not have
   */
  unmask(selection: VectorSelection = {}): Promise<void> {
    return this.#act('unmask', selection);
  }

  /** Makes room for another of INTx, MSI and MSI-X. @internal */
  yieldTo(): Promise<void> {
    return this.#disable();
  }

  /** Closes the eventfds without a message to the device, which is closing. @internal */
  release(): void {
    for (const vector of this.#vectors.values()) vector.detach();
    if (this.#exclusion.active === this) this.#exclusion.active = null;
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
    const enabled = this.#enabledVectors();
    const count = 1 + Math.max(-1, ...enabled.map(({ vector }) => vector));
    try {
      for (const { start, fds } of this.#runs(count)) await this.#assign(start, fds, connection);
      // A server that has lost the connection alone may wait for the end of an interrupt.
      if (this.#unmasks && enabled.length > 0 && !this.#masked.has(0)) await this.#unmaskAnew(connection);
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

  /** Unmasks INTx. A server that knows no masks may refuse that, and needs it not. */
  async #unmaskAnew(connection: Connection): Promise<void> {
    try {
      await this.#send({ data: 'none', action: 'unmask', start: 0, count: 1 }, [], connection);
    } catch (error) {
      if (!(error instanceof VfioUserError) || error.code !== 'ERR_VFIO_USER_REMOTE') throw error;
    }
  }

  /** Ends the streams of all vectors with an error: the device has gone, and no signal will come any more. @internal */
  deviceGone(error: VfioUserError): void {
    for (const vector of this.#vectors.values()) vector.fail(error);
  }

  get #name(): string {
    return `interrupt index ${this.index} of ${this.#link.name}`;
  }

  get #exclusive(): boolean {
    return this.index <= PciIrq.msix;
  }

  #enabledVectors(): IrqVector[] {
    return [...this.#vectors.values()].filter((vector) => vector.enabled);
  }

  #check(count: number): void {
    if (!Number.isInteger(count) || count < 1 || count > this.count) {
      throw outOfRange(`${count} vectors are to be enabled, and ${this.#name} has ${this.count} vectors`);
    }
    if ((this.flags & IrqInfoFlag.eventfd) === 0) {
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `${this.#name} cannot signal eventfds; look at a register of the device for what has happened instead`,
      );
    }
  }

  async #enable(targets: readonly (IrqTarget | 'polled')[], spin: number): Promise<void> {
    let sent = false;
    this.#enabling = true;
    try {
      // The vectors have their eventfds before the device is told, so that a device that is closed meanwhile closes them.
      targets.forEach((target, vector) => {
        if (target === null) return;
        const isHandler = typeof target === 'function';
        const own = isHandler || target === 'polled';
        this.vector(vector).attach(own ? EventFd.create() : target, own, isHandler ? target : null, spin);
      });
      for (const { start, fds } of this.#runs(targets.length)) {
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

  async #disable(): Promise<void> {
    if (this.enabled === 0) return;
    this.release();
    // A server that has gone has let go of them, and the next one is not given them.
    if (!this.#connection.closed || this.#link.state === 'closed') await this.#sendDisable();
  }

  /** Disables the whole index at once: libvfio-user cannot disable single vectors (vfio-user, VFIO_USER_DEVICE_SET_IRQS, "count"). */
  #sendDisable(): Promise<void> {
    return this.#send({ data: 'none', action: 'trigger', start: 0, count: 0 });
  }

  async #act(action: IrqAction, selection: VectorSelection): Promise<void> {
    if (selection.length !== undefined) {
      this.#checkRange(0, selection.length);
      const booleans = Uint8Array.from(selection, Number);
      await this.#send({ data: 'bool', action, start: 0, count: booleans.length, booleans });
      for (const [vector, chosen] of selection.entries()) if (chosen) this.#note(action, vector);
      return;
    }
    const { start = 0, count = this.count - start } = selection;
    this.#checkRange(start, count);
    await this.#send({ data: 'none', action, start, count });
    for (let vector = start; vector < start + count; vector++) this.#note(action, vector);
  }

  /** Notes what a new connection has to be told. */
  #note(action: IrqAction, vector: number): void {
    if (action === 'mask') this.#masked.add(vector);
    else if (action === 'unmask') this.#masked.delete(vector);
  }

  async #bind(action: 'mask' | 'unmask', start: number, eventFd: EventFd | null): Promise<void> {
    await this.#send({ data: 'eventfd', action, start, count: 1 }, eventFd === null ? [] : [eventFd.fd]);
    if (eventFd === null) this.#bound[action].delete(start);
    else this.#bound[action].set(start, eventFd);
  }

  #assign(start: number, fds: readonly number[], to?: Asked): Promise<void> {
    return this.#send({ data: 'eventfd', action: 'trigger', start, count: fds.length }, fds, to);
  }

  #checkRange(start: number, count: number): void {
    const valid = Number.isInteger(start) && Number.isInteger(count) && start >= 0 && count >= 1;
    if (!valid || start + count > this.count) {
      throw outOfRange(
        `${count} vectors from ${start} on are not among those of ${this.#name}, which has ${this.count}`,
      );
    }
  }

  #handled(vector: number): void {
    if (!this.#unmasks || this.#link.state !== 'connected') return;
    this.#act('unmask', { start: vector, count: 1 }).catch((error: unknown) => {
      if (this.#link.state === 'closed') return;
      const told = (this.flags & (IrqInfoFlag.maskable | IrqInfoFlag.automasked)) !== 0;
      // A server that knows no masks may refuse to unmask.
      if (!told && error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_REMOTE')
        this.#unmasks = false;
      else process.emitWarning(`${this.#name} stays masked: ${String(error)}`, 'VfioUserWarning');
    });
  }

  /** @param to whom it is told; default the server of the device */
  async #send(
    request: Omit<SetIrqsRequest, 'index'>,
    fds: readonly number[] = [],
    to: Asked = this.#link,
  ): Promise<void> {
    const payload = encodeSetIrqsRequest({ ...request, index: this.index });
    const signals = request.action === 'trigger' && request.data !== 'eventfd' && request.count > 0;
    await to.request({ command: Command.deviceSetIrqs, payload, fds, loss: signals ? 'fail' : undefined });
  }
}
