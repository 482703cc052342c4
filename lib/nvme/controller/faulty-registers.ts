// SPDX-License-Identifier: MIT
import { type FaultEffects, type FaultPlan, type Strike, act, isControllerAction } from '../faults';
import { Delays } from './delays';

/** Accesses of registers that faults strike. */
export class FaultyRegisters {
  readonly #plan: FaultPlan;
  readonly #effects: FaultEffects;
  readonly #delays = new Delays();

  constructor(plan: FaultPlan, effects: FaultEffects) {
    this.#plan = plan;
    this.#effects = effects;
  }

  /**
   * Does an access, late and with what else faults have in store for it.
   * @param access does it as if there were no faults
   */
  access(kind: 'read' | 'write', offset: number, data: Uint8Array, access: () => void): void | Promise<void> {
    const strike = this.#plan.register(offset, data.length, kind);
    if (strike === null) {
      access();
      return;
    }
    if (strike.delay === 0) this.#strike(strike, kind, data, access);
    else return this.#later(strike, kind, data, access);
  }

  /** Accesses are late no longer: the function is reset, or the client is gone. */
  release(): void {
    this.#delays.cancel();
  }

  async #later(strike: Strike, kind: 'read' | 'write', data: Uint8Array, access: () => void): Promise<void> {
    await this.#delays.wait(strike.delay);
    this.#strike(strike, kind, data, access);
  }

  #strike({ action }: Strike, kind: 'read' | 'write', data: Uint8Array, access: () => void): void {
    if (isControllerAction(action)) act(action, this.#effects);
    if (action?.kind === 'remove' && kind === 'read') data.fill(0xff);
    if (action?.kind !== 'remove' && action?.kind !== 'disconnect') access();
  }
}
