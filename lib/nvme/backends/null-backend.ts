// SPDX-License-Identifier: MIT
import { BackendResult, type SynchronousBackend } from './backend';

/**
 * A backend without data, to measure everything but the data: writes are forgotten, and reads leave the client's
 * buffer as it is.
 */
export class NullBackend implements SynchronousBackend {
  readonly kind = 'null';
  readonly volatileCache = false;
  #size: number;

  /** @param size bytes of the namespace */
  constructor(size: number) {
    this.#size = size;
  }

  get size(): number {
    return this.#size;
  }

  read(): BackendResult {
    return BackendResult.success;
  }

  write(): BackendResult {
    return BackendResult.success;
  }

  zero(): BackendResult {
    return BackendResult.success;
  }

  deallocate(): BackendResult {
    return BackendResult.success;
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  resize(size = this.#size): Promise<void> {
    this.#size = size;
    return Promise.resolve();
  }

  close(): void {
    // Nothing is held.
  }
}
