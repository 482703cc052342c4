// SPDX-License-Identifier: MIT
import { asError } from '../../errors';
import type { Backend } from '../backends';
import type { BlockSize } from './format';
import type { Namespace } from './namespace';
import type { NamespaceStore, StoredNamespace } from './namespace-store';
import { Outcome } from './outcome';

/** The namespaces that hosts have made of a store, and what is left of its capacity. */
export class CreatedNamespaces {
  readonly #store: NamespaceStore | null;
  readonly #warn: (problem: string) => void;
  /** Those included that are leaving. */
  readonly #namespaces = new Set<Namespace>();
  /** Bytes of namespaces that are being made. */
  #reserved = 0;
  #closed = false;

  /** @param store null when hosts cannot make any */
  constructor(store: NamespaceStore | null, warn: (problem: string) => void) {
    this.#store = store;
    this.#warn = warn;
  }

  /** Whether hosts can make and delete namespaces. */
  get possible(): boolean {
    return this.#store !== null;
  }

  /** Bytes of all namespaces together that may be made. */
  get capacity(): number {
    return this.#store?.capacity ?? 0;
  }

  /** Bytes that are left. */
  get unallocated(): number {
    let left = this.capacity - this.#reserved;
    for (const { backend } of this.#namespaces) left -= backend.size;
    return Math.max(0, left);
  }

  /** Namespaces that were made before. */
  get kept(): readonly StoredNamespace[] {
    return this.#store?.namespaces ?? [];
  }

  has(namespace: Namespace): boolean {
    return this.#namespaces.has(namespace);
  }

  /** Takes in a namespace of the store. */
  add(namespace: Namespace): void {
    this.#namespaces.add(namespace);
  }

  /**
   * Makes a namespace.
   *
   * @param size bytes, no more than is left
   * @param allocate gives it an id
   * @param remove takes it out again, and gives its storage back
   * @returns the namespace, or an {@link Outcome}
   */
  async make(
    size: number,
    allocate: (backend: Backend) => Namespace,
    remove: (namespace: Namespace) => Promise<void>,
  ): Promise<Namespace | number> {
    const fail = (error: unknown): number => {
      this.#warn(`A namespace of ${size} bytes could not be made: ${asError(error).message}`);
      return Outcome.internalError;
    };
    this.#reserved += size;
    let backend: Backend | undefined;
    try {
      backend = await this.#store?.create(size);
    } catch (error) {
      return fail(error);
    } finally {
      this.#reserved -= size;
    }
    // The controller may have been closed meanwhile.
    if (backend === undefined || this.#closed) {
      backend?.close();
      return Outcome.internalError;
    }
    let namespace: Namespace;
    try {
      namespace = allocate(backend);
    } catch (error) {
      backend.close();
      await this.#giveBack(backend, 'that could not be made');
      return fail(error);
    }
    this.#namespaces.add(namespace);
    try {
      await this.keep(namespace);
      return namespace;
    } catch (error) {
      await remove(namespace).catch(() => undefined); // Nothing was written that could have been lost.
      return fail(error);
    }
  }

  /**
   * Has the store keep what a namespace is, if it is one of the store.
   *
   * @param blockSize bytes of a block that it is about to have
   */
  async keep(namespace: Namespace, blockSize: BlockSize = namespace.blockSize): Promise<void> {
    if (!this.has(namespace)) return;
    const { backend, nsid, attached, uuid, nguid, eui64 } = namespace;
    await this.#store?.keep?.({ backend, nsid, blockSize, attached, uuid, nguid, eui64 });
  }

  /** Whether the store keeps what {@link keep} tells. */
  keeps(namespace: Namespace): boolean {
    return this.has(namespace) && this.#store?.keep !== undefined;
  }

  /** Gives the storage of a namespace that is gone back to the store, if it is from there. */
  async giveBack(namespace: Namespace): Promise<void> {
    if (!this.has(namespace)) return;
    await this.#giveBack(namespace.backend, String(namespace.nsid));
    this.#namespaces.delete(namespace);
  }

  /** The backends are closed, and nothing is made any more. */
  close(): void {
    this.#closed = true;
    this.#store?.close?.();
  }

  async #giveBack(backend: Backend, which: string): Promise<void> {
    try {
      await this.#store?.delete(backend);
    } catch (error) {
      this.#warn(`The storage of namespace ${which} was not deleted: ${asError(error).message}`);
    }
  }
}
