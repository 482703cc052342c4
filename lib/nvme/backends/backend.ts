// SPDX-License-Identifier: MIT
/** How an access to a {@link Backend} ended. @enum */
export const BackendResult = {
  success: 0,
  /** The medium cannot give or take these bytes: NVMe's Unrecovered Read Error, or Write Fault. */
  mediumError: 1,
  /** There is no room for bytes that have not been written before: Capacity Exceeded. */
  outOfSpace: 2,
  /** The memory to copy from or to is gone: Data Transfer Error. */
  memoryError: 3,
  /** Anything else: Internal Error. */
  internalError: 4,
} as const;
export type BackendResult = (typeof BackendResult)[keyof typeof BackendResult];

/**
 * Where a namespace keeps its data. Offsets and lengths are in bytes, and within {@link Backend.size}: the
 * controller has checked them.
 *
 * Reading and writing are synchronous, since they are the hot path: a backend copies from and to memory. A write that
 * succeeds is in the backend when the method returns, and every later read finds it. One that fails leaves its bytes
 * undefined, and no others.
 */
export interface Backend {
  /** `null`, `memory`, `file`, or a name of your own. It is part of the default model number. */
  readonly kind: string;
  /** Bytes of the namespace. */
  readonly size: number;
  /**
   * What the data is known by across restarts, such as the path of its file: serial number and identifiers of the drive follow
   * from it. Undefined when the data does not outlive the backend.
   */
  readonly identity?: string;
  /** Whether data may be lost with the machine until {@link flush}: the controller has a volatile write cache then. */
  readonly volatileCache: boolean;
  /** Copies `length` bytes at `offset` to `target` from index `at` on. Does not throw. */
  read(offset: number, target: Uint8Array, at: number, length: number): BackendResult;
  /** Copies `length` bytes of `source` from index `at` on to `offset`. Does not throw. */
  write(offset: number, source: Uint8Array, at: number, length: number): BackendResult;
  /** Makes `length` bytes at `offset` zero. Does not throw. */
  zero(offset: number, length: number): BackendResult;
  /**
   * Makes durable what was written. Rejects when it cannot, and from then on until everything that may have been lost has
   * been written again.
   */
  flush(): Promise<void>;
  /** Idempotent. Nothing is called after it. */
  close(): void;
}
