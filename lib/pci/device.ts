// SPDX-License-Identifier: MIT
import type { Registers } from './registers';

/**
 * What a driver needs of a PCI device, and nothing about how the device is reached.
 *
 * The NVMe driver, the benchmark and the tools depend on these interfaces alone. The vfio-user client implements
 * them over a socket (`lib/client`), and `lib/kernel` over the VFIO of the kernel. QEMU's vfio-user series draws the same
 * line with its device I/O operations.
 */

/** Fixed region indexes of a VFIO PCI device (`linux/vfio.h`, `VFIO_PCI_*_REGION_INDEX`). */
export const PciRegion = {
  /** BAR 0. */
  bar0: 0,
  /** BAR 1. */
  bar1: 1,
  /** BAR 2. */
  bar2: 2,
  /** BAR 3. */
  bar3: 3,
  /** BAR 4. */
  bar4: 4,
  /** BAR 5. */
  bar5: 5,
  /** Expansion ROM. */
  rom: 6,
  /** Configuration space. */
  config: 7,
  /** VGA memory and I/O ports. */
  vga: 8,
} as const;

/** Name of a fixed PCI region. */
export type PciRegionName = keyof typeof PciRegion;

/** Fixed interrupt indexes of a VFIO PCI device (`linux/vfio.h`, `VFIO_PCI_*_IRQ_INDEX`). */
export const PciIrq = {
  /** INTx, the interrupt pin. */
  intx: 0,
  /** MSI. */
  msi: 1,
  /** MSI-X. */
  msix: 2,
  /** The device has an error that it cannot recover from. */
  err: 3,
  /** The device is asked back. */
  req: 4,
} as const;

/** Name of a fixed PCI interrupt index. */
export type PciIrqName = keyof typeof PciIrq;

/** A part of a region that can be mapped. */
export interface SparseArea {
  /** Offset of the part in the region, in bytes. */
  readonly offset: number;
  /** Bytes of the part. */
  readonly size: number;
}

/** Memory of the device, mapped into this process. */
export interface MappedArea {
  /** Offset of the mapped bytes in the region, in bytes. */
  readonly offset: number;
  /** Size of the mapped bytes. */
  readonly size: number;
  /** The bytes. After {@link close} the buffer is detached: its length is 0 and typed arrays over it read `undefined`. */
  readonly buffer: ArrayBuffer;
  /** File behind the mapping, so that a worker thread can map it too. Owned by the region; do not close. */
  readonly fd: number;
  /** Offset of the mapped bytes in {@link fd}. */
  readonly fdOffset: number;
  /** Detaches {@link buffer}, then unmaps. Idempotent. */
  close(): void;
}

/** A space of registers: a region of the device, or its configuration space. Offsets and sizes are in bytes. */
export interface RegisterSpace extends Registers {
  /** Reads any number of bytes, in accesses of the implementation's choice. */
  readBytes(offset: number, length: number): Promise<Uint8Array>;
  /** Writes any number of bytes, in accesses of the implementation's choice. */
  writeBytes(offset: number, data: Uint8Array): Promise<void>;
  /** Reads any number of bytes, blocking. */
  readBytesSync(offset: number, length: number): Uint8Array;
  /** Writes any number of bytes, blocking. */
  writeBytesSync(offset: number, data: Uint8Array): void;
}

/** A region of the device: a BAR, the ROM, configuration space. */
export interface DeviceRegion extends RegisterSpace {
  /** Index of the region, see {@link PciRegion}. */
  readonly index: number;
  /** Bytes of the region; 0 when the device lacks it. */
  readonly size: number;
  /** Whether the device lets the region be read. */
  readonly readable: boolean;
  /** Whether the device lets the region be written. */
  readonly writable: boolean;
  /** Parts that {@link map} accepts; empty when the region can only be accessed by message. */
  readonly areas: readonly SparseArea[];
  /** Maps bytes of the region into this process. Throws when they are not within one of {@link areas}. */
  map(offset: number, length: number): MappedArea;
}

/** Memory that both this process and the device can access. */
export interface DmaMemory {
  /** The bytes. Detached after {@link close}. */
  readonly buffer: ArrayBuffer;
  /** Address at which the device sees the first byte. Allocated addresses are below 2^53. */
  readonly iova: number;
  /** Size in bytes. */
  readonly size: number;
  /** File behind the memory, so that a worker thread can map it too. Owned by this object; do not close. */
  readonly fd: number;
  /** Offset of the first byte in {@link fd}. */
  readonly fdOffset: number;
  /** Takes the memory from the device, then unmaps it here. */
  close(): Promise<void>;
}

/** The memory that the device may access. */
export interface DeviceDma {
  /** Allocates zeroed shared memory of at least `size` bytes (rounded up to pages) and shows it to the device. */
  allocate(size: number): Promise<DmaMemory>;
}

/** One interrupt index of the device, with its vectors. */
export interface DeviceIrq {
  /** Which interrupt it is, see {@link PciIrq}. */
  readonly index: number;
  /** Number of vectors that the device offers. */
  readonly count: number;
  /**
   * Delivers vectors `0 … handlers.length-1` to functions of this process; given a number, so many vectors signal
   * eventfds that nobody listens to here (see {@link fd}). Replaces what was enabled before.
   * A handler receives the number of signals since its last call: signals coalesce, so do not count calls.
   */
  enable(handlers: number | readonly ((signals: number) => void)[]): Promise<void>;
  /** The eventfd that the device signals for a vector, null while the vector is not enabled. Stays this object's. */
  fd(vector: number): number | null;
  /** Disables all vectors of the index. */
  disable(): Promise<void>;
}

/** What a device says of itself. */
export interface DeviceInfo {
  /** True when {@link Device.reset} is offered. */
  readonly resettable: boolean;
  /** Regions that the device has, also those of size 0. */
  readonly regionCount: number;
  /** Interrupt indexes that the device has, also those without vectors. */
  readonly irqCount: number;
}

/** What a device lost with its connection, see {@link DeviceEvents}. */
export interface DeviceLoss {
  /**
   * Requests in flight that failed, such as register accesses: each of them may or may not have been carried out. Requests
   * that are sent again are not counted.
   */
  readonly requests: number;
  /** Areas of regions that were mapped; their buffers are detached. */
  readonly mappings: number;
  /** Sub-regions whose descriptors were closed. */
  readonly subRegions: number;
  /** Whether a log of dirty pages ended: all pages may be dirty. */
  readonly dirtyLog: boolean;
  /** Whether a transfer of the device's state ended. */
  readonly migration: boolean;
}

/** An attempt to reach a device again. */
export interface DeviceReconnecting {
  /** Number of the attempt, from 1 on. */
  readonly attempt: number;
  /** Milliseconds until it is made. */
  readonly delay: number;
  /** Why the attempt before it failed; of the first, why the connection was lost. */
  readonly error: Error;
}

/** What was set up again when a device came back. */
export interface DeviceReconnected {
  /** Milliseconds since the connection was lost. */
  readonly gap: number;
  /** Attempts that it took, the last one among them. */
  readonly attempts: number;
  /** DMA ranges that the device has again. */
  readonly dmaRanges: number;
  /** Interrupt vectors that the device signals again. */
  readonly vectors: number;
}

/**
 * Events of a device, by name. The three of a device that comes back are never emitted where {@link Device.reconnects} is
 * not true.
 */
export interface DeviceEvents {
  /** The device is gone: with null by `close()`, else with why. Emitted once, and last. */
  close: [error: Error | null];
  /** The connection was lost, and the device is waited for. What was mapped of it is detached. */
  disconnect: [error: Error, lost: DeviceLoss];
  /** An attempt to reach the device will be made. */
  reconnecting: [attempt: DeviceReconnecting];
  /**
   * The device is there again, with its DMA ranges and interrupts. Its registers are those of a server that was started
   * anew, so that a driver has to bring it up; it should also look for what signals that were lost would have told.
   */
  reconnect: [renewed: DeviceReconnected];
}

/**
 * Adds a listener of a device's events, or removes one. A signature for each event, since a generic one does not fit the
 * event emitters of every version of Node.js's types.
 */
export interface DeviceListening {
  (event: 'close', listener: (...args: DeviceEvents['close']) => void): unknown;
  (event: 'disconnect', listener: (...args: DeviceEvents['disconnect']) => void): unknown;
  (event: 'reconnecting', listener: (...args: DeviceEvents['reconnecting']) => void): unknown;
  (event: 'reconnect', listener: (...args: DeviceEvents['reconnect']) => void): unknown;
}

/** A PCI device in another process, or behind another driver. */
export interface Device {
  /** Where the device is, for messages: a socket path, a PCI address. */
  readonly name: string;
  /** The memory that the device may access. */
  readonly dma: DeviceDma;
  /** What the device says of itself. */
  info(): Promise<DeviceInfo>;
  /**
   * Configuration space, without asking the device for its size: every function has 256 bytes, one with PCI Express 4096. The
   * device refuses what lies beyond its own. Use `region('config')` to learn the size.
   */
  readonly config: RegisterSpace;
  /** A region, by name or index. */
  region(region: PciRegionName | number): Promise<DeviceRegion>;
  /** An interrupt, by name or index. */
  irq(index: PciIrqName | number): Promise<DeviceIrq>;
  /** Resets the device. Rejects when {@link DeviceInfo.resettable} is false. */
  reset(): Promise<void>;
  /** True for a device that comes back when its other end goes away and returns. Absent where that cannot be. */
  readonly reconnects?: boolean;
  /** Calls a function at each event of a name. */
  readonly on: DeviceListening;
  /** Calls a function at the next event of a name. */
  readonly once: DeviceListening;
  /** Removes a listener that {@link on} or {@link once} added. */
  readonly off: DeviceListening;
  /** Lets go of the device. Idempotent. */
  close(): Promise<void>;
  /** Calls {@link close}. */
  [Symbol.asyncDispose](): Promise<void>;
}
