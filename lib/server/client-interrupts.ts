// SPDX-License-Identifier: MIT
import { EventFd, closeFd } from '../native';
import { PciIrq } from '../pci/device';
import type { IrqAction, SetIrqsRequest } from '../protocol';
import { CommandError, Errno, type FdList } from '../transport';
import type { Eventually } from './model-calls';
import { inSlices } from './time-slice';

/** An interrupt vector, as the client has set it. */
interface Vector {
  /** What the client set: the eventfd that we signal, and those with which it masks and unmasks. */
  readonly eventFds: Record<IrqAction, EventFd | null>;
  masked: boolean;
  /** Triggered while masked. */
  pending: boolean;
  /** Signals since the client last unmasked. */
  signals: number;
}

/** The interrupts of one client (vfio-user, VFIO_USER_DEVICE_SET_IRQS). Owns the eventfds that the client sends. */
export class ClientInterrupts {
  /** By interrupt index. */
  readonly #vectors: ReadonlyMap<number, readonly Vector[]>;
  readonly #maxDescriptor: number;
  #closed = false;

  /**
   * @param irqs number of vectors by interrupt index
   * @param maxDescriptor see `ProcessLimits`
   */
  constructor(irqs: ReadonlyMap<number, number>, maxDescriptor: number) {
    this.#maxDescriptor = maxDescriptor;
    this.#vectors = new Map(
      [...irqs].map(([index, count]) => [index, Array.from({ length: count }, newVector)]),
    );
  }

  /** Signals a vector; false when it has no eventfd or is masked. Never throws. */
  trigger(irqIndex: number, vector: number): boolean {
    const target = this.#vectors.get(irqIndex)?.[vector];
    return target !== undefined && !this.#closed && signal(target);
  }

  /** Whether a vector was triggered while it was masked, and has not been signalled since. */
  pending(irqIndex: number, vector: number): boolean {
    return this.#vectors.get(irqIndex)?.[vector]?.pending ?? false;
  }

  /**
   * Serves a DEVICE_SET_IRQS, which may be about tens of thousands of vectors. The next one has to wait for it.
   *
   * @throws CommandError EINVAL, or EMFILE when too many descriptors are open; nothing has changed then
   */
  set(request: Readonly<SetIrqsRequest>, fds: FdList): Eventually<void> {
    const { index, data, action, start, count, booleans } = request;
    const vectors = this.#vectors.get(index) ?? [];
    if (fds.length > 0 && data !== 'eventfd')
      throw new CommandError(Errno.EINVAL, `${fds.length} file descriptors, but data are not eventfds`);
    if (start >= vectors.length || start + count > vectors.length) {
      throw new CommandError(
        Errno.EINVAL,
        `vectors ${start} to ${start + count} of interrupt index ${index}, which has ${vectors.length}`,
      );
    }
    if (count === 0) {
      if (data !== 'none' || action !== 'trigger' || start !== 0)
        throw new CommandError(Errno.EINVAL, 'no vectors, but not the form that disables an interrupt index');
      return inSlices(vectors, disable);
    }
    const chosen = vectors.slice(start, start + count);
    if (data === 'eventfd') {
      this.#assign(chosen, action, fds, index === PciIrq.intx);
      return;
    }
    return inSlices(chosen, (vector, i) => {
      if (booleans?.[i] !== 0) act(vector, action, index === PciIrq.intx);
    });
  }

  /** Signals nothing any more, and closes all eventfds. Resolves when that is done. */
  async close(): Promise<void> {
    this.#closed = true;
    await inSlices([...this.#vectors.values()].flat(), disable);
  }

  #assign(vectors: readonly Vector[], action: IrqAction, fds: FdList, level: boolean): void {
    if (fds.length !== 0 && fds.length !== vectors.length) {
      throw new CommandError(Errno.EINVAL, `${fds.length} eventfds for ${vectors.length} vectors`);
    }
    const eventFds = fds.length === 0 ? [] : adopt(fds, this.#maxDescriptor);
    vectors.forEach((vector, i) => {
      vector.eventFds[action]?.close();
      const eventFd = eventFds[i] ?? null;
      vector.eventFds[action] = eventFd;
      if (action !== 'trigger') {
        eventFd?.watch(() => {
          act(vector, action, level);
        });
      } else if (eventFd === null) vector.pending = false;
    });
  }
}

function newVector(): Vector {
  return { eventFds: { trigger: null, mask: null, unmask: null }, masked: false, pending: false, signals: 0 };
}

function disable(vector: Vector): void {
  for (const action of ['trigger', 'mask', 'unmask'] as const) {
    vector.eventFds[action]?.close();
    vector.eventFds[action] = null;
  }
  vector.masked = false;
  vector.pending = false;
  vector.signals = 0;
}

/** @param level the interrupt is level-triggered, as INTx is */
function act(vector: Vector, action: IrqAction, level: boolean): void {
  if (action === 'trigger') signal(vector);
  else if (action === 'mask') vector.masked = true;
  else {
    // The client unmasks INTx when the guest is done with it. A signal that came while the line was up was not seen as
    // another interrupt, so it is given again: once too often is harmless, once too little hangs the guest.
    const again = vector.pending || (level && vector.signals > 1);
    vector.masked = false;
    vector.pending = false;
    vector.signals = 0;
    if (again) signal(vector);
  }
}

function signal(vector: Vector): boolean {
  const eventFd = vector.eventFds.trigger;
  if (eventFd === null) return false;
  if (vector.masked) {
    vector.pending = true;
    return false;
  }
  try {
    eventFd.signal();
  } catch {
    return false;
  }
  vector.signals++;
  return true;
}

/** Takes all descriptors, or none of them when there are too many or one is no eventfd. */
function adopt(fds: FdList, maxDescriptor: number): EventFd[] {
  const eventFds: EventFd[] = [];
  for (let i = 0; i < fds.length; i++) {
    const fd = fds.take(i);
    if (fd === undefined) continue;
    try {
      if (fd >= maxDescriptor)
        throw new CommandError(Errno.EMFILE, `${fd} descriptors are open, no more are kept for clients`);
      eventFds.push(EventFd.fromFd(fd));
    } catch (error) {
      closeFd(fd);
      for (const eventFd of eventFds) eventFd.close();
      if (error instanceof CommandError) throw error;
      throw new CommandError(Errno.EINVAL, `descriptor ${i} of ${fds.length} is no eventfd`);
    }
  }
  return eventFds;
}
