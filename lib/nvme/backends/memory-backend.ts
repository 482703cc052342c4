// SPDX-License-Identifier: MIT
import { ftruncateSync } from 'node:fs';
import { closeFd, createSharedMemory, pageSize } from '../../native';
import type { BackendResult, Deallocation, SynchronousBackend } from './backend';
import { MappedStorage } from './mapped-storage';

/** A backend in memory, which is zeros at first and gone when closed. Pages are taken from the system when touched. */
export class MemoryBackend implements SynchronousBackend {
  readonly kind = 'memory';
  readonly volatileCache = false;
  /** Pages go back to the system. */
  readonly deallocation: Deallocation = { unit: pageSize, readsZero: true };
  #size: number;
  readonly #fd: number;
  readonly #storage: MappedStorage;
  #closed = false;

  /**
   * @param size bytes of the namespace
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`
   */
  constructor(size: number) {
    this.#size = size;
    // Not sealed, since its size may change. Nobody else has the descriptor.
    this.#fd = createSharedMemory(size, { name: 'nvme-namespace', sealed: false });
    this.#storage = new MappedStorage(this.#fd, size);
  }

  get size(): number {
    return this.#size;
  }

  read(offset: number, target: Uint8Array, at: number, length: number): BackendResult {
    return this.#storage.read(offset, target, at, length);
  }

  write(offset: number, source: Uint8Array, at: number, length: number): BackendResult {
    return this.#storage.write(offset, source, at, length);
  }

  zero(offset: number, length: number, deallocate: boolean): BackendResult {
    return deallocate ? this.#storage.deallocate(offset, length) : this.#storage.zero(offset, length);
  }

  deallocate(offset: number, length: number): BackendResult {
    return this.#storage.deallocate(offset, length);
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  /** Memory that is cut off is given back: it is zeros when the backend grows again. */
  resize(size = this.#size): Promise<void> {
    return new Promise((resolve) => {
      this.#storage.resize(size, () => {
        ftruncateSync(this.#fd, size);
      });
      this.#size = size;
      resolve();
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#storage.close();
    closeFd(this.#fd);
  }
}
