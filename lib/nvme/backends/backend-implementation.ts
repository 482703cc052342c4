// SPDX-License-Identifier: MIT
import type { Deallocation } from './backend';

/**
 * What {@link customBackend} makes a backend of: a size, two methods, and what else you have. A method that has succeeded returns, or
 * its promise is fulfilled. It throws or rejects when it has failed: with a {@link BackendError} to choose how the command ends, or
 * with an error of Node.js such as ENOSPC or EIO, whose meaning is known; all others are Internal Error.
 *
 * Offsets and lengths are in bytes and within the size. Accesses run side by side, in any order; a host that needs an order waits.
 */
export interface BackendImplementation {
  /** Bytes of the namespace, an integer of at least 512. Read anew when the namespace is resized. */
  readonly size: number;
  /** A word or two for the model number. Default `custom`. */
  readonly kind?: string;
  /** What the data is known by across restarts: serial number and identifiers follow from it. Default: they are random. */
  readonly identity?: string;
  /** Bytes of the smallest access, a power of two from 1 to 4096: the namespace's blocks are not smaller. Default 1. */
  readonly blockSize?: number;
  /** Whether data may be lost until {@link flush}. Default: true when there is a flush. */
  readonly volatileCache?: boolean;
  /** What {@link deallocate} does. Default, when there is one: pieces of 4096 bytes, which may read as anything. */
  readonly deallocation?: Deallocation;
  /** Fills `target` with the bytes at `offset`. */
  read(offset: number, target: Uint8Array): void | Promise<void>;
  /** Stores `data` at `offset`. */
  write(offset: number, data: Uint8Array): void | Promise<void>;
  /** Makes bytes zero; with `deallocate` their storage may be given back. Default: zeros are written, 1 MiB at a time. */
  zero?(offset: number, length: number, deallocate: boolean): void | Promise<void>;
  /** Nobody wants the content of these bytes any more. Default: nothing is done. */
  deallocate?(offset: number, length: number): void | Promise<void>;
  /** Makes durable what was written by methods that have ended. Default: what was written is durable. */
  flush?(): void | Promise<void>;
  /**
   * Called once, at the beginning, with a function to call whenever {@link size} has changed: hosts are told, and commands behind a new
   * end fail.
   */
  onSizeChange?(changed: () => void): void;
  /** Called once, at the end. */
  close?(): void | Promise<void>;
}
