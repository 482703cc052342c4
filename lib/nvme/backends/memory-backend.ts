// SPDX-License-Identifier: MIT
import { pageSize } from '../../native';
import { BackendResult, type Deallocation, type SynchronousBackend } from './backend';
import { ChunkedMemory } from './chunked-memory';

/** A backend in memory, which is zeros at first and gone when closed. Pages are taken from the system when touched. */
export class MemoryBackend implements SynchronousBackend {
  readonly kind = 'memory';
  readonly volatileCache = false;
  /** Pages go back to the system. */
  readonly deallocation: Deallocation = { unit: pageSize, readsZero: true };
  #size: number;
  readonly #memory: ChunkedMemory;

  /** @param size bytes of the namespace */
  constructor(size: number) {
    this.#size = size;
    this.#memory = new ChunkedMemory(size);
  }

  get size(): number {
    return this.#size;
  }

  read(offset: number, target: Uint8Array, at: number, length: number): BackendResult {
    try {
      this.#memory.read(offset, target, at, length);
    } catch {
      return BackendResult.mediumError; // The system has no memory for it, not even for zeros.
    }
    return BackendResult.success;
  }

  write(offset: number, source: Uint8Array, at: number, length: number): BackendResult {
    try {
      this.#memory.write(offset, source, at, length);
    } catch {
      return BackendResult.outOfSpace; // The system has no memory for it.
    }
    return BackendResult.success;
  }

  zero(offset: number, length: number, deallocate: boolean): BackendResult {
    if (deallocate) this.#memory.discard(offset, length);
    else this.#memory.zero(offset, length);
    return BackendResult.success;
  }

  deallocate(offset: number, length: number): BackendResult {
    this.#memory.discard(offset, length);
    return BackendResult.success;
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  /** Memory that is cut off is given back: it is zeros when the backend grows again. */
  resize(size = this.#size): Promise<void> {
    return new Promise((resolve) => {
      this.#memory.resize(size);
      this.#size = size;
      resolve();
    });
  }

  close(): void {
    this.#memory.close();
  }
}
