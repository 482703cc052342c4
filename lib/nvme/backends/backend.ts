// SPDX-License-Identifier: MIT
/**
 * Where a namespace keeps its data. Offsets and lengths are in bytes, and within {@link Backend.size}: the
 * controller has checked them.
 *
 * Reading and writing are synchronous, since they are the hot path: a backend copies from and to memory.
 */
export interface Backend {
  /** `null`, `memory`, `file`, or a name of your own. It is part of the default model number. */
  readonly kind: string;
  /** Bytes of the namespace. */
  readonly size: number;
  /** Whether data may be lost with the machine until {@link flush}: the controller has a volatile write cache then. */
  readonly volatileCache: boolean;
  /**
   * Copies `length` bytes at `offset` to `target` from index `at` on.
   * @returns false when they cannot be read
   */
  read(offset: number, target: Uint8Array, at: number, length: number): boolean;
  /**
   * Copies `length` bytes of `source` from index `at` on to `offset`.
   * @returns false when they cannot be written
   */
  write(offset: number, source: Uint8Array, at: number, length: number): boolean;
  /**
   * Makes `length` bytes at `offset` zero.
   * @returns false when they cannot be written
   */
  zero(offset: number, length: number): boolean;
  /** Makes durable what was written. Rejects when it cannot. */
  flush(): Promise<void>;
  /** Idempotent. Nothing is called after it. */
  close(): void;
}
