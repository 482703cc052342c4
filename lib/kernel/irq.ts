// SPDX-License-Identifier: MIT
import { promised } from '../async';
import { VfioUserError, outOfRange } from '../errors';
import type { IrqExclusion } from '../irq/exclusion';
import { spinOf, type IrqOptions } from '../irq/options';
import type { IrqTarget, VectorSelection } from '../irq/targets';
import { IrqVector } from '../irq/vector';
import { EventFd, type VfioDeviceFile } from '../native';
import { PciIrq, type DeviceIrq } from '../pci/device';
import { IrqInfoFlag, IrqSetFlag, type IrqAction, type IrqInfo } from '../protocol';

const ACTIONS: Readonly<Record<IrqAction, number>> = {
  mask: IrqSetFlag.actionMask,
  unmask: IrqSetFlag.actionUnmask,
  trigger: IrqSetFlag.actionTrigger,
};
/** In the place of an eventfd: the vector signals none. */
const NO_EVENTFD = -1;

/** An interrupt index of a device of the kernel's VFIO: INTx, MSI, MSI-X, ERR or REQ. */
export class KernelIrq implements DeviceIrq {
  readonly index: number;
  readonly count: number;
  /** `VFIO_IRQ_INFO_*` bits as the kernel gave them. */
  readonly flags: number;
  readonly #file: VfioDeviceFile;
  readonly #exclusion: IrqExclusion;
  readonly #vectors = new Map<number, IrqVector>();

  /** @param exclusion shared by the interrupt indexes of a device. @internal */
  constructor(file: VfioDeviceFile, { index, count, flags }: IrqInfo, exclusion: IrqExclusion) {
    this.#file = file;
    this.#exclusion = exclusion;
    this.index = index;
    this.count = count;
    this.flags = flags;
  }

  /** Number of vectors enabled now. */
  get enabled(): number {
    return [...this.#vectors.values()].filter((vector) => vector.enabled).length;
  }

  /**
   * A vector, to wait for, to poll, to mask or to trigger. Always the same object for the same number.
   *
   * @throws RangeError when the index has no such vector
   */
  vector(vector: number): IrqVector {
    this.#checkRange(vector, 1);
    let entry = this.#vectors.get(vector);
    if (entry === undefined) {
      entry = new IrqVector(
        {
          endpoint: this.#file.name,
          index: this.index,
          act: (action, start) => this.#act(action, { start, count: 1 }),
          bind: (action, start, eventFd) => this.#bind(action, start, eventFd),
          unmasks: () => this.index === PciIrq.intx,
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
   *   `vector(n).signals()`. The kernel masks INTx at each signal; it is unmasked when a function or loop is done with
   *   an interrupt, and for an eventfd of the caller's by the caller
   * @param options how the event loop waits for signals, of all these vectors
   * @throws RangeError for more vectors than there are, or none, or a negative `spin`; TypeError for a mode that does not
   *   exist, or `spin` in another than `adaptive`; VfioUserError ERR_VFIO_USER_UNSUPPORTED when the index
   *   cannot signal eventfds, SYSTEM when the kernel refuses. Nothing is enabled then
   */
  enable(targets: number | readonly IrqTarget[], options: IrqOptions = {}): Promise<void> {
    return this.#exclusion.run(async () => {
      const spin = spinOf(options);
      const list = typeof targets === 'number' ? targets : [...targets];
      this.#checkEnable(typeof list === 'number' ? list : list.length);
      const { active } = this.#exclusion;
      if (this.#exclusive && active !== null && active !== this) await active.yieldTo();
      this.#disable();
      if (this.#exclusive) this.#exclusion.active = this;
      this.#enable(
        typeof list === 'number' ? Array.from({ length: list }, () => 'polled' as const) : list,
        spin,
      );
    });
  }

  /** Disables all vectors of the index. Loops over `signals()` end. */
  disable(): Promise<void> {
    return this.#exclusion.run(() => this.yieldTo());
  }

  /** Signals vectors as the device would, which tests the way of a signal. Default: all vectors. */
  trigger(selection: VectorSelection = {}): Promise<void> {
    return this.#act('trigger', selection);
  }

  /**
   * Masks vectors; what the device signals meanwhile becomes pending. Default: all vectors.
   *
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM when the kernel cannot mask them: of MSI and MSI-X it cannot
   */
  mask(selection: VectorSelection = {}): Promise<void> {
    return this.#act('mask', selection);
  }

  /** Unmasks vectors, as {@link mask} masks them. Default: all vectors. */
  unmask(selection: VectorSelection = {}): Promise<void> {
    return this.#act('unmask', selection);
  }

  /** Makes room for another of INTx, MSI and MSI-X. @internal */
  yieldTo(): Promise<void> {
    return promised(() => {
      this.#disable();
    });
  }

  /** Closes the eventfds without telling the kernel, which forgets them with the device. @internal */
  release(): void {
    for (const vector of this.#vectors.values()) vector.detach();
    if (this.#exclusion.active === this) this.#exclusion.active = null;
  }

  /** Ends the streams of all vectors with an error: no signal will come any more. @internal */
  deviceGone(error: VfioUserError): void {
    for (const vector of this.#vectors.values()) vector.fail(error);
  }

  get #name(): string {
    return `interrupt index ${this.index} of ${this.#file.name}`;
  }

  get #exclusive(): boolean {
    return this.index <= PciIrq.msix;
  }

  #checkEnable(count: number): void {
    if (!Number.isInteger(count) || count < 1 || count > this.count)
      throw outOfRange(`${count} vectors are to be enabled, and ${this.#name} has ${this.count} vectors`);
    if ((this.flags & IrqInfoFlag.eventfd) === 0)
      throw new VfioUserError('ERR_VFIO_USER_UNSUPPORTED', `${this.#name} cannot signal eventfds`);
  }

  #enable(targets: readonly (IrqTarget | 'polled')[], spin: number): void {
    try {
      const fds = targets.map((target, index) => {
        if (target === null) return NO_EVENTFD;
        const isHandler = typeof target === 'function';
        const own = isHandler || target === 'polled';
        const vector = this.vector(index);
        vector.attach(own ? EventFd.create() : target, own, isHandler ? target : null, spin);
        return vector.fd ?? NO_EVENTFD;
      });
      // In one call: the kernel allocates as many vectors as the first names, and cannot add to them before Linux 6.2.
      this.#set(IrqSetFlag.dataEventfd | IrqSetFlag.actionTrigger, 0, fds.length, fds);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  #disable(): void {
    if (this.enabled === 0) return;
    this.release();
    if (!this.#file.closed) this.#set(IrqSetFlag.dataNone | IrqSetFlag.actionTrigger, 0, 0, null);
  }

  #act(action: IrqAction, selection: VectorSelection): Promise<void> {
    return promised(() => {
      const flags = IrqSetFlag.dataNone | ACTIONS[action];
      if (selection.length !== undefined) {
        this.#checkRange(0, selection.length);
        for (const [vector, chosen] of selection.entries()) if (chosen) this.#set(flags, vector, 1, null);
        return;
      }
      const { start = 0, count = this.count - start } = selection;
      this.#checkRange(start, count);
      this.#set(flags, start, count, null);
    });
  }

  #bind(action: 'mask' | 'unmask', start: number, eventFd: EventFd | null): Promise<void> {
    return promised(() => {
      this.#set(IrqSetFlag.dataEventfd | ACTIONS[action], start, 1, [eventFd?.fd ?? NO_EVENTFD]);
    });
  }

  #handled(vector: number): void {
    if (this.#file.closed) return;
    try {
      this.#set(IrqSetFlag.dataNone | IrqSetFlag.actionUnmask, vector, 1, null);
    } catch (error) {
      process.emitWarning(`${this.#name} stays masked: ${String(error)}`, 'VfioUserWarning');
    }
  }

  #set(flags: number, start: number, count: number, eventfds: readonly number[] | null): void {
    this.#file.setIrqs(this.index, flags, start, count, eventfds);
  }

  #checkRange(start: number, count: number): void {
    const valid = Number.isInteger(start) && Number.isInteger(count) && start >= 0 && count >= 1;
    if (!valid || start + count > this.count)
      throw outOfRange(
        `${count} vectors from ${start} on are not among those of ${this.#name}, which has ${this.count}`,
      );
  }
}
