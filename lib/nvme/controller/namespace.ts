// SPDX-License-Identifier: MIT
import type { Backend, SynchronousBackend } from '../backends';
import { type ResolvedOptions, derivedUuid } from './options';

/** The namespace id of the only namespace. */
export const NAMESPACE_ID = 1;

/** Storage that hosts address by logical blocks (NVMe base 2.0, 3.2.1). */
export class Namespace {
  readonly backend: Backend;
  /** The backend, unless it is asynchronous. */
  readonly synchronous: SynchronousBackend | null;
  /** Bytes of a logical block. */
  readonly blockSize: number;
  /** Size in logical blocks. What the backend has beyond the last whole block is not used. */
  readonly blocks: number;
  readonly uuid: string;

  constructor({ backend, blockSize, serial }: ResolvedOptions) {
    this.backend = backend;
    this.synchronous = backend.asynchronous === true ? null : backend;
    this.blockSize = blockSize;
    this.blocks = Math.floor(backend.size / blockSize);
    this.uuid = derivedUuid('namespace', serial);
  }

  /** NGUID, as 32 hexadecimal digits. */
  get nguid(): string {
    return this.uuid.replaceAll('-', '');
  }

  /** Capacity in bytes. */
  get bytes(): bigint {
    return BigInt(this.blocks) * BigInt(this.blockSize);
  }
}
