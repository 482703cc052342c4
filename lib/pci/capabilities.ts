// SPDX-License-Identifier: MIT
import { PCI_CONFIG_BYTES, PCI_HEADER_BYTES, PciConfig, PciStatus } from './config-space';

/** Capability ids (`linux/pci_regs.h`, `PCI_CAP_ID_*`). */
export const CapabilityId = {
  powerManagement: 0x01,
  msi: 0x05,
  vendor: 0x09,
  express: 0x10,
  msix: 0x11,
} as const;

/** Extended capability ids (`linux/pci_regs.h`, `PCI_EXT_CAP_ID_*`). */
export const ExtendedCapabilityId = { advancedErrors: 0x0001, serialNumber: 0x0003, vendor: 0x000b } as const;

/** Message Control of MSI (`linux/pci_regs.h`, `PCI_MSI_FLAGS_*`): bits, and a field of the base-2 logarithm of vectors. */
export const MsiControl = {
  enable: 0x0001,
  capable: 0x000e,
  messages: 0x0070,
  address64: 0x0080,
  perVectorMasking: 0x0100,
} as const;

/** Where every capability is: its id and the offset of its header in configuration space. */
interface Located {
  readonly id: number;
  readonly offset: number;
}

/** Power Management (PCI PM 1.2, 3.2). */
export interface PowerManagementCapability extends Located {
  readonly kind: 'power-management';
  readonly version: number;
  readonly d1: boolean;
  readonly d2: boolean;
  /** Mask of the states that can send PME: bit 0 is D0, bit 4 is D3cold. */
  readonly pmeStates: number;
  /** State, 0 to 3 for D0 to D3hot. */
  readonly state: number;
  /** The device keeps its state through D3hot. */
  readonly noSoftReset: boolean;
}

/** MSI (PCI Local Bus 3.0, 6.8.1). */
export interface MsiCapability extends Located {
  readonly kind: 'msi';
  readonly enabled: boolean;
  /** Vectors that the device can use. */
  readonly vectors: number;
  /** Vectors that it may use. */
  readonly enabledVectors: number;
  readonly address64: boolean;
  readonly perVectorMasking: boolean;
}

/** A structure in a BAR. */
export interface BarLocation {
  /** BAR, 0 to 5; 6 and 7 are reserved. */
  readonly bar: number;
  /** Bytes from the begin of the BAR, a multiple of 8. */
  readonly offset: number;
}

/** MSI-X (PCI Local Bus 3.0, 6.8.2). */
export interface MsixCapability extends Located {
  readonly kind: 'msix';
  readonly enabled: boolean;
  readonly functionMask: boolean;
  /** Entries of the table, 1 to 2048. */
  readonly vectors: number;
  readonly table: BarLocation;
  /** Pending bit array. */
  readonly pba: BarLocation;
}

/** PCI Express (PCI Express base 5.0, 7.5.3). */
export interface ExpressCapability extends Located {
  readonly kind: 'express';
  readonly version: number;
  /** 0 endpoint, 1 legacy endpoint, 4 root port, 5 upstream port, 6 downstream port, 9 root complex endpoint. */
  readonly deviceType: number;
  /** Function level reset is offered. */
  readonly functionLevelReset: boolean;
  /** Greatest payload that the device takes, in bytes. */
  readonly maxPayloadSupported: number;
  /** Payload in use, in bytes. */
  readonly maxPayload: number;
  /** Greatest read request, in bytes. */
  readonly maxReadRequest: number;
  /** Generation of the fastest link (1 for 2.5 GT/s) and its lanes; 0 when not told. */
  readonly linkCapability: { readonly speed: number; readonly width: number };
  /** Generation and lanes of the link in use. */
  readonly link: { readonly speed: number; readonly width: number };
}

/** Vendor Specific. */
export interface VendorCapability extends Located {
  readonly kind: 'vendor';
  /** Bytes of the capability, header included, as it says itself and cut at byte 256. */
  readonly length: number;
}

/** A capability of another id, or one that does not fit where it is. */
export interface UnknownCapability extends Located {
  readonly kind: 'unknown';
}

/** A capability of the first 256 bytes. */
export type Capability =
  | PowerManagementCapability
  | MsiCapability
  | MsixCapability
  | ExpressCapability
  | VendorCapability
  | UnknownCapability;

/** Device Serial Number (PCI Express base 5.0, 7.9.3). */
export interface SerialNumberCapability extends Located {
  readonly kind: 'serial-number';
  readonly version: number;
  readonly serialNumber: bigint;
}

/** Advanced Error Reporting (PCI Express base 5.0, 7.8.4); masks of error bits. */
export interface AdvancedErrorsCapability extends Located {
  readonly kind: 'advanced-errors';
  readonly version: number;
  readonly uncorrectableStatus: number;
  readonly uncorrectableMask: number;
  readonly uncorrectableSeverity: number;
  readonly correctableStatus: number;
  readonly correctableMask: number;
}

/** Vendor Specific Extended (PCI Express base 5.0, 7.9.5). */
export interface VendorExtendedCapability extends Located {
  readonly kind: 'vendor-extended';
  readonly version: number;
  readonly vendorSpecificId: number;
  readonly revision: number;
  /** Bytes of the capability, header included, as it says itself. */
  readonly length: number;
}

/** An extended capability of another id, or one that does not fit where it is. */
export interface UnknownExtendedCapability extends Located {
  readonly kind: 'unknown-extended';
  readonly version: number;
}

/** A capability from byte 256 on. */
export type ExtendedCapability =
  SerialNumberCapability | AdvancedErrorsCapability | VendorExtendedCapability | UnknownExtendedCapability;

/** The capabilities that were found before the end of a list, or before what is wrong with it. */
export interface CapabilityList<T> {
  readonly capabilities: readonly T[];
  /** What is wrong with the list, in words; undefined when it is sound. */
  readonly problem: string | undefined;
}

const hex = (value: number): string => `0x${value.toString(16)}`;

type Decoder<T> = readonly [size: number, decode: (view: DataView, at: Located) => T];

const DECODERS: ReadonlyMap<number, Decoder<Capability>> = new Map<number, Decoder<Capability>>([
  [CapabilityId.powerManagement, [8, powerManagement]],
  [CapabilityId.msi, [10, msi]],
  [CapabilityId.vendor, [3, vendor]],
  [CapabilityId.express, [0x14, express]],
  [CapabilityId.msix, [12, msix]],
]);

/**
 * Walks the capability list. A hostile list does no harm: it is followed as far as it is sound.
 * @param config the first 256 bytes, or more; with fewer the list ends where they end
 */
export function parseCapabilities(config: Uint8Array): CapabilityList<Capability> {
  const capabilities: Capability[] = [];
  const result = (problem?: string): CapabilityList<Capability> => ({ capabilities, problem });
  if (config.byteLength < PCI_HEADER_BYTES) return result('the header is cut short');
  const end = Math.min(config.byteLength, PCI_CONFIG_BYTES);
  const view = new DataView(config.buffer, config.byteOffset, end);
  if ((view.getUint16(PciConfig.status, true) & PciStatus.capabilities) === 0) return result();
  const seen = new Set<number>();
  // The two lowest bits of each pointer are reserved (PCI Local Bus 3.0, 6.7).
  let offset = view.getUint8(PciConfig.capabilities) & 0xfc;
  while (offset !== 0) {
    if (offset < PCI_HEADER_BYTES) return result(`a pointer leads into the header, to ${hex(offset)}`);
    if (offset + 2 > end)
      return result(`a pointer leads to ${hex(offset)}, beyond the ${end} bytes that were read`);
    if (seen.has(offset)) return result(`the list runs in a loop through ${hex(offset)}`);
    seen.add(offset);
    const id = view.getUint8(offset);
    if (id === 0xff) return result(`no capability answers at ${hex(offset)}`);
    const decoder = DECODERS.get(id);
    if (decoder !== undefined && offset + decoder[0] > end) {
      capabilities.push({ kind: 'unknown', id, offset });
      return result(`the capability at ${hex(offset)} is cut short`);
    }
    capabilities.push(
      decoder === undefined ? { kind: 'unknown', id, offset } : decoder[1](view, { id, offset }),
    );
    offset = view.getUint8(offset + 1) & 0xfc;
  }
  return result();
}

function powerManagement(view: DataView, at: Located): PowerManagementCapability {
  const pmc = view.getUint16(at.offset + 2, true);
  const pmcsr = view.getUint16(at.offset + 4, true);
  return {
    ...at,
    kind: 'power-management',
    version: pmc & 7,
    d1: (pmc & 0x0200) !== 0,
    d2: (pmc & 0x0400) !== 0,
    pmeStates: pmc >>> 11,
    state: pmcsr & 3,
    noSoftReset: (pmcsr & 0x0008) !== 0,
  };
}

function msi(view: DataView, at: Located): MsiCapability {
  const control = view.getUint16(at.offset + 2, true);
  return {
    ...at,
    kind: 'msi',
    enabled: (control & MsiControl.enable) !== 0,
    vectors: 2 ** ((control & MsiControl.capable) >>> 1),
    enabledVectors: 2 ** ((control & MsiControl.messages) >>> 4),
    address64: (control & MsiControl.address64) !== 0,
    perVectorMasking: (control & MsiControl.perVectorMasking) !== 0,
  };
}

function barLocation(word: number): BarLocation {
  return { bar: word & 7, offset: (word & ~7) >>> 0 };
}

function msix(view: DataView, at: Located): MsixCapability {
  const control = view.getUint16(at.offset + 2, true);
  return {
    ...at,
    kind: 'msix',
    enabled: (control & 0x8000) !== 0,
    functionMask: (control & 0x4000) !== 0,
    vectors: (control & 0x07ff) + 1,
    table: barLocation(view.getUint32(at.offset + 4, true)),
    pba: barLocation(view.getUint32(at.offset + 8, true)),
  };
}

function express(view: DataView, at: Located): ExpressCapability {
  const capabilities = view.getUint16(at.offset + 2, true);
  const device = view.getUint32(at.offset + 4, true);
  const control = view.getUint16(at.offset + 8, true);
  const link = view.getUint32(at.offset + 12, true);
  const linkStatus = view.getUint16(at.offset + 18, true);
  return {
    ...at,
    kind: 'express',
    version: capabilities & 0xf,
    deviceType: (capabilities >>> 4) & 0xf,
    functionLevelReset: (device & 0x1000_0000) !== 0,
    maxPayloadSupported: 128 * 2 ** (device & 7),
    maxPayload: 128 * 2 ** ((control >>> 5) & 7),
    maxReadRequest: 128 * 2 ** ((control >>> 12) & 7),
    linkCapability: { speed: link & 0xf, width: (link >>> 4) & 0x3f },
    link: { speed: linkStatus & 0xf, width: (linkStatus >>> 4) & 0x3f },
  };
}

function vendor(view: DataView, at: Located): VendorCapability {
  const length = Math.min(view.getUint8(at.offset + 2), view.byteLength - at.offset);
  return { ...at, kind: 'vendor', length };
}

interface LocatedExtended extends Located {
  readonly version: number;
}

type ExtendedDecoder = readonly [
  size: number,
  decode: (view: DataView, at: LocatedExtended) => ExtendedCapability,
];

const EXTENDED_DECODERS: ReadonlyMap<number, ExtendedDecoder> = new Map<number, ExtendedDecoder>([
  [ExtendedCapabilityId.advancedErrors, [0x18, advancedErrors]],
  [ExtendedCapabilityId.serialNumber, [12, serialNumber]],
  [ExtendedCapabilityId.vendor, [8, vendorExtended]],
]);

/**
 * Walks the list of extended capabilities, which begins at byte 256 (PCI Express base 5.0, 7.6).
 * @param config 4096 bytes; with no more than 256 there is no list
 */
export function parseExtendedCapabilities(config: Uint8Array): CapabilityList<ExtendedCapability> {
  const capabilities: ExtendedCapability[] = [];
  const result = (problem?: string): CapabilityList<ExtendedCapability> => ({ capabilities, problem });
  const end = config.byteLength;
  if (end < PCI_CONFIG_BYTES + 4) return result();
  const view = new DataView(config.buffer, config.byteOffset, end);
  const seen = new Set<number>();
  let offset = PCI_CONFIG_BYTES;
  while (offset !== 0) {
    if (offset < PCI_CONFIG_BYTES) return result(`a pointer leads below 0x100, to ${hex(offset)}`);
    if (offset + 4 > end)
      return result(`a pointer leads to ${hex(offset)}, beyond the ${end} bytes that were read`);
    if (seen.has(offset)) return result(`the list runs in a loop through ${hex(offset)}`);
    seen.add(offset);
    const header = view.getUint32(offset, true);
    // A device without extended capabilities reads 0 at 0x100; nothing there at all reads ones.
    if (offset === PCI_CONFIG_BYTES && (header === 0 || header === 0xffff_ffff)) return result();
    const at = { id: header & 0xffff, offset, version: (header >>> 16) & 0xf };
    if (at.id === 0xffff) return result(`no capability answers at ${hex(offset)}`);
    const decoder = EXTENDED_DECODERS.get(at.id);
    if (decoder !== undefined && offset + decoder[0] > end) {
      capabilities.push({ ...at, kind: 'unknown-extended' });
      return result(`the capability at ${hex(offset)} is cut short`);
    }
    capabilities.push(decoder === undefined ? { ...at, kind: 'unknown-extended' } : decoder[1](view, at));
    offset = (header >>> 20) & 0xffc;
  }
  return result();
}

function advancedErrors(view: DataView, at: LocatedExtended): AdvancedErrorsCapability {
  return {
    ...at,
    kind: 'advanced-errors',
    uncorrectableStatus: view.getUint32(at.offset + 0x04, true),
    uncorrectableMask: view.getUint32(at.offset + 0x08, true),
    uncorrectableSeverity: view.getUint32(at.offset + 0x0c, true),
    correctableStatus: view.getUint32(at.offset + 0x10, true),
    correctableMask: view.getUint32(at.offset + 0x14, true),
  };
}

function serialNumber(view: DataView, at: LocatedExtended): SerialNumberCapability {
  const low = BigInt(view.getUint32(at.offset + 4, true));
  return {
    ...at,
    kind: 'serial-number',
    serialNumber: (BigInt(view.getUint32(at.offset + 8, true)) << 32n) | low,
  };
}

function vendorExtended(view: DataView, at: LocatedExtended): VendorExtendedCapability {
  const word = view.getUint32(at.offset + 4, true);
  return {
    ...at,
    kind: 'vendor-extended',
    vendorSpecificId: word & 0xffff,
    revision: (word >>> 16) & 0xf,
    length: word >>> 20,
  };
}
