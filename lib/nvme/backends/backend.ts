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
  /** The storage cannot be reached now, but perhaps later: Namespace Not Ready, which hosts try again. */
  unavailable: 5,
} as const;
export type BackendResult = (typeof BackendResult)[keyof typeof BackendResult];

/** What {@link SynchronousBackend} `deallocate` does. */
export interface Deallocation {
  /** Bytes of the pieces that storage is given back in, which begin at multiples of it. */
  readonly unit: number;
  /** Whether the bytes of a piece that was given back read as zeros. What they read as is not known otherwise. */
  readonly readsZero: boolean;
}

/** What every {@link Backend} tells of itself. */
export interface BackendProperties {
  /** `null`, `memory`, `file`, `nbd`, or a name of your own. It is part of the default model number. */
  readonly kind: string;
  /** Bytes of the namespace. */
  readonly size: number;
  /**
   * What the data is known by across restarts, such as the path of its file: serial number and identifiers of the drive follow
   * from it. Undefined when the data does not outlive the backend.
   */
  readonly identity?: string;
  /** Whether data may be lost with the machine until `flush`: the controller has a volatile write cache then. */
  readonly volatileCache: boolean;
  /**
   * Bytes of the smallest access, a power of two: blocks of the namespace are not smaller. Default: a backend takes accesses of any
   * size.
   */
  readonly blockSize?: number;
  /** Undefined when storage cannot be given back: `deallocate` does nothing then. */
  readonly deallocation?: Deallocation | undefined;
  /**
   * Makes durable what was written. Rejects when it cannot, and from then on until everything that may have been lost has
   * been written again.
   */
  flush(): Promise<void>;
  /**
   * Changes {@link size}. Without one that of the storage is taken over, as of a file that has grown. What is cut off is out of use, and
   * the controller sees to that; a file keeps it. Undefined when the size cannot be changed.
   *
   * @param size bytes, at least 512
   */
  resize?(size?: number): Promise<void>;
  /**
   * Takes the one function that is to be called when the storage has got another size by itself, as an export that has grown: with that
   * size in bytes. The controller then calls {@link resize} with it, and tells the host.
   */
  onSizeChange?(listener: (size: number) => void): void;
  /** Idempotent. Nothing is called after it. */
  close(): void;
}

/**
 * A backend whose accesses are over when its methods return: memory, a file. They are given memory of the client's, so that an
 * access costs no copy, promise or allocation.
 */
export interface SynchronousBackend extends BackendProperties {
  /** Tells it from an {@link AsynchronousBackend}. */
  readonly asynchronous?: false;
  /** Copies `length` bytes at `offset` to `target` from index `at` on. Does not throw. */
  read(offset: number, target: Uint8Array, at: number, length: number): BackendResult;
  /** Copies `length` bytes of `source` from index `at` on to `offset`. Does not throw. */
  write(offset: number, source: Uint8Array, at: number, length: number): BackendResult;
  /**
   * Makes `length` bytes at `offset` zero. Does not throw.
   *
   * @param deallocate whether storage may be given back; otherwise room for the bytes stays theirs
   */
  zero(offset: number, length: number, deallocate: boolean): BackendResult;
  /**
   * Gives back the storage of `length` bytes at `offset`, whose content nobody wants any more. Parts that are no whole
   * {@link Deallocation.unit} may be left as they are or become zero. Does not throw.
   */
  deallocate(offset: number, length: number): BackendResult;
}

/**
 * A backend whose accesses take their time: a server elsewhere. They run side by side, in any order, and each is given memory
 * of its own, which stays valid until its promise is settled. The promises do not reject.
 */
export interface AsynchronousBackend extends BackendProperties {
  /** Tells it from a {@link SynchronousBackend}. */
  readonly asynchronous: true;
  /** As that of {@link SynchronousBackend}. */
  read(offset: number, target: Uint8Array, at: number, length: number): Promise<BackendResult>;
  /** As that of {@link SynchronousBackend}. */
  write(offset: number, source: Uint8Array, at: number, length: number): Promise<BackendResult>;
  /** As that of {@link SynchronousBackend}. */
  zero(offset: number, length: number, deallocate: boolean): Promise<BackendResult>;
  /** As that of {@link SynchronousBackend}. */
  deallocate(offset: number, length: number): Promise<BackendResult>;
}

/**
 * Where a namespace keeps its data. Offsets and lengths are in bytes, and within {@link BackendProperties.size}: the controller has
 * checked them. A write that succeeds is in the backend when it has ended, and every read that begins later finds it. One that
 * fails leaves its bytes undefined, and no others.
 *
 * `customBackend` makes one of a few methods of your own.
 */
export type Backend = SynchronousBackend | AsynchronousBackend;
