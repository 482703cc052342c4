// SPDX-License-Identifier: MIT
import type { EventFd } from '../native';
import type { IrqAction } from '../protocol';

/** An interrupt vector, as the client has set it with DEVICE_SET_IRQS. Owns its eventfds. */
export abstract class IrqVector {
  protected masked = false;
  /** The eventfd that we signal, and those with which the client masks and unmasks. */
  readonly #eventFds: Record<IrqAction, EventFd | null> = { trigger: null, mask: null, unmask: null };

  /** Whether the client has set an eventfd to be signalled. */
  get enabled(): boolean {
    return this.#eventFds.trigger !== null;
  }

  /** Takes an eventfd, or takes one away. */
  assign(action: IrqAction, eventFd: EventFd | null): void {
    this.#eventFds[action]?.close();
    this.#eventFds[action] = eventFd;
    if (action === 'trigger') this.assigned();
    else {
      eventFd?.watch(() => {
        this.act(action);
      });
    }
  }

  /** Does what the client asks for. */
  abstract act(action: IrqAction): void;

  /** Puts everything back to how it was before the client set anything. */
  disable(): void {
    this.masked = false;
    for (const action of ['trigger', 'mask', 'unmask'] as const) {
      this.#eventFds[action]?.close();
      this.#eventFds[action] = null;
    }
    this.assigned();
  }

  /** The eventfd that we signal has changed. */
  protected abstract assigned(): void;

  /** Signals the client, if it has set an eventfd. Never throws. */
  protected signal(): boolean {
    try {
      this.#eventFds.trigger?.signal();
      return this.enabled;
    } catch {
      return false;
    }
  }
}

/** A vector whose signals are messages: MSI, MSI-X, ERR, REQ. One that comes while the client masks it is given later. */
export class MessageVector extends IrqVector {
  /** Signalled while it was masked, and not since. */
  pending = false;

  /** Signals the client; false when it has set no eventfd or masks the vector. Never throws. */
  send(): boolean {
    if (!this.enabled) return false;
    this.pending = this.masked;
    return !this.masked && this.signal();
  }

  act(action: IrqAction): void {
    if (action === 'trigger') this.send();
    else {
      this.masked = action === 'mask';
      if (!this.masked && this.pending) this.send();
    }
  }

  protected assigned(): void {
    if (!this.enabled) this.pending = false;
  }
}

/**
 * The INTx line of a function, signalled as the kernel's VFIO does (`drivers/vfio/pci/vfio_pci_intrs.c`): a signal masks the line
 * (automask), and the client unmasks it when it has served the interrupt. If the line is still high then, or again, the client
 * is signalled anew.
 */
export class IntxLine extends IrqVector {
  /** The client has been signalled, and has not unmasked since. */
  #automasked = false;
  #high = false;
  #disabled = false;

  /**
   * Sets the line.
   *
   * @param disabled Interrupt Disable of the command register
   * @returns whether the client has been signalled
   */
  drive(high: boolean, disabled: boolean): boolean {
    this.#high = high;
    this.#disabled = disabled;
    return this.#signalHigh();
  }

  act(action: IrqAction): void {
    // What the client triggers itself says nothing of the line.
    if (action === 'trigger') this.signal();
    else if (action === 'mask') this.masked = true;
    else {
      this.masked = false;
      this.#automasked = false;
      this.#signalHigh();
    }
  }

  protected assigned(): void {
    if (!this.enabled) this.#automasked = false;
    this.#signalHigh();
  }

  #signalHigh(): boolean {
    if (!this.#high || this.#disabled || this.masked || this.#automasked || !this.enabled) return false;
    this.#automasked = this.signal();
    return this.#automasked;
  }
}
