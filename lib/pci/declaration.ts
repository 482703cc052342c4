// SPDX-License-Identifier: MIT
import type { BarLocation } from './capabilities';
import { checkKeys, checkKind, type Keys, type KeysByKind } from './check-keys';

/** A BAR that a device has. */
export type BarDeclaration = MemoryBarDeclaration | IoBarDeclaration;

/** A BAR with memory. */
export interface MemoryBarDeclaration {
  /** How wide its address is. A 64-bit BAR takes two indexes. */
  readonly kind: 'memory32' | 'memory64';
  /** Bytes, a power of two: at least 16, up to 2^31 or 2^52. */
  readonly size: number;
  /** Reads have no side effects. Default false. */
  readonly prefetchable?: boolean;
}

/** A BAR with I/O ports. */
export interface IoBarDeclaration {
  /** Tells the BARs apart. */
  readonly kind: 'io';
  /** Bytes, a power of two from 4 to 256. */
  readonly size: number;
}

/** The BARs that a device has, by index. */
export type BarDeclarations = Readonly<Partial<Record<0 | 1 | 2 | 3 | 4 | 5, BarDeclaration | undefined>>>;

/** A capability that a device has. */
export type CapabilityDeclaration =
  | PowerManagementDeclaration
  | ExpressDeclaration
  | MsiDeclaration
  | MsixDeclaration
  | VendorDeclaration
  | SerialNumberDeclaration
  | AdvancedErrorsDeclaration;

/** Power Management with the states D0 and D3hot, which keeps the state of the device (PCI PM 1.2, 3.2). */
export interface PowerManagementDeclaration {
  /** Tells the capabilities apart. */
  readonly kind: 'power-management';
}

/** PCI Express: an endpoint with a link of one lane (PCI Express base 5.0, 7.5.3). */
export interface ExpressDeclaration {
  /** Tells the capabilities apart. */
  readonly kind: 'express';
  /** Offers a function level reset. Default false. */
  readonly functionLevelReset?: boolean;
}

/** MSI (PCI Express base 5.0, 7.7.1). */
export interface MsiDeclaration {
  /** Tells the capabilities apart. */
  readonly kind: 'msi';
  /** Vectors that the device can use. */
  readonly vectors: 1 | 2 | 4 | 8 | 16 | 32;
  /** Takes addresses of 64 bits, as a PCI Express endpoint must. Default true. */
  readonly address64?: boolean;
  /** Has mask and pending bits. Default false. */
  readonly perVectorMasking?: boolean;
}

/** MSI-X (PCI Local Bus 3.0, 6.8.2). The structures lie in memory BARs and must not overlap. */
export interface MsixDeclaration {
  /** Tells the capabilities apart. */
  readonly kind: 'msix';
  /** Entries of the table, 1 to 2048. */
  readonly vectors: number;
  /** The table, 16 bytes for each vector. */
  readonly table: BarLocation;
  /** The pending bit array, 8 bytes for each 64 vectors. */
  readonly pba: BarLocation;
}

/** Vendor Specific (PCI Local Bus 3.0, appendix H). The only capability of which there may be several. */
export interface VendorDeclaration {
  /** Tells the capabilities apart. */
  readonly kind: 'vendor';
  /** What follows id, pointer and length; read-only for the client. At most 189 bytes. */
  readonly data: Uint8Array;
}

/** Device Serial Number, an extended capability (PCI Express base 5.0, 7.9.3). */
export interface SerialNumberDeclaration {
  /** Tells the capabilities apart. */
  readonly kind: 'serial-number';
  /** 0 to 2^64 - 1. */
  readonly serialNumber: bigint;
}

/** Advanced Error Reporting, an extended capability (PCI Express base 5.0, 7.8.4). */
export interface AdvancedErrorsDeclaration {
  /** Tells the capabilities apart. */
  readonly kind: 'advanced-errors';
}

/** What a configuration space is made of: header type 0, the one of a function (PCI Local Bus 3.0, 6.1). */
export interface ConfigSpaceDeclaration {
  /** Vendor id, 0 to FFFEh. */
  readonly vendorId: number;
  /** Device id, 0 to FFFFh. */
  readonly deviceId: number;
  /** Subsystem vendor id, 0 to FFFFh. Default 0. */
  readonly subsystemVendorId?: number;
  /** Subsystem id, 0 to FFFFh. Default 0. */
  readonly subsystemId?: number;
  /** Revision id, 0 to FFh. Default 0. */
  readonly revisionId?: number;
  /** Base class, subclass and programming interface, 24 bits: 010802h for NVMe. */
  readonly classCode: number;
  /** 0 for none, 1 to 4 for INTA to INTD. Default 0. */
  readonly interruptPin?: number;
  /** The BARs, as `{ 0: { kind: 'memory64', size: 0x4000 }, 4: … }`. */
  readonly bars?: BarDeclarations;
  /** The capabilities. They are laid out from byte 40h (extended ones from 100h) in the order given. */
  readonly capabilities?: readonly CapabilityDeclaration[];
  /** Bytes: 4096, or 256 for conventional PCI. Default 4096. */
  readonly size?: 256 | 4096;
}

const CONFIG_SPACE: Keys<ConfigSpaceDeclaration> = {
  vendorId: 'required',
  deviceId: 'required',
  classCode: 'required',
  subsystemVendorId: 'optional',
  subsystemId: 'optional',
  revisionId: 'optional',
  interruptPin: 'optional',
  bars: 'optional',
  capabilities: 'optional',
  size: 'optional',
};
const BARS: Keys<BarDeclarations> = {
  0: 'optional',
  1: 'optional',
  2: 'optional',
  3: 'optional',
  4: 'optional',
  5: 'optional',
};
const MEMORY_BAR: Keys<MemoryBarDeclaration> = {
  kind: 'required',
  size: 'required',
  prefetchable: 'optional',
};
const BAR_KINDS: KeysByKind<BarDeclaration> = {
  memory32: MEMORY_BAR,
  memory64: MEMORY_BAR,
  io: { kind: 'required', size: 'required' },
};
const LOCATION: Keys<BarLocation> = { bar: 'required', offset: 'required' };
const CAPABILITY_KINDS: KeysByKind<CapabilityDeclaration> = {
  'power-management': { kind: 'required' },
  express: { kind: 'required', functionLevelReset: 'optional' },
  msi: { kind: 'required', vectors: 'required', address64: 'optional', perVectorMasking: 'optional' },
  msix: { kind: 'required', vectors: 'required', table: 'required', pba: 'required' },
  vendor: { kind: 'required', data: 'required' },
  'serial-number': { kind: 'required', serialNumber: 'required' },
  'advanced-errors': { kind: 'required' },
};

/** The BARs that are there, with their indexes. */
export function declaredBars(bars: BarDeclarations): [index: number, bar: BarDeclaration][] {
  return Object.entries(bars).flatMap(([index, bar]) => (bar === undefined ? [] : [[Number(index), bar]]));
}

/**
 * Checks the keys of a declaration. What their values are is checked where they are laid out.
 *
 * @throws TypeError ERR_INVALID_ARG_VALUE for a key that is not known, or one that is missing
 */
export function checkDeclaration(declaration: ConfigSpaceDeclaration): void {
  checkKeys('configuration space', declaration, CONFIG_SPACE);
  const { bars = {}, capabilities = [] } = declaration;
  checkKeys('bars', bars, BARS);
  for (const [index, bar] of declaredBars(bars)) checkKind(`BAR ${index}`, bar, BAR_KINDS);
  capabilities.forEach((capability, index) => {
    checkKind(`capability ${index}`, capability, CAPABILITY_KINDS);
    if (capability.kind !== 'msix') return;
    checkKeys(`capability ${index}, table`, capability.table, LOCATION);
    checkKeys(`capability ${index}, pba`, capability.pba, LOCATION);
  });
}
