// SPDX-License-Identifier: MIT
import { promised } from '../../async';
import { asError, outOfRange } from '../../errors';
import { type AsynchronousBackend, BackendResult, type Deallocation } from './backend';
import { BackendError, failureOf } from './backend-error';
import type { BackendImplementation } from './backend-implementation';
import { checkImplementation, checkedSize } from './check-implementation';

/** Options of {@link customBackend}. */
export interface CustomBackendOptions {
  /** Called with each error of a method. The host learns nothing but a status. Default: they are not told. */
  readonly onError?: (error: Error) => void;
  /**
   * Milliseconds after which an access that has not ended is given up, up to 2^31 - 1: the command ends with Namespace Not Ready, which
   * hosts try again. Default 10 000: a reset waits for it, and hosts wait 15 s for a reset.
   */
  readonly timeout?: number;
}

/** Bytes of zeros that are written at a time. */
const ZERO_BYTES = 2 ** 20;
const DEFAULT_TIMEOUT = 10_000;

/**
 * Makes a backend of a few methods of your own. Whatever they throw becomes the error of one command, and never ends the server.
 *
 * @param implementation its methods are called on it
 * @throws TypeError or RangeError for an implementation that lacks something, or has something of a wrong type
 */
export function customBackend(
  implementation: BackendImplementation,
  options: CustomBackendOptions = {},
): AsynchronousBackend {
  return new CustomBackend(checkImplementation(implementation), options);
}

class CustomBackend implements AsynchronousBackend {
  readonly asynchronous = true;
  readonly kind: string;
  readonly identity?: string;
  readonly blockSize: number;
  readonly volatileCache: boolean;
  readonly deallocation: Deallocation | undefined;
  #size: number;
  readonly #own: BackendImplementation;
  readonly #onError: (error: Error) => void;
  readonly #timeout: number;
  #closed = false;

  constructor(own: BackendImplementation, options: CustomBackendOptions) {
    const { kind = 'custom', size, identity, blockSize = 1 } = own;
    const { onError = () => undefined, timeout = DEFAULT_TIMEOUT } = options;
    if (!(timeout > 0 && timeout < 2 ** 31)) {
      throw outOfRange(`timeout is a number of milliseconds from 0 to 2147483647, got ${timeout}`);
    }
    this.#own = own;
    this.#onError = onError;
    this.#timeout = timeout;
    this.kind = kind;
    this.#size = size;
    if (identity !== undefined) this.identity = identity;
    this.blockSize = blockSize;
    this.volatileCache = own.volatileCache ?? own.flush !== undefined;
    this.deallocation =
      own.deallocate === undefined ? undefined : (own.deallocation ?? { unit: 4096, readsZero: false });
  }

  get size(): number {
    return this.#size;
  }

  /** Without a size that of the implementation is taken over. Rejects with a RangeError when it has less. */
  resize(size?: number): Promise<void> {
    return promised(() => {
      const present = checkedSize(this.#own.size);
      if (size !== undefined && size > present) {
        throw outOfRange(`The ${this.kind} backend has ${present} bytes, fewer than ${size}`);
      }
      this.#size = size ?? present;
    });
  }

  onSizeChange(listener: (size: number) => void): void {
    this.#own.onSizeChange?.(() => {
      try {
        if (!this.#closed) listener(checkedSize(this.#own.size));
      } catch (error) {
        this.#onError(asError(error));
      }
    });
  }

  read(offset: number, target: Uint8Array, at: number, length: number): Promise<BackendResult> {
    return this.#access('read', () => this.#own.read(offset, target.subarray(at, at + length)));
  }

  write(offset: number, source: Uint8Array, at: number, length: number): Promise<BackendResult> {
    return this.#access('write', () => this.#own.write(offset, source.subarray(at, at + length)));
  }

  async zero(offset: number, length: number, deallocate: boolean): Promise<BackendResult> {
    if (this.#own.zero !== undefined) {
      return this.#access('zero', () => this.#own.zero?.(offset, length, deallocate));
    }
    for (let done = 0; done < length; done += ZERO_BYTES) {
      const part = Math.min(ZERO_BYTES, length - done);
      const result = await this.write(offset + done, new Uint8Array(part), 0, part);
      if (result !== BackendResult.success) return result;
    }
    return BackendResult.success;
  }

  deallocate(offset: number, length: number): Promise<BackendResult> {
    return this.#access('deallocate', () => this.#own.deallocate?.(offset, length));
  }

  async flush(): Promise<void> {
    try {
      await this.#timed('flush', () => this.#own.flush?.());
    } catch (error) {
      this.#onError(asError(error));
      throw error;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    void this.#access('close', () => this.#own.close?.());
  }

  async #access(name: string, call: () => void | Promise<void>): Promise<BackendResult> {
    try {
      await this.#timed(name, call);
      return BackendResult.success;
    } catch (error) {
      this.#onError(asError(error));
      return failureOf(error);
    }
  }

  async #timed(name: string, call: () => void | Promise<void>): Promise<void> {
    const result = call();
    if (!isThenable(result)) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const text = `${name} of the ${this.kind} backend has not ended within ${this.#timeout} ms`;
        reject(new BackendError(BackendResult.unavailable, text));
      }, this.#timeout);
    });
    try {
      await Promise.race([result, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

function isThenable(value: unknown): value is PromiseLike<void> {
  return typeof value === 'object' && value !== null && 'then' in value;
}
