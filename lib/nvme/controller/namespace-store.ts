// SPDX-License-Identifier: MIT
import { outOfRange } from '../../errors';
import { type Backend, MemoryBackend } from '../backends';

/**
 * Capacity that belongs to no namespace yet: hosts make namespaces of it, and delete them (Namespace Management; NVMe base 2.0, 5.23).
 * The controller keeps count of what is left.
 *
 * @example
 * // Each namespace is a file, which goes with it.
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
  /**
   * Makes storage for a namespace. What it has to be able to do is what any backend has. When this throws or rejects, the host is told
   * Internal Error, and `onWarning` why.
   *
   * @param size bytes, a multiple of 512, no more than is left
   */
  create(size: number): Backend | Promise<Backend>;
  /**
   * Gives storage back. Its backend is closed, and nothing uses it any more. When this throws or rejects, the namespace is gone all the
   * same, and `onWarning` is told why.
   */
  delete(backend: Backend): void | Promise<void>;
}

/**
 * Capacity in memory of this process. Pages are taken from the system when they are written, and given back with the namespace.
 *
 * @param capacity bytes, an integer of at least 512
 * @throws RangeError
 */
export function memoryNamespaceStore(capacity: number): NamespaceStore {
  if (!Number.isSafeInteger(capacity) || capacity < 512) {
    throw outOfRange(`The capacity for namespaces is an integer of at least 512 bytes, got ${capacity}`);
  }
  return {
    capacity,
    create: (size) => new MemoryBackend(size),
    delete: () => undefined, // The memory has gone when the backend was closed.
  };
}
