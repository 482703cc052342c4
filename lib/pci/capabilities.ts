// SPDX-License-Identifier: MIT

/** Capability ids (`linux/pci_regs.h`, `PCI_CAP_ID_*`). */
export const CapabilityId = {
  /** Power Management. */
  powerManagement: 0x01,
  /** MSI. */
  msi: 0x05,
  /** Vendor Specific. */
  vendor: 0x09,
  /** PCI Express. */
  express: 0x10,
  /** MSI-X. */
  msix: 0x11,
} as const;

/** Extended capability ids (`linux/pci_regs.h`, `PCI_EXT_CAP_ID_*`). */
export const ExtendedCapabilityId = {
  /** Advanced Error Reporting. */
  advancedErrors: 0x0001,
  /** Device Serial Number. */
  serialNumber: 0x0003,
  /** Vendor Specific Extended Capability. */
  vendor: 0x000b,
} as const;

/** Message Control of MSI (`linux/pci_regs.h`, `PCI_MSI_FLAGS_*`). */
export const MsiControl = {
  /** MSI is used. */
  enable: 0x0001,
  /** Field: base-2 logarithm of the vectors that the device can use. */
  capable: 0x000e,
  /** Field: base-2 logarithm of the vectors that the host lets it use. */
  messages: 0x0070,
  /** The message address has 64 bits. */
  address64: 0x0080,
  /** There are mask and pending bits. */
  perVectorMasking: 0x0100,
} as const;

/** Message Control of MSI-X (`linux/pci_regs.h`, `PCI_MSIX_FLAGS_*`). */
export const MsixControl = {
  /** Field: entries of the table, less one. */
  size: 0x07ff,
  /** All vectors are masked. */
  functionMask: 0x4000,
  /** MSI-X is used. */
  enable: 0x8000,
} as const;

/** What all capabilities have. */
export interface CapabilityHeader {
  /** Capability id, see {@link CapabilityId} and {@link ExtendedCapabilityId}. */
  readonly id: number;
  /** Offset of the header in configuration space, in bytes. */
  readonly offset: number;
}

/** What all extended capabilities have. */
export interface ExtendedCapabilityHeader extends CapabilityHeader {
  /** Version of the capability's structure, 0 to 15. */
  readonly version: number;
}

/** Power Management (PCI PM 1.2, 3.2). */
export interface PowerManagementCapability extends CapabilityHeader {
  /** Tells the capabilities apart. */
  readonly kind: 'power-management';
  /** Version of PCI Power Management that the function complies with, 0 to 7. */
  readonly version: number;
  /** The function supports the state D1. */
  readonly d1: boolean;
  /** The function supports the state D2. */
  readonly d2: boolean;
  /** Mask of the states that can send PME: bit 0 is D0, bit 4 is D3cold. */
  readonly pmeStates: number;
  /** State, 0 to 3 for D0 to D3hot. */
  readonly state: number;
  /** The function keeps its state through D3hot. */
  readonly noSoftReset: boolean;
}

/** MSI (PCI Local Bus 3.0, 6.8.1). */
export interface MsiCapability extends CapabilityHeader {
  /** Tells the capabilities apart. */
  readonly kind: 'msi';
  /** MSI Enable. */
  readonly enabled: boolean;
  /** Vectors that the device can use (Multiple Message Capable), a power of two. */
  readonly vectors: number;
  /** Vectors that the host lets it use (Multiple Message Enable), a power of two. */
  readonly enabledVectors: number;
  /** The message address has 64 bits. */
  readonly address64: boolean;
  /** There are mask and pending bits. */
  readonly perVectorMasking: boolean;
}

/** Where a structure lies in a BAR. */
export interface BarLocation {
  /** Index of the BAR, 0 to 5; 6 and 7 are reserved. */
  readonly bar: number;
  /** Bytes from the start of the BAR, a multiple of 8. */
  readonly offset: number;
}

/** MSI-X (PCI Local Bus 3.0, 6.8.2). */
export interface MsixCapability extends CapabilityHeader {
  /** Tells the capabilities apart. */
  readonly kind: 'msix';
  /** MSI-X Enable. */
  readonly enabled: boolean;
  /** Function Mask: all vectors are masked, whatever their own mask bits say. */
  readonly functionMask: boolean;
  /** Entries of the table, 1 to 2048. */
  readonly vectors: number;
  /** The table. */
  readonly table: BarLocation;
  /** The pending bit array. */
  readonly pba: BarLocation;
}

/** A PCI Express link (PCI Express base 5.0, 7.5.3.6 and 7.5.3.8). */
export interface ExpressLink {
  /** Generation: 1 for 2.5 GT/s, 2 for 5 GT/s and so on; 0 when not told. */
  readonly speed: number;
  /** Lanes, 1 to 32; 0 when not told. */
  readonly width: number;
}

/** PCI Express (PCI Express base 5.0, 7.5.3). */
export interface ExpressCapability extends CapabilityHeader {
  /** Tells the capabilities apart. */
  readonly kind: 'express';
  /** Version of the capability's structure, 0 to 15. */
  readonly version: number;
  /** 0 endpoint, 1 legacy endpoint, 4 root port, 5 upstream port, 6 downstream port, 9 root complex endpoint. */
  readonly deviceType: number;
  /** Function level reset is offered. */
  readonly functionLevelReset: boolean;
  /** Greatest payload that the device takes, in bytes. */
  readonly maxPayloadSupported: number;
  /** Greatest payload that it may use, in bytes. */
  readonly maxPayload: number;
  /** Greatest read request that it may send, in bytes. */
  readonly maxReadRequest: number;
  /** What the link can do at most. */
  readonly linkCapability: ExpressLink;
  /** What the link does now. */
  readonly link: ExpressLink;
}

/** Vendor Specific (PCI Local Bus 3.0, appendix H). */
export interface VendorCapability extends CapabilityHeader {
  /** Tells the capabilities apart. */
  readonly kind: 'vendor';
  /** Bytes of the capability with its header, as it says itself and cut at byte 256. */
  readonly length: number;
}

/** A capability of another id, or one that does not fit where it is. */
export interface UnknownCapability extends CapabilityHeader {
  /** Tells the capabilities apart. */
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
export interface SerialNumberCapability extends ExtendedCapabilityHeader {
  /** Tells the capabilities apart. */
  readonly kind: 'serial-number';
  /** The 64 bits of the serial number, an EUI-64. */
  readonly serialNumber: bigint;
}

/** Advanced Error Reporting (PCI Express base 5.0, 7.8.4). Its registers are masks with one bit for each error. */
export interface AdvancedErrorsCapability extends ExtendedCapabilityHeader {
  /** Tells the capabilities apart. */
  readonly kind: 'advanced-errors';
  /** Uncorrectable errors that have happened. */
  readonly uncorrectableStatus: number;
  /** Uncorrectable errors that are not reported. */
  readonly uncorrectableMask: number;
  /** Uncorrectable errors that are fatal. */
  readonly uncorrectableSeverity: number;
  /** Correctable errors that have happened. */
  readonly correctableStatus: number;
  /** Correctable errors that are not reported. */
  readonly correctableMask: number;
}

/** Vendor Specific Extended Capability (PCI Express base 5.0, 7.9.5). */
export interface VendorExtendedCapability extends ExtendedCapabilityHeader {
  /** Tells the capabilities apart. */
  readonly kind: 'vendor-extended';
  /** The vendor's own id of the structure, 16 bits. */
  readonly vendorSpecificId: number;
  /** Revision of the structure, 0 to 15. */
  readonly revision: number;
  /** Bytes of the capability with its header, as it says itself. */
  readonly length: number;
}

/** An extended capability of another id, or one that does not fit where it is. */
export interface UnknownExtendedCapability extends ExtendedCapabilityHeader {
  /** Tells the capabilities apart. */
  readonly kind: 'unknown-extended';
}

/** A capability from byte 256 on. */
export type ExtendedCapability =
  SerialNumberCapability | AdvancedErrorsCapability | VendorExtendedCapability | UnknownExtendedCapability;

/** The capabilities that were found before the end of a list, or before what is wrong with it. */
export interface CapabilityList<T> {
  /** In the order of the list. */
  readonly capabilities: readonly T[];
  /** What is wrong with the list, in words; undefined when it is sound. */
  readonly problem: string | undefined;
}
