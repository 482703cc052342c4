// SPDX-License-Identifier: MIT
import { promised } from '../async';
import { VfioUserError } from '../errors';
import type { IrqExclusion } from '../irq/exclusion';
import { IrqIndex, type IrqDescription } from '../irq/irq-index';
import type { VectorRange } from '../irq/targets';
import type { EventFd, VfioDeviceFile } from '../native';
import { IrqSetFlag, type IrqAction, type IrqChange } from '../protocol';

const ACTIONS: Readonly<Record<IrqAction, number>> = {
  mask: IrqSetFlag.actionMask,
  unmask: IrqSetFlag.actionUnmask,
  trigger: IrqSetFlag.actionTrigger,
};
/** In the place of an eventfd: the vector signals none. */
const NO_EVENTFD = -1;

/** An interrupt index of a device of the kernel's VFIO: INTx, MSI, MSI-X, ERR or REQ. */
export class KernelIrq extends IrqIndex {
  readonly #file: VfioDeviceFile;

  /** @param exclusion shared by the interrupt indexes of a device. @internal */
  constructor(file: VfioDeviceFile, description: IrqDescription, exclusion: IrqExclusion) {
    super(file.name, description, exclusion);
    this.#file = file;
  }

  /**
   * In one call: the kernel allocates as many vectors as the first names, and cannot add to them before Linux 6.2.
   *
   * @internal
   */
  protected override assign(count: number): Promise<void> {
    return promised(() => {
      const fds = Array.from({ length: count }, (_, vector) => this.vector(vector).fd ?? NO_EVENTFD);
      this.#set(IrqSetFlag.dataEventfd | IrqSetFlag.actionTrigger, { start: 0, count }, fds);
    });
  }

  /** @internal */
  protected override unassign(): Promise<void> {
    return promised(() => {
      if (!this.#file.closed) this.#disable();
    });
  }

  /** @internal */
  protected override act(action: IrqAction, vectors: VectorRange | readonly boolean[]): Promise<void> {
    return promised(() => {
      const flags = IrqSetFlag.dataNone | ACTIONS[action];
      if ('start' in vectors) this.#set(flags, vectors, null);
      else
        for (const [start, chosen] of vectors.entries())
          if (chosen) this.#set(flags, { start, count: 1 }, null);
    });
  }

  /** @internal */
  protected override bind(action: 'mask' | 'unmask', vector: number, eventFd: EventFd | null): Promise<void> {
    return promised(() => {
      const flags = IrqSetFlag.dataEventfd | ACTIONS[action];
      this.#set(flags, { start: vector, count: 1 }, [eventFd?.fd ?? NO_EVENTFD]);
    });
  }

  /** @internal */
  override pass(change: Readonly<IrqChange>, eventFds: readonly EventFd[] = []): Promise<void> {
    return promised(() => {
      const { data, action, start, count, booleans } = change;
      if (data === 'bool') {
        const flags = IrqSetFlag.dataNone | ACTIONS[action];
        for (const [index, chosen] of booleans?.entries() ?? [])
          if (chosen !== 0) this.#set(flags, { start: start + index, count: 1 }, null);
        return;
      }
      if (count === 0) {
        this.#disable();
        return;
      }
      const form = data === 'eventfd' ? IrqSetFlag.dataEventfd : IrqSetFlag.dataNone;
      const fds = Array.from({ length: count }, (_, index) => eventFds[index]?.fd ?? NO_EVENTFD);
      this.#set(form | ACTIONS[action], { start, count }, data === 'eventfd' ? fds : null);
    });
  }

  /** @internal */
  protected override handled(vector: number): void {
    if (this.#file.closed) return;
    try {
      this.#set(IrqSetFlag.dataNone | IrqSetFlag.actionUnmask, { start: vector, count: 1 }, null);
    } catch (error) {
      process.emitWarning(`${this.name} stays masked: ${String(error)}`, 'VfioUserWarning');
    }
  }

  /** The kernel refuses to disable what is not enabled (`vfio_pci_set_msi_trigger` and its like): then it is so already. */
  #disable(): void {
    try {
      this.#set(IrqSetFlag.dataNone | IrqSetFlag.actionTrigger, { start: 0, count: 0 }, null);
    } catch (error) {
      if (!(error instanceof VfioUserError) || error.errnoName !== 'EINVAL') throw error;
    }
  }

  #set(flags: number, { start, count }: VectorRange, eventfds: readonly number[] | null): void {
    this.#file.setIrqs(this.index, flags, start, count, eventfds);
  }
}
