// SPDX-License-Identifier: MIT
import { outOfRange } from '../../errors';
import { type Backend, MemoryBackend } from '../backends';
import type { NamespaceIdentifiers } from './identifiers';

/** A namespace that a host has made, as a {@link NamespaceStore} keeps it. */
export interface StoredNamespace extends NamespaceIdentifiers {
  /** Where its data is. */
  readonly backend: Backend;
  /** Namespace id. */
  readonly nsid: number;
  /** Bytes of a logical block. */
  readonly blockSize: 512 | 4096;
  /** Whether the host sees it. */
  readonly attached: boolean;
}

/**
 * Capacity that belongs to no namespace yet: hosts make namespaces of it, and delete them (Namespace Management; NVMe base 2.0, 5.23).
 * The controller keeps count of what is left. A store is that of one controller.
 *
 * @example
 * // Each namespace is a file, which goes with it. `openNamespaceFolder` makes a store that keeps them.
 * const folder = '/srv/namespaces';
 * const store: NamespaceStore = {
 *   capacity: 2 ** 40,
 *   create: (size) => createBackend({ kind: 'file', path: `${folder}/${randomUUID()}`, size }),
 *   delete: ({ identity }) => unlink(identity as string),
 * };
 */
export interface NamespaceStore {
  /** Bytes of all namespaces together that may be made. */
  readonly capacity: number;
  /** What the store is known by across restarts: the serial number follows from it where the controller was given no namespace. */
  readonly identity?: string;
  /** Whether backends that it makes have a volatile cache: the controller tells of one then, also while there is no namespace. */
  readonly volatileCache?: boolean;
  /** Namespaces that hosts have made before, and the store has kept. Default: none. */
  readonly namespaces?: readonly StoredNamespace[];
  /**
   * Makes storage for a namespace. What it has to be able to do is what any backend has. When this throws or rejects, the host is told
   * Internal Error, and `onWarning` why.
   *
   * @param size bytes, a multiple of 512, no more than is left
   */
  create(size: number): Backend | Promise<Backend>;
  /**
   * Keeps what a namespace is from now on: it was made, attached, detached, formatted or resized. The host is answered when this has
   * ended. When it throws or rejects the host is told Internal Error, `onWarning` why, and the namespace is as it was before.
   */
  keep?(namespace: StoredNamespace): void | Promise<void>;
  /**
   * Gives storage back. Its backend is closed, and nothing uses it any more. When this throws or rejects, the namespace is gone all the
   * same, and `onWarning` is told why.
   */
  delete(backend: Backend): void | Promise<void>;
  /** Called when the controller is closed, and the backends are. Idempotent. */
  close?(): void;
}

/**
 * Checks a capacity.
 *
 * @throws RangeError
 */
export function checkCapacity(capacity: number): number {
  if (Number.isSafeInteger(capacity) && capacity >= 512) return capacity;
  throw outOfRange(`The capacity for namespaces is an integer of at least 512 bytes, got ${capacity}`);
}

/**
 * Capacity in memory of this process. Pages are taken from the system when they are written, and given back with the namespace.
 *
 * @param capacity bytes, an integer of at least 512
 * @throws RangeError
 */
export function memoryNamespaceStore(capacity: number): NamespaceStore {
  return {
    capacity: checkCapacity(capacity),
    create: (size) => new MemoryBackend(size),
    delete: () => undefined, // The memory has gone when the backend was closed.
  };
}
