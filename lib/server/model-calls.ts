// SPDX-License-Identifier: MIT
import { CommandError, Errno } from '../transport';

/** What a device model may return: at once, or a promise. */
export type Eventually<T> = T | Promise<T>;

/**
 * Calls a function of the device model. What it throws comes back as a `CommandError`: its own, or EIO for any other
 * error, which has been reported then.
 */
export type ModelCall = <T>(call: () => Eventually<T>) => Eventually<T>;

/** `value` once `before` is done; at once when it is no promise, so that plain models stay synchronous. */
export function after<T>(before: Eventually<unknown>, value: () => Eventually<T>): Eventually<T> {
  return before instanceof Promise ? before.then(value) : value();
}

/** The one way to call a device model, whose errors must not reach the connection. */
export class ModelCalls {
  readonly #name: string;
  readonly #report: (error: unknown) => void;
  #pending = 0;
  #count = 0;
  #resting: (() => void)[] = [];

  /**
   * @param name of the device model, for messages
   * @param report told of errors that the client sees as EIO
   */
  constructor(name: string, report: (error: unknown) => void) {
    this.#name = name;
    this.#report = report;
  }

  /** See {@link ModelCall}. May be passed on without its object. */
  readonly call: ModelCall = (call) => {
    try {
      const result = call();
      if (!(result instanceof Promise)) return result;
      return result.catch((error: unknown) => {
        throw this.#refusal(error);
      });
    } catch (error) {
      throw this.#refusal(error);
    }
  };

  /** Calls a function of the model that returns nothing. One that is `async` against the contract is not waited for. */
  tell(call: () => Eventually<void>): void {
    const result = this.call(call);
    if (result instanceof Promise) result.catch(() => undefined);
  }

  /** How much work there was so far. */
  get count(): number {
    return this.#count;
  }

  /** Whether some of it is still being done. */
  get busy(): boolean {
    return this.#pending > 0;
  }

  /** Counts `work`, and until it settles as pending if it is a promise; returns it as it is. */
  track<T>(work: Eventually<T>): Eventually<T> {
    this.#count++;
    if (!(work instanceof Promise)) return work;
    this.#pending++;
    const done = (): void => {
      if (--this.#pending > 0) return;
      for (const rest of this.#resting.splice(0)) rest();
    };
    work.then(done, done);
    return work;
  }

  /** Resolves when nothing that is {@link track}ed is at work any more. */
  async rest(): Promise<void> {
    if (this.#pending > 0) await new Promise<void>((resolve) => this.#resting.push(resolve));
  }

  #refusal(error: unknown): CommandError {
    if (error instanceof CommandError) return error;
    this.#report(error);
    return new CommandError(Errno.EIO, `${this.#name} failed`);
  }
}
