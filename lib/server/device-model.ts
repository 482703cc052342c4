// SPDX-License-Identifier: MIT
import type { ConfigEffect } from '../pci/config-space';
import type { BarDeclaration, ConfigSpaceDeclaration } from '../pci/declaration';
import type { SparseArea } from '../pci/device';
import type { MigrationStateName } from '../protocol';
import type { Passthrough } from './passthrough';
import type { ServedIoFd } from './served-io-fds';

/** What a device-specific region is (`linux/vfio.h`, `struct vfio_region_info_cap_type`). */
export interface RegionType {
  /** `VFIO_REGION_TYPE_*`; a PCI vendor's own has bit 31 set and the vendor id below. */
  readonly type: number;
  /** `VFIO_REGION_SUBTYPE_*`, or the vendor's own number. */
  readonly subtype: number;
}

/** A file behind a region, parts of which clients may map. */
export interface SharedFile {
  /**
   * Sent to clients that ask for it; stays the model's. `createSharedMemory` makes one.
   *
   * A client may keep the descriptor, and mappings of the file, for as long as it lives: who had one file sees and changes
   * what its successors do with it. A function gives each client its own file: make one in `attach`, and return it here.
   * It is called with the client that asks, each time that it asks, between `attach` and `detach`; what it throws, or a
   * number that is no open descriptor, is reported, and the client gets EIO.
   */
  readonly fd: number | ((client: Client) => number);
  /** Where the first byte of the region is in the file, in bytes; a multiple of the page size. */
  readonly offset: number;
  /** The parts of the region that may be mapped; whole pages. */
  readonly areas: readonly SparseArea[];
}

/** A region of a served device. Offsets and sizes are in bytes. */
export interface ServedRegion {
  /** Bytes of the region, 0 to 2^53 - 1. A client does not see one of 0 bytes. */
  readonly size: number;
  /** What a device-specific region is; for index 9 and above. */
  readonly type?: RegionType;
  /**
   * Parts of the region that clients may map. Accesses by message to such a part reach {@link read} and {@link write}
   * like any other.
   */
  readonly shared?: SharedFile;
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
  /**
   * Writes `data` at `offset`; see {@link read}. Without this function the region is not writable.
   *
   * @param posted the client waits for no answer
   */
  write?(offset: number, data: Uint8Array, posted: boolean): void | Promise<void>;
}

/** A range of the client's memory, as DMA_MAP showed it. */
export interface ClientRange {
  /** First address, 0 to 2^64 - 1. */
  readonly iova: bigint;
  /** Bytes, at least 1. */
  readonly size: number;
  /** The client lets the device read the range. */
  readonly readable: boolean;
  /** The client lets the device write the range. */
  readonly writable: boolean;
  /**
   * The memory, when the client sent a descriptor and it could be mapped; null when it is reached by message only, and once
   * it is unmapped.
   */
  readonly buffer: ArrayBuffer | null;
}

/** The file that a client sent with a DMA_MAP. */
export interface ClientFile {
  /** The descriptor, which the server closes when the model has been told of the range. Duplicate it to keep it. */
  readonly fd: number;
  /** Where the first byte of the range is in the file, in bytes. */
  readonly offset: number;
}

/** A place in the client's memory that is mapped here. */
export interface MappedPlace {
  /** The range that it is in. */
  readonly range: ClientRange;
  /** The memory of the range. */
  readonly buffer: ArrayBuffer;
  /** Offset of the place in {@link buffer}, in bytes. */
  readonly offset: number;
}

/**
 * The client's memory, as a device model uses it.
 *
 * QEMU serves no DMA_READ or DMA_WRITE while it waits for an answer: what a handler of a region, `reset` or `unmapping`
 * awaits of {@link ClientMemory.read} or {@link ClientMemory.write} comes too late when it goes by message. Answer first.
 */
export interface ClientMemory {
  /**
   * Changes whenever a range is mapped or unmapped, and with {@link busMaster}; a model that keeps {@link MappedPlace}s
   * compares it.
   */
  readonly generation: number;
  /**
   * Whether the client lets the device reach memory: Bus Master Enable (PCI Local Bus 3.0, 6.2.2). While it does not, there are no
   * places, and nothing can be read or written. `configured` of the model is told when the command register changes.
   *
   * True until the client changes its command register for the first time: some clients never write it.
   */
  readonly busMaster: boolean;
  /** What is mapped, by ascending address. A new array each time. */
  readonly ranges: readonly ClientRange[];
  /**
   * Finds `length` bytes at `iova` in one mapped range; null when they are not mapped here, not within one range,
   * not allowed for `access`, or the device is no bus master.
   */
  place(iova: number | bigint, length: number, access: 'read' | 'write' | 'readwrite'): MappedPlace | null;
  /**
   * Reads the client's memory, from mappings where there are, by DMA_READ messages otherwise.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when bytes are not mapped or may not be read, or the device is no bus master; what a
   *   message may fail with
   */
  read(iova: number | bigint, length: number): Promise<Uint8Array>;
  /**
   * Writes the client's memory, to mappings where there are, by DMA_WRITE messages otherwise.
   *
   * @throws VfioUserError ERR_VFIO_USER_DMA when bytes are not mapped or may not be written, or the device is no bus master; what a
   *   message may fail with
   */
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
  /** What the client shows of its memory. */
  readonly memory: ClientMemory;
  /**
   * Sets the state of an interrupt, whether it is INTx, MSI or MSI-X, whichever the client has enabled:
   *
   * - INTx is a level (PCI Local Bus 3.0, 2.2.6): the line is high while any vector is. The client is signalled while it is high, once
   *   for each time that it says that it has served the interrupt. Interrupt Status and Interrupt Disable are looked after.
   * - MSI and MSI-X are messages: each call with `high` sends one. One that is masked, or that comes while the device is no bus master,
   *   becomes pending, and is sent once when it may be. When the client has granted fewer MSI vectors than the device has, several
   *   share one.
   *
   * A device with one interrupt calls `client.setInterrupt((status & enabled) !== 0)` whenever that may have changed.
   *
   * @param vector of the device, from 0, default 0
   * @returns whether the client has been signalled now. It may poll instead, and set no eventfd
   * @throws RangeError for a vector that MSI-X does not have
   */
  setInterrupt(high: boolean, vector?: number): boolean;
  /**
   * Signals a vector of another interrupt: ERR, REQ, one of the device's own.
   *
   * @param irqIndex see `PciIrq`
   * @param vector default 0
   * @returns false when the client has not set an eventfd for it, or masks it; then it becomes pending
   * @throws TypeError ERR_INVALID_ARG_VALUE for INTx, MSI and MSI-X, see {@link setInterrupt}
   */
  trigger(irqIndex: number, vector?: number): boolean;
  /** Ends the connection, as if the link had been lost. The server then serves the next client. */
  disconnect(): void;
  /**
   * Takes the device away from the client as if its card had been pulled out: from now on every read by message is ones, writes
   * are dropped, and there are neither DMA nor interrupts. Mapped memory stays mapped. The next client finds the device again.
   */
  unplug(): void;
}

/** A BAR of a served device: what configuration space says of it, and what is behind it. */
export type ServedBar = BarDeclaration & Omit<ServedRegion, 'type'>;

/** The PCI function of a served device: identity, BARs and capabilities. Everything that clients see of them follows from it. */
export interface ServedFunction extends Omit<ConfigSpaceDeclaration, 'bars'> {
  /**
   * The BARs by index, as `{ 0: { kind: 'memory32', size: 0x1000, read, write }, … }`. The server itself serves the MSI-X table
   * and the pending bits in the BARs that they are in.
   */
  readonly bars?: Readonly<Partial<Record<0 | 1 | 2 | 3 | 4 | 5, ServedBar | undefined>>>;
}

/**
 * A PCI device that this process implements. `serve` asks it what it has and calls it for what clients do.
 * Its state outlives clients (vfio-user, "Client Disconnection"); one client is connected at a time.
 *
 * A model may be an object literal, which must have no other keys than these, or an instance of a class.
 */
export interface PciDeviceModel {
  /** For messages. */
  readonly name: string;
  /**
   * Identity, BARs and capabilities. The server makes configuration space of it (which is reset with the device, and for each
   * client) and the vectors of INTx, MSI and MSI-X.
   */
  readonly pci: ServedFunction;
  /**
   * More regions by index (`PciRegion`), 0 to 255: the ROM, those of the device's own, and BARs of which configuration space does not
   * tell, as their size is no power of two. One for configuration space takes the place of that of the server, for a device that
   * has its own, or a wrong one; the server does not see then what clients write there.
   */
  readonly regions?: ReadonlyMap<number, ServedRegion>;
  /** Vectors of more interrupts, 0 to 65535, by interrupt index (`PciIrq`): REQ, those of the device's own. ERR has one by default. */
  readonly irqs?: ReadonlyMap<number, number>;
  /**
   * How the device saves and loads its state; without it, it cannot migrate. It needs {@link reset} too, the only way out
   * of a failed migration.
   */
  readonly migration?: MigrationModel;
  /** What the device does itself, in place of the server, which then looks at none of `pci` and `irqs`. @internal */
  readonly passthrough?: Passthrough;
  /**
   * Resets the device, for DEVICE_RESET and a function level reset. Its configuration space has been reset, and its interrupts are
   * low. Without this function the device offers no reset.
   */
  reset?(): void | Promise<void>;
  /**
   * A write of the client's has changed configuration space. Called once for each change, in the order in which a device should
   * act, and not for a function level reset, which calls {@link reset}.
   */
  configured?(effect: ConfigEffect): void | Promise<void>;
  /** A client has negotiated. */
  attach?(client: Client): void;
  /**
   * A range of the client's memory has become available. The client is answered when this returns, or its promise resolves; throw
   * a `CommandError` to refuse the range.
   *
   * @param file what the client sent with it; null for memory that is reached by message only
   */
  mapped?(range: ClientRange, file: ClientFile | null): void | Promise<void>;
  /**
   * A range is about to go. When this returns (or its promise resolves) the model must not touch the range any more:
   * only then is the memory unmapped and the client answered (vfio-user, VFIO_USER_DMA_UNMAP, "Reply").
   */
  unmapping?(range: ClientRange): void | Promise<void>;
  /**
   * A number that grows when the client has used the device in a way that the server does not see, such as stores to
   * mapped memory. The server looks at it before it takes a client for idle (`idleTimeout` of `serve`).
   */
  activity?(): number;
  /**
   * The client is gone: its memory and eventfds are released when this returns, or its promise settles, and then the next
   * client is served.
   */
  detach?(client: Client): void | Promise<void>;
}

/** How a device model saves and loads its state. The server keeps the migration state machine. */
export interface MigrationModel {
  /** True when a part of the state can be saved while the device runs. Default false. */
  readonly preCopy?: boolean;
  /**
   * The state of the device, in chunks of any size. `preCopy` is called when the device enters PRE_COPY, while it runs,
   * and may be ended early, between two chunks; `stopCopy` when it is stopped, and gives what `preCopy` has not given or
   * what has changed since. Both make one stream.
   */
  save(mode: 'preCopy' | 'stopCopy'): Iterable<Uint8Array> | AsyncIterable<Uint8Array>;
  /** The device enters `resuming`. Loading ends with `finish`; a reset or a client that goes away may come before. */
  load(): MigrationSink;
  /**
   * The device goes from one state to the next. When this returns (or its promise resolves) it must be done: in `stop`
   * and the states behind it the device must not run, signal interrupts or write memory. Throw a `CommandError` to refuse
   * and stay in `from`; any other error brings the device into `error`. After a reset it is called as well, with
   * `running`, when the device was not in that state.
   */
  stateChanged?(from: MigrationStateName, to: MigrationStateName): void | Promise<void>;
}

/** Takes the state of a device in `resuming`. */
export interface MigrationSink {
  /** The next bytes, cut as the client likes. `chunk` is only valid until this returns, or its promise settles. */
  write(chunk: Uint8Array): void | Promise<void>;
  /** There are no more bytes: takes the state, or throws when it is incomplete or wrong. */
  finish(): void | Promise<void>;
}
