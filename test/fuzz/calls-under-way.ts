// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../lib/errors';
import { Violation, type Tally } from './role';

/** Calls of what is fuzzed that have not ended. Each may fail, but only in a way that is documented. */
export class CallsUnderWay {
  readonly #tally: Tally;
  readonly #labels = new Set<string>();
  #count = 0;
  #fault: Violation | null = null;

  constructor(tally: Tally) {
    this.#tally = tally;
  }

  get none(): boolean {
    return this.#labels.size === 0;
  }

  /** What they are, for messages. */
  get names(): string {
    return [...this.#labels].join(', ');
  }

  /** Whether something has happened that must not. */
  get failed(): boolean {
    return this.#fault !== null;
  }

  /** @throws Violation what has happened first that must not */
  assertSound(): void {
    if (this.#fault !== null) throw this.#fault;
  }

  start(name: string, call: () => unknown): void {
    const label = `${name} (call ${++this.#count})`;
    this.#labels.add(label);
    void (async () => {
      try {
        await call();
        this.#tally.see(`${name} ok`);
      } catch (error) {
        this.#check(name, error);
      } finally {
        this.#labels.delete(label);
      }
    })();
  }

  #check(name: string, error: unknown): void {
    if (error instanceof Violation) {
      this.#fault ??= error;
      return;
    }
    if (error instanceof VfioUserError && error.code === 'ERR_VFIO_USER_REMOTE') {
      this.#tally.see(`remote ${error.errnoName ?? 'error'}`);
      return;
    }
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (typeof code === 'string' && code.startsWith('ERR_')) {
      this.#tally.see(`fails with ${code}`);
      return;
    }
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
    this.#fault ??= new Violation(`${name} fails with what is not documented: ${text}`);
  }
}
