// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../errors';
import { EventFd } from '../native';
import { PciIrq, type DeviceIrq } from '../pci/device';
import { IrqInfoFlag, type IrqAction, type IrqChange } from '../protocol';
import type { IrqExclusion } from './exclusion';
import { spinOf, type IrqOptions } from './options';
import type { IrqTarget, VectorRange, VectorSelection } from './targets';
import { IrqVector } from './vector';

/** What a device tells about one of its interrupt indexes. */
export interface IrqDescription {
  readonly index: number;
  readonly count: number;
  /** `IrqInfoFlag` bits. */
  readonly flags: number;
}

/**
 * An interrupt index of a device: INTx, MSI, MSI-X, ERR or REQ. How the device is told of eventfds and actions is for the
 * classes that extend this one.
 */
export abstract class IrqIndex implements DeviceIrq {
  readonly index: number;
  readonly count: number;
  /** `VFIO_IRQ_INFO_*` bits as the device gave them (`linux/vfio.h`). */
  readonly flags: number;
  readonly #endpoint: string;
  readonly #exclusion: IrqExclusion;
  readonly #vectors = new Map<number, IrqVector>();

  /**
   * @param endpoint name of the device
   * @param exclusion shared by the interrupt indexes of the device
   * @internal
   */
  constructor(endpoint: string, { index, count, flags }: IrqDescription, exclusion: IrqExclusion) {
    this.index = index;
    this.count = count;
    this.flags = flags;
    this.#endpoint = endpoint;
    this.#exclusion = exclusion;
  }

  /** Number of vectors enabled now. */
  get enabled(): number {
    return this.enabledVectors().length;
  }

  /**
   * A vector, to wait for, to poll, to mask or to trigger. Always the same object for the same number.
   *
   * @throws RangeError ERR_OUT_OF_RANGE when the index has no such vector
   */
  vector(vector: number): IrqVector {
    if (!Number.isInteger(vector) || vector < 0 || vector >= this.count)
      throw outOfRange(`${this.name} has ${this.count} vectors, from 0 on; there is no vector ${vector}`);
    let entry = this.#vectors.get(vector);
    if (entry === undefined) {
      entry = new IrqVector(
        {
          endpoint: this.#endpoint,
          index: this.index,
          act: (action, start) => this.act(action, { start, count: 1 }),
          bind: (action, start, eventFd) => this.bind(action, start, eventFd),
          unmasks: () => this.unmasks,
          handled: (start) => {
            this.handled(start);
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
   *   cannot signal eventfds, REMOTE or SYSTEM when the device refuses. Nothing is enabled then
   */
  enable(targets: number | readonly IrqTarget[], options: IrqOptions = {}): Promise<void> {
    return this.#exclusion.run(async () => {
      const spin = spinOf(options);
      const list = typeof targets === 'number' ? targets : [...targets];
      this.#checkEnable(typeof list === 'number' ? list : list.length);
      const { active } = this.#exclusion;
      if (this.#exclusive && active !== null && active !== this) await active.yieldTo();
      await this.yieldTo();
      if (this.#exclusive) this.#exclusion.active = this;
      await this.#enable(
        typeof list === 'number' ? Array.from({ length: list }, () => 'polled' as const) : list,
        spin,
      );
    });
  }

  /** Disables all vectors of the index. Loops over `signals()` end. */
  disable(): Promise<void> {
    return this.#exclusion.run(() => this.yieldTo());
  }

  /**
   * Signals vectors as the device would, which tests the way of a signal (`linux/vfio.h`, VFIO_DEVICE_SET_IRQS,
   * ACTION_TRIGGER). Default: all vectors.
   *
   * @throws RangeError ERR_OUT_OF_RANGE for vectors that the index does not have; VfioUserError when the device refuses
   */
  trigger(selection: VectorSelection = {}): Promise<void> {
    return this.#act('trigger', selection);
  }

  /**
   * Masks vectors; what the device signals meanwhile becomes pending. Default: all vectors.
   *
   * @throws RangeError ERR_OUT_OF_RANGE for vectors that the index does not have; VfioUserError when the device refuses, as
   *   the kernel does for MSI and MSI-X
   */
  mask(selection: VectorSelection = {}): Promise<void> {
    return this.#act('mask', selection);
  }

  /** Unmasks vectors, as {@link mask} masks them. Default: all vectors. */
  unmask(selection: VectorSelection = {}): Promise<void> {
    return this.#act('unmask', selection);
  }

  /** Makes room for another of INTx, MSI and MSI-X. @internal */
  async yieldTo(): Promise<void> {
    if (this.enabled === 0) return;
    this.release();
    await this.unassign();
  }

  /** Closes the eventfds without telling the device, which is closing. @internal */
  release(): void {
    for (const vector of this.#vectors.values()) vector.detach();
    if (this.#exclusion.active === this) this.#exclusion.active = null;
  }

  /** Ends the streams of all vectors with an error: the device has gone, and no signal will come any more. @internal */
  deviceGone(error: VfioUserError): void {
    for (const vector of this.#vectors.values()) vector.fail(error);
  }

  /** For messages. @internal */
  protected get name(): string {
    return `interrupt index ${this.index} of ${this.#endpoint}`;
  }

  /** Whether the device waits for the end of an interrupt: INTx is masked at each signal. @internal */
  protected get unmasks(): boolean {
    return this.index === PciIrq.intx;
  }

  /** Ends an interrupt: unmasks a vector that {@link unmasks} tells of. Must not throw. @internal */
  protected abstract handled(vector: number): void;

  /** Gives the device the eventfds of vectors `0 … count-1`; a vector without one is not to be signalled. @internal */
  protected abstract assign(count: number): Promise<void>;

  /** Takes all eventfds from the device, unless it has gone. @internal */
  protected abstract unassign(): Promise<void>;

  /**
   * Hands a change through as it is, for a client of a proxy, which keeps account of its vectors itself. It must not be mixed with
   * {@link enable}.
   *
   * @param eventFds one for each vector, or none to take theirs away; they stay the caller's
   * @internal
   */
  abstract pass(change: Readonly<IrqChange>, eventFds?: readonly EventFd[]): Promise<void>;

  /** Has the device act on vectors that the index has. @internal */
  protected abstract act(action: IrqAction, vectors: VectorRange | readonly boolean[]): Promise<void>;

  /** Gives the device an eventfd whose signal is the action; null takes it away. @internal */
  protected abstract bind(action: 'mask' | 'unmask', vector: number, eventFd: EventFd | null): Promise<void>;

  /** @internal */
  protected enabledVectors(): IrqVector[] {
    return [...this.#vectors.values()].filter((vector) => vector.enabled);
  }

  get #exclusive(): boolean {
    return this.index <= PciIrq.msix;
  }

  #checkEnable(count: number): void {
    if (!Number.isInteger(count) || count < 1 || count > this.count)
      throw outOfRange(`${count} vectors are to be enabled, and ${this.name} has ${this.count} vectors`);
    if ((this.flags & IrqInfoFlag.eventfd) === 0)
      throw new VfioUserError(
        'ERR_VFIO_USER_UNSUPPORTED',
        `${this.name} cannot signal eventfds; look at a register of the device for what has happened instead`,
      );
  }

  async #enable(targets: readonly (IrqTarget | 'polled')[], spin: number): Promise<void> {
    try {
      // The vectors have their eventfds before the device is told, so that a device that is closed meanwhile closes them.
      targets.forEach((target, vector) => {
        if (target === null) return;
        const isHandler = typeof target === 'function';
        const own = isHandler || target === 'polled';
        this.vector(vector).attach(own ? EventFd.create() : target, own, isHandler ? target : null, spin);
      });
      await this.assign(targets.length);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  async #act(action: IrqAction, selection: VectorSelection): Promise<void> {
    if (selection.length !== undefined) {
      this.#checkRange(0, selection.length);
      await this.act(action, selection);
      return;
    }
    const { start = 0, count = this.count - start } = selection;
    this.#checkRange(start, count);
    await this.act(action, { start, count });
  }

  #checkRange(start: number, count: number): void {
    const valid = Number.isInteger(start) && Number.isInteger(count) && start >= 0 && count >= 1;
    if (!valid || start + count > this.count)
      throw outOfRange(
        `${count} vectors from ${start} on are not among those of ${this.name}, which has ${this.count}`,
      );
  }
}
