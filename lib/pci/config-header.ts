// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';

/** Offsets in the configuration header, in bytes (PCI Local Bus 3.0, 6.1; `linux/pci_regs.h`). */
export const PciConfig = {
  /** 16 bits. */
  vendorId: 0x00,
  /** 16 bits. */
  deviceId: 0x02,
  /** 16 bits, see {@link PciCommand}. */
  command: 0x04,
  /** 16 bits, see {@link PciStatus}. */
  status: 0x06,
  /** 8 bits. */
  revisionId: 0x08,
  /** 24 bits: programming interface, subclass, base class. */
  classCode: 0x09,
  /** 8 bits, in dwords. */
  cacheLineSize: 0x0c,
  /** 8 bits. */
  latencyTimer: 0x0d,
  /** 8 bits; bit 7 is set when there are other functions. */
  headerType: 0x0e,
  /** 8 bits: built-in self test. */
  bist: 0x0f,
  /** 32 bits; the other BARs follow. */
  bar0: 0x10,
  /** 16 bits. */
  subsystemVendorId: 0x2c,
  /** 16 bits. */
  subsystemId: 0x2e,
  /** 32 bits: address of the expansion ROM. */
  rom: 0x30,
  /** 8 bits: offset of the first capability. */
  capabilities: 0x34,
  /** 8 bits. */
  interruptLine: 0x3c,
  /** 8 bits: 0 for none, 1 to 4 for INTA to INTD. */
  interruptPin: 0x3d,
} as const;

/** Bits of the command register (PCI Local Bus 3.0, 6.2.2). */
export const PciCommand = {
  /** Accesses to I/O BARs are answered. */
  io: 0x0001,
  /** Accesses to memory BARs are answered. */
  memory: 0x0002,
  /** The device may access memory of the host, and send MSI and MSI-X. */
  busMaster: 0x0004,
  /** Parity errors are acted upon. */
  parityErrorResponse: 0x0040,
  /** Errors are reported to the host. */
  serr: 0x0100,
  /** INTx is not signalled. */
  interruptDisable: 0x0400,
} as const;

/** Bits of the status register (PCI Local Bus 3.0, 6.2.3). */
export const PciStatus = {
  /** INTx is asserted, whether or not it is disabled. */
  interrupt: 0x0008,
  /** There is a capability list. */
  capabilities: 0x0010,
} as const;

/** Bytes of the header. */
export const PCI_HEADER_BYTES = 64;
/** Bytes of the configuration space that conventional PCI has. */
export const PCI_CONFIG_BYTES = 256;
/** Bytes of the configuration space that PCI Express has. */
export const PCIE_CONFIG_BYTES = 4096;

/** A base address register (PCI Local Bus 3.0, 6.2.5.1). */
export interface Bar {
  /** Index of the register, of the lower one when there are two: 0 to 5. */
  readonly index: number;
  /** `reserved` stands for a type that is not defined, and for a 64-bit BAR without an upper half. */
  readonly kind: 'memory32' | 'memory64' | 'io' | 'reserved';
  /** Address that the host assigned. One of 2^53 or more is rounded. */
  readonly address: number;
  /** The memory has no side effects when it is read. */
  readonly prefetchable: boolean;
}

/** The configuration header (PCI Local Bus 3.0, 6.1). */
export interface ConfigHeader {
  /** Vendor id, 16 bits. */
  readonly vendorId: number;
  /** Device id, 16 bits. */
  readonly deviceId: number;
  /** Command register, see {@link PciCommand}. */
  readonly command: number;
  /** Status register, see {@link PciStatus}. */
  readonly status: number;
  /** Revision id, 8 bits. */
  readonly revisionId: number;
  /** Base class, subclass and programming interface, 24 bits: 010802h for NVMe. */
  readonly classCode: number;
  /** 0 for a function, 1 for a bridge, 2 for a CardBus bridge. */
  readonly headerType: number;
  /** The device has other functions beside this one. */
  readonly multiFunction: boolean;
  /** BARs, 6 of a function and 2 of a bridge; the upper halves of 64-bit ones are left out, zero ones are not. */
  readonly bars: readonly Bar[];
  /** Subsystem vendor id, 16 bits. Undefined for bridges, which have it in a capability. */
  readonly subsystemVendorId: number | undefined;
  /** Subsystem id, 16 bits. Undefined for bridges. */
  readonly subsystemId: number | undefined;
  /** Offset at which the capability list begins, as read; 0 when there is none. */
  readonly capabilityPointer: number;
  /** Interrupt line, 8 bits: written by firmware, for the operating system to read. */
  readonly interruptLine: number;
  /** 0 for none, 1 to 4 for INTA to INTD. */
  readonly interruptPin: number;
}

/**
 * Decodes the configuration header.
 *
 * @param config at least the first 64 bytes
 * @throws VfioUserError `ERR_VFIO_USER_PCI` when there are fewer bytes, or no device answers (vendor FFFFh)
 */
export function parseConfigHeader(config: Uint8Array): ConfigHeader {
  if (config.byteLength < PCI_HEADER_BYTES) {
    throw new VfioUserError(
      'ERR_VFIO_USER_PCI',
      `The configuration header is ${PCI_HEADER_BYTES} bytes, but only ${config.byteLength} were read`,
    );
  }
  const view = new DataView(config.buffer, config.byteOffset, config.byteLength);
  const vendorId = view.getUint16(PciConfig.vendorId, true);
  if (vendorId === 0xffff) {
    throw new VfioUserError(
      'ERR_VFIO_USER_PCI',
      'The configuration space has the vendor id FFFFh: no device',
    );
  }
  const headerType = view.getUint8(PciConfig.headerType) & 0x7f;
  const isFunction = headerType === 0;
  const status = view.getUint16(PciConfig.status, true);
  const hasCapabilities = (status & PciStatus.capabilities) !== 0;
  return {
    vendorId,
    deviceId: view.getUint16(PciConfig.deviceId, true),
    command: view.getUint16(PciConfig.command, true),
    status,
    revisionId: view.getUint8(PciConfig.revisionId),
    classCode: view.getUint32(PciConfig.revisionId, true) >>> 8,
    headerType,
    multiFunction: (view.getUint8(PciConfig.headerType) & 0x80) !== 0,
    bars: parseBars(view, isFunction ? 6 : headerType === 1 ? 2 : 0),
    subsystemVendorId: isFunction ? view.getUint16(PciConfig.subsystemVendorId, true) : undefined,
    subsystemId: isFunction ? view.getUint16(PciConfig.subsystemId, true) : undefined,
    capabilityPointer: hasCapabilities ? view.getUint8(PciConfig.capabilities) : 0,
    interruptLine: view.getUint8(PciConfig.interruptLine),
    interruptPin: view.getUint8(PciConfig.interruptPin),
  };
}

/** Decodes the base address registers (PCI Local Bus 3.0, 6.2.5.1). */
function parseBars(view: DataView, count: number): Bar[] {
  const bars: Bar[] = [];
  for (let index = 0; index < count; index++) {
    const raw = view.getUint32(PciConfig.bar0 + 4 * index, true);
    if ((raw & 1) !== 0) {
      bars.push({ index, kind: 'io', address: (raw & ~0x3) >>> 0, prefetchable: false });
      continue;
    }
    const prefetchable = (raw & 8) !== 0;
    const low = (raw & ~0xf) >>> 0;
    const width = (raw >>> 1) & 3;
    if (width === 2 && index + 1 < count) {
      const high = view.getUint32(PciConfig.bar0 + 4 * (index + 1), true);
      bars.push({ index, kind: 'memory64', address: high * 0x1_0000_0000 + low, prefetchable });
      index++;
    } else {
      // Width 1 meant "below 1 MiB" before PCI 3.0; it is still 32 bits wide.
      bars.push({ index, kind: width < 2 ? 'memory32' : 'reserved', address: low, prefetchable });
    }
  }
  return bars;
}
