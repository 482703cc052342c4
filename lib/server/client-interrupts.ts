// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';
import type { EventFd } from '../native';
import { PciIrq } from '../pci/device';
import type { SetIrqsRequest } from '../protocol';
import type { FdList } from '../transport';
import type { FunctionState } from './function-state';
import { IntxLine, MessageVector, type IrqVector } from './irq-vector';
import { after, type Eventually } from './model-calls';
import type { ServedInterrupts } from './served-interrupts';
import { takeSetIrqs } from './set-irqs';
import { inSlices } from './time-slice';

/**
 * The interrupts of one client: what it has set (vfio-user, VFIO_USER_DEVICE_SET_IRQS), and which of INTx, MSI and MSI-X the
 * device's interrupts become. Owns the eventfds that the client sends.
 */
export class ClientInterrupts implements ServedInterrupts {
  readonly #function: FunctionState;
  readonly #maxDescriptor: number;
  readonly #line = new IntxLine();
  /** By interrupt index, for all but INTx. */
  readonly #messages: ReadonlyMap<number, readonly MessageVector[]>;
  /** What the device's interrupts become. */
  #kind: number = PciIrq.intx;
  /** MSI vectors that have eventfds. */
  #granted = 0;
  /** Vectors of the device that hold the line high. */
  readonly #high = new Set<number>();
  /** MSI vectors that are masked in configuration space, or held, and have been signalled since; one bit each. */
  #pending = 0;
  #closed = false;

  /** @param maxDescriptor see `ProcessLimits` */
  constructor(state: FunctionState, maxDescriptor: number) {
    this.#function = state;
    this.#maxDescriptor = maxDescriptor;
    this.#messages = new Map(
      [...state.irqs]
        .filter(([index]) => index !== PciIrq.intx)
        .map(([index, { count }]) => [index, Array.from({ length: count }, () => new MessageVector())]),
    );
    const msix = this.#messages.get(PciIrq.msix) ?? [];
    if (state.msix !== null) {
      state.msix.port = {
        send: (vector) => msix[vector]?.send() ?? false,
        pending: (vector) => msix[vector]?.pending ?? false,
      };
    }
    this.configured();
  }

  /** See `Client.setInterrupt`. */
  set(high: boolean, vector: number): boolean {
    if (this.#closed) return false;
    if (this.#function.hasPin) {
      if (high) this.#high.add(vector);
      else this.#high.delete(vector);
      if (this.#kind === PciIrq.intx) return this.#drive();
    }
    if (!high) return false;
    if (this.#kind === PciIrq.msix) return this.#function.msix?.trigger(vector) ?? false;
    return this.#kind === PciIrq.msi && this.#sendMsi(vector);
  }

  /** See `Client.trigger`. */
  trigger(irqIndex: number, vector: number): boolean {
    if (irqIndex === PciIrq.intx || irqIndex === PciIrq.msi || irqIndex === PciIrq.msix)
      throw invalidArgument('INTx, MSI and MSI-X are signalled with setInterrupt, not with trigger');
    return !this.#closed && (this.#messages.get(irqIndex)?.[vector]?.send() ?? false);
  }

  /** Configuration space has changed, or what the client has set: follows masks, and sends what they have held back. */
  configured(): void {
    const { config, msix, busMaster } = this.#function;
    const state = config.msix;
    this.#granted = this.#vectors(PciIrq.msi).filter(({ enabled }) => enabled).length;
    // As with the kernel's VFIO, a client enables an interrupt by its eventfds. One that drives the function itself may do so in
    // configuration space before.
    if (state?.enabled === true || this.#vectors(PciIrq.msix).some(({ enabled }) => enabled))
      this.#kind = PciIrq.msix;
    else this.#kind = config.msi?.enabled === true || this.#granted > 0 ? PciIrq.msi : PciIrq.intx;
    if (msix !== null) msix.held = !busMaster || state?.functionMask === true;
    this.#deliverMsi();
    this.#drive();
  }

  /** The device is reset: its interrupts are low, and none is pending. */
  reset(): void {
    this.#high.clear();
    this.#pending = 0;
    this.configured();
  }

  /**
   * Serves a DEVICE_SET_IRQS, which may be about tens of thousands of vectors. The next one has to wait for it.
   *
   * @throws CommandError EINVAL, or EMFILE when too many descriptors are open; nothing has changed then
   */
  setIrqs(request: Readonly<SetIrqsRequest>, fds: FdList): Eventually<void> {
    const { index, start, count } = request;
    const vectors = this.#vectors(index);
    const eventFds = takeSetIrqs(request, fds, vectors.length, this.#maxDescriptor);
    return after(this.#apply(vectors.slice(start, start + count), request, eventFds), () => {
      this.configured();
    });
  }

  /** Signals nothing any more, and closes all eventfds. Resolves when that is done. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#function.msix !== null) this.#function.msix.port = null;
    this.#line.disable();
    await inSlices([...this.#messages.values()].flat(), (vector) => {
      vector.disable();
    });
  }

  #vectors(index: number): readonly IrqVector[] {
    if (index !== PciIrq.intx) return this.#messages.get(index) ?? [];
    return this.#function.hasPin ? [this.#line] : [];
  }

  #apply(
    chosen: readonly IrqVector[],
    { index, data, action, booleans }: Readonly<SetIrqsRequest>,
    eventFds: readonly EventFd[],
  ): Eventually<void> {
    if (chosen.length === 0) {
      return inSlices(this.#vectors(index), (vector) => {
        vector.disable();
      });
    }
    if (data !== 'eventfd') {
      return inSlices(chosen, (vector, i) => {
        if (booleans?.[i] !== 0) vector.act(action);
      });
    }
    chosen.forEach((vector, i) => {
      vector.assign(action, eventFds[i] ?? null);
    });
    return undefined;
  }

  /** The line is low while messages are enabled (PCI Local Bus 3.0, 6.8.3.3); Interrupt Status tells of it even if it is disabled. */
  #drive(): boolean {
    if (!this.#function.hasPin) return false;
    const high = this.#kind === PciIrq.intx && this.#high.size > 0;
    this.#function.config.setInterruptStatus(high);
    return this.#line.drive(high, this.#function.interruptDisabled);
  }

  #sendMsi(vector: number): boolean {
    const vectors = this.#messages.get(PciIrq.msi) ?? [];
    const target = vector % (this.#granted > 0 ? this.#granted : vectors.length);
    if (!this.#msiHeld(target)) return vectors[target]?.send() ?? false;
    this.#pending |= 1 << target;
    this.#function.config.setMsiPending(target, true);
    return false;
  }

  #msiHeld(vector: number): boolean {
    const { config, busMaster } = this.#function;
    return !busMaster || (((config.msi?.mask ?? 0) >>> vector) & 1) !== 0;
  }

  #deliverMsi(): void {
    for (let vector = 0; vector < 32 && this.#pending !== 0; vector++) {
      if (((this.#pending >>> vector) & 1) === 0 || this.#msiHeld(vector)) continue;
      this.#pending &= ~(1 << vector);
      this.#function.config.setMsiPending(vector, false);
      this.#sendMsi(vector);
    }
  }
}
