// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../../errors';
import type { SynchronousBackend } from './backend';
import { FileBackend } from './file-backend';
import { MemoryBackend } from './memory-backend';
import { NullBackend } from './null-backend';

/** What {@link createBackend} makes. */
export type BackendOptions =
  | {
      /** A namespace that keeps nothing: for measuring everything but the storage. */
      readonly kind: 'null';
      /** Bytes of the namespace, an integer of at least 512. */
      readonly size: number;
    }
  | {
      /**
       * A namespace in memory of this process, which is taken when it is first touched: 2 MiB at a time (transparent huge pages), if
       * the machine has room for twice the namespace.
       */
      readonly kind: 'memory';
      /** Bytes of the namespace, an integer of at least 512. */
      readonly size: number;
    }
  | {
      /** A namespace in a regular file or a block device. */
      readonly kind: 'file';
      /** Path of a file or device that can be read and written. */
      readonly path: string;
      /** Bytes of the namespace, an integer of at least 512. A regular file that is shorter is extended. Default: those of the file. */
      readonly size?: number | undefined;
      /** Whether data bypasses the page cache. Default false. */
      readonly direct?: boolean | undefined;
    };

/**
 * Makes a backend of the package's own.
 *
 * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` when the memory or the file cannot be had; RangeError or TypeError
 *   when the options make no sense
 */
export function createBackend(options: BackendOptions): SynchronousBackend {
  const { kind, size } = options;
  if (size !== undefined && (!Number.isSafeInteger(size) || size < 512)) {
    throw outOfRange(`The size of a namespace is an integer of at least 512 bytes, got ${size}`);
  }
  switch (kind) {
    case 'null':
      return new NullBackend(options.size);
    case 'memory':
      return new MemoryBackend(options.size);
    case 'file':
      return new FileBackend(options.path, size, { direct: options.direct });
    default:
      throw invalidArgument(`A backend is null, memory or file, got ${String(kind)}`);
  }
}
