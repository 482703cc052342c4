// SPDX-License-Identifier: MIT
import type { SparseArea } from '../pci/device';
import type { MigrationModel } from './migration-model';
import type { ServedIoFd } from './served-io-fds';

/** A region of a served device. Offsets and sizes are in bytes. */
export interface ServedRegion {
  readonly size: number;
  /** Of a device-specific region (index 9 and above): what it is (`VFIO_REGION_TYPE_*`, `linux/vfio.h`). */
  readonly type?: { readonly type: number; readonly subtype: number };
  /**
   * Parts of the region that the client may map, in a file of ours, such as `createSharedMemory` makes. `offset` is the
   * region's first byte in the file.
   * Accesses by message to a part that can be mapped reach {@link read} and {@link write} like any other.
   */
  readonly shared?: { readonly fd: number; readonly offset: number; readonly areas: readonly SparseArea[] };
  /** Parts of the region whose accesses clients may bring to descriptors instead of by message. */
  readonly ioFds?: readonly ServedIoFd[];
  /**
   * A read may be called while other reads of the region are at work, for clients that have several under way. Writes are
   * always done alone. Default false: accesses of a region are done one at a time, in the order they came.
   */
  readonly concurrent?: boolean;
  /**
   * Reads `data.length` bytes at `offset` into `data`, which is zeroed. The server has checked that they are within
   * the region. Throw a `CommandError` to refuse. Without this function the region is not readable.
   *
   * While a promise of it is pending, accesses of other regions are served.
   */
  read?(offset: number, data: Uint8Array): void | Promise<void>;
  /** Writes `data` at `offset`; as {@link read}. `posted` is true when the client waits for no answer. */
  write?(offset: number, data: Uint8Array, posted: boolean): void | Promise<void>;
}

/** A range of the client's memory, as DMA_MAP showed it. */
export interface ClientRange {
  readonly iova: bigint;
  readonly size: number;
  readonly readable: boolean;
  readonly writable: boolean;
  /** The memory, when the client sent a descriptor and it could be mapped; null when it is reached by message only. */
  readonly buffer: ArrayBuffer | null;
}

/** A place in the client's memory that is mapped here. */
export interface MappedPlace {
  readonly range: ClientRange;
  readonly buffer: ArrayBuffer;
  /** Offset of the place in `buffer`. */
  readonly offset: number;
}

/**
 * The client's memory, as a device model uses it.
 *
 * QEMU serves no DMA_READ or DMA_WRITE while it waits for an answer: what a handler of a region, `reset` or `unmapping`
 * awaits of {@link ClientMemory.read} or {@link ClientMemory.write} comes too late when it goes by message. Answer first.
 */
export interface ClientMemory {
  /** Changes whenever a range is mapped or unmapped; a model that keeps {@link MappedPlace}s compares it. */
  readonly generation: number;
  readonly ranges: readonly ClientRange[];
  /**
   * Finds `length` bytes at `iova` in one mapped range; null when they are not mapped here, not within one range,
   * or not allowed for `access`.
   */
  place(iova: number | bigint, length: number, access: 'read' | 'write' | 'readwrite'): MappedPlace | null;
  /** Reads the client's memory, from mappings where there are, by DMA_READ messages otherwise. */
  read(iova: number | bigint, length: number): Promise<Uint8Array>;
  /** Writes the client's memory, to mappings where there are, by DMA_WRITE messages otherwise. */
  write(iova: number | bigint, data: Uint8Array): Promise<void>;
  /**
   * Tells that the model has stored into {@link place}d memory, after it has: for clients that log dirty pages. What goes
   * through {@link write} is known. A model that can migrate must call it.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when the bytes are not mapped, or may not be written
   */
  markDirty(iova: number | bigint, length: number): void;
}

/** A client that is connected, as a device model sees it. */
export interface Client {
  /** For messages. */
  readonly name: string;
  readonly memory: ClientMemory;
  /**
   * Signals an interrupt vector; false when the client has not set an eventfd for it, or masks it (then it becomes
   * pending). Never throws: a client without an eventfd polls.
   */
  trigger(irqIndex: number, vector: number): boolean;
  /** Whether a vector was triggered while the client masked it with a message, and still waits for the mask to go. */
  pending(irqIndex: number, vector: number): boolean;
}

/**
 * A PCI device that this process implements. `serve` asks it what it has and calls it for what clients do.
 * Its state outlives clients (vfio-user, "Client Disconnection"); one client is connected at a time.
 */
export interface PciDeviceModel {
  /** For messages. */
  readonly name: string;
  /** By region index (`PciRegion`); configuration space (7) is required. */
  readonly regions: ReadonlyMap<number, ServedRegion>;
  /** Number of vectors by interrupt index (`PciIrq`); 0 or absent means that there are none. */
  readonly irqs: ReadonlyMap<number, number>;
  /**
   * How the device saves and loads its state; without it, it cannot migrate. It needs {@link reset} too, the only way out
   * of a failed migration.
   */
  readonly migration?: MigrationModel;
  /** Resets the device. Without this function the device offers no reset. */
  reset?(): void | Promise<void>;
  /** A client has negotiated. */
  attach?(client: Client): void;
  /** A range of the client's memory has become available. */
  mapped?(range: ClientRange): void;
  /**
   * A range is about to go. When this returns (or its promise resolves) the model must not touch the range any more:
   * only then is the memory unmapped and the client answered (vfio-user, VFIO_USER_DMA_UNMAP, "Reply").
   */
  unmapping?(range: ClientRange): void | Promise<void>;
  /** The client is gone: its memory and eventfds are released when this returns. */
  detach?(client: Client): void;
}
