// SPDX-License-Identifier: MIT
import { Mutex } from '../async';
import { EventFd } from '../native';
import { PciIrq } from '../pci/device';
import type { IrqChange, SetIrqsRequest } from '../protocol';
import { CommandError, Errno } from '../server';
import type { ProxiedDevice, ProxiedIrq } from './device';
import type { Steps } from './steps';

const DISABLE: IrqChange = { data: 'none', action: 'trigger', start: 0, count: 0 };

/**
 * The interrupts of a device, which signals the client's eventfds by itself: the proxy has no part in a signal unless somebody
 * watches. REQ is the exception. The device is asked back from who has opened it, so the proxy listens to it, and tells the client.
 */
export class ProxiedInterrupts {
  /** By index. */
  readonly irqs: ReadonlyMap<number, ProxiedIrq>;
  readonly #steps: Steps;
  /** The device's eventfds that are relayed, by index and vector. */
  readonly #relays = new Map<number, Map<number, Relay>>();
  /** Indexes that the device has eventfds for. */
  readonly #given = new Set<number>();
  readonly #mutex = new Mutex();
  #request: EventFd | null = null;

  private constructor(irqs: ReadonlyMap<number, ProxiedIrq>, steps: Steps) {
    this.irqs = irqs;
    this.#steps = steps;
  }

  /** @param onRequest called when the device is asked back */
  static async of(device: ProxiedDevice, steps: Steps, onRequest: () => void): Promise<ProxiedInterrupts> {
    const { irqCount } = await device.info();
    const irqs = new Map<number, ProxiedIrq>();
    for (let index = 0; index < irqCount; index++) irqs.set(index, await device.irq(index));
    const request = irqs.get(PciIrq.req);
    if (request !== undefined && request.count > 0) await request.enable([onRequest]);
    return new ProxiedInterrupts(irqs, steps);
  }

  /**
   * Does what a client asks for.
   *
   * @param eventFds taken over
   * @throws CommandError when the device refuses
   */
  set(request: Readonly<SetIrqsRequest>, eventFds: readonly EventFd[]): Promise<void> {
    return this.#mutex.run(() =>
      this.#steps.act({ kind: 'set-irqs', request, eventFds: eventFds.length }, async () => {
        const { index, ...change } = request;
        if (index === PciIrq.req) this.#setRequest(change, eventFds);
        else await this.#pass(index, change, eventFds);
      }),
    );
  }

  /** Tells the client that the device is asked back; false when it has set no eventfd for that. */
  signalRequest(): boolean {
    if (this.#request === null) return false;
    this.#steps.observer?.({ kind: 'signal', index: PciIrq.req, vector: 0, signals: 1 }, null);
    signal(this.#request, 1);
    return true;
  }

  /** The client is gone: takes all that it has given from the device. */
  release(): Promise<void> {
    return this.#mutex.run(async () => {
      this.#request?.close();
      this.#request = null;
      const given = [...this.#given];
      this.#given.clear();
      try {
        for (const index of given) await this.irqs.get(index)?.pass(DISABLE);
      } finally {
        for (const index of given) this.#dropRelays(index);
      }
    });
  }

  async #pass(index: number, change: IrqChange, eventFds: readonly EventFd[]): Promise<void> {
    const { action, data, start, count } = change;
    if (eventFds.length > 0) this.#given.add(index);
    const relays: Relay[] = [];
    const close = (closable: { close(): void }): void => {
      closable.close();
    };
    try {
      if (this.#steps.observer !== null && action === 'trigger')
        for (const [i, eventFd] of eventFds.entries()) relays.push(this.#relay(index, start + i, eventFd));
      const passed = relays.length > 0 ? relays.map(({ own }) => own) : eventFds;
      await this.irqs.get(index)?.pass(change, passed);
    } catch (error) {
      relays.forEach(close);
      eventFds.forEach(close);
      throw error;
    }
    // The device has descriptors of its own now.
    if (relays.length === 0) eventFds.forEach(close);
    if (action !== 'trigger') return;
    if (count === 0) this.#dropRelays(index);
    else if (data === 'eventfd') this.#keepRelays(index, start, count, relays);
  }

  #relay(index: number, vector: number, target: EventFd): Relay {
    return new Relay(target, (signals) => {
      this.#steps.observer?.({ kind: 'signal', index, vector, signals }, null);
    });
  }

  #keepRelays(index: number, start: number, count: number, relays: readonly Relay[]): void {
    const kept = this.#relays.get(index) ?? new Map<number, Relay>();
    for (let i = 0; i < count; i++) {
      kept.get(start + i)?.close();
      kept.delete(start + i);
      const relay = relays[i];
      if (relay !== undefined) kept.set(start + i, relay);
    }
    this.#relays.set(index, kept);
  }

  #dropRelays(index: number): void {
    for (const relay of this.#relays.get(index)?.values() ?? []) relay.close();
    this.#relays.delete(index);
  }

  /** As the kernel does with REQ, which cannot be masked (`vfio_pci_set_req_trigger` of `drivers/vfio/pci/vfio_pci_intrs.c`). */
  #setRequest({ data, action, count, booleans }: IrqChange, eventFds: readonly EventFd[]): void {
    if (action !== 'trigger') {
      for (const eventFd of eventFds) eventFd.close();
      throw new CommandError(Errno.EINVAL, 'REQ can be neither masked nor unmasked');
    }
    if (count > 0 && data !== 'eventfd') {
      if (booleans?.[0] !== 0 && this.#request !== null) signal(this.#request, 1);
      return;
    }
    this.#request?.close();
    this.#request = eventFds[0] ?? null;
  }
}

/** Takes the signals of the device, and gives them to the client. */
class Relay {
  /** What the device signals. */
  readonly own = EventFd.create();
  readonly #target: EventFd;

  /**
   * @param target taken over
   * @param tell told of signals
   */
  constructor(target: EventFd, tell: (signals: number) => void) {
    this.#target = target;
    this.own.watch((signals) => {
      tell(signals);
      signal(target, signals);
    });
  }

  close(): void {
    this.own.close();
    this.#target.close();
  }
}

/** Signals an eventfd of the client's, which may have filled its counter. */
function signal(eventFd: EventFd, signals: number): void {
  try {
    eventFd.signal(signals);
  } catch {
    // It is signalled already.
  }
}
