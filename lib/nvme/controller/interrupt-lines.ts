// SPDX-License-Identifier: MIT
import type { ConfigEffect } from '../../pci/config-space';
import type { Interrupts } from './queue-set';

/** Vectors that INTMS and INTMC have bits for. */
const MASKABLE = 32;

/** What interrupts are, as far as configuration space tells. */
type Kind = 'intx' | 'msi' | 'msix';

/**
 * The interrupts of the completion queues on their way to the host. With MSI and MSI-X they are messages; a pin is a level, which is
 * high until the host has taken what is in the queues (NVMe over PCIe transport 1.0, 3.5). INTMS and INTMC mask the pin and MSI.
 */
export class InterruptLines implements Interrupts {
  readonly #set: (high: boolean, vector: number) => boolean;
  readonly #raised = new Set<number>();
  #enabled: { msi: boolean; msix: boolean } = { msi: false, msix: false };
  #mask = 0;

  /** @param set see `Client.setInterrupt` */
  constructor(set: (high: boolean, vector: number) => boolean) {
    this.#set = set;
  }

  /** Whether the pin is high. */
  get high(): boolean {
    return this.#raised.size > 0;
  }

  trigger(vector: number): boolean {
    if (this.#masks(vector)) return false;
    if (this.#kind === 'intx') {
      this.#raised.add(vector);
      return this.#set(true, vector);
    }
    const sent = this.#set(true, vector);
    // A message leaves no level behind that would be there when the host goes back to the pin.
    this.#set(false, vector);
    return sent;
  }

  /** Lowers the pin for the vectors whose queues have nothing for the host any more. */
  settle(unread: (vector: number) => boolean): void {
    for (const vector of this.#raised) {
      if (!unread(vector)) this.#lower(vector);
    }
  }

  /** INTMS or INTMC was written. Vectors that are not masked any more are to be triggered again. */
  mask(bits: number): void {
    this.#mask = bits;
    for (const vector of this.#raised) if (this.#masks(vector)) this.#lower(vector);
  }

  /** Follows what the host enables. Returns whether it has changed what interrupts are, so that they are to be triggered again. */
  configured(effect: ConfigEffect): boolean {
    if (effect.kind !== 'msi' && effect.kind !== 'msix') return false;
    const before = this.#kind;
    this.#enabled = { ...this.#enabled, [effect.kind]: effect.enabled };
    if (this.#kind === before) return false;
    for (const vector of this.#raised) this.#lower(vector);
    return true;
  }

  /** The function was reset: no interrupt is under way, and none is enabled. */
  reset(): void {
    for (const vector of this.#raised) this.#lower(vector);
    this.#enabled = { msi: false, msix: false };
    this.#mask = 0;
  }

  get #kind(): Kind {
    if (this.#enabled.msix) return 'msix';
    return this.#enabled.msi ? 'msi' : 'intx';
  }

  #masks(vector: number): boolean {
    return (
      this.#mask !== 0 && this.#kind !== 'msix' && vector < MASKABLE && ((this.#mask >>> vector) & 1) !== 0
    );
  }

  #lower(vector: number): void {
    this.#raised.delete(vector);
    this.#set(false, vector);
  }
}
