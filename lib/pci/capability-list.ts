// SPDX-License-Identifier: MIT
import {
  CapabilityId,
  ExtendedCapabilityId,
  MsiControl,
  MsixControl,
  type AdvancedErrorsCapability,
  type BarLocation,
  type Capability,
  type CapabilityHeader,
  type CapabilityList,
  type ExpressCapability,
  type ExtendedCapability,
  type ExtendedCapabilityHeader,
  type MsiCapability,
  type MsixCapability,
  type PowerManagementCapability,
  type SerialNumberCapability,
  type VendorCapability,
  type VendorExtendedCapability,
} from './capabilities';
import { PCI_CONFIG_BYTES, PCI_HEADER_BYTES, PciConfig, PciStatus } from './config-header';

const hex = (value: number): string => `0x${value.toString(16)}`;

type Decoder<T> = readonly [size: number, decode: (view: DataView, at: CapabilityHeader) => T];

const DECODERS: ReadonlyMap<number, Decoder<Capability>> = new Map<number, Decoder<Capability>>([
  [CapabilityId.powerManagement, [8, powerManagement]],
  [CapabilityId.msi, [10, msi]],
  [CapabilityId.vendor, [3, vendor]],
  [CapabilityId.express, [0x14, express]],
  [CapabilityId.msix, [12, msix]],
]);

/**
 * Walks the capability list (PCI Local Bus 3.0, 6.7). A hostile list does no harm: it is followed as far as it is sound.
 *
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

function powerManagement(view: DataView, at: CapabilityHeader): PowerManagementCapability {
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

function msi(view: DataView, at: CapabilityHeader): MsiCapability {
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

function msix(view: DataView, at: CapabilityHeader): MsixCapability {
  const control = view.getUint16(at.offset + 2, true);
  return {
    ...at,
    kind: 'msix',
    enabled: (control & MsixControl.enable) !== 0,
    functionMask: (control & MsixControl.functionMask) !== 0,
    vectors: (control & MsixControl.size) + 1,
    table: barLocation(view.getUint32(at.offset + 4, true)),
    pba: barLocation(view.getUint32(at.offset + 8, true)),
  };
}

function express(view: DataView, at: CapabilityHeader): ExpressCapability {
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

function vendor(view: DataView, at: CapabilityHeader): VendorCapability {
  const length = Math.min(view.getUint8(at.offset + 2), view.byteLength - at.offset);
  return { ...at, kind: 'vendor', length };
}

type ExtendedDecoder = readonly [
  size: number,
  decode: (view: DataView, at: ExtendedCapabilityHeader) => ExtendedCapability,
];

const EXTENDED_DECODERS: ReadonlyMap<number, ExtendedDecoder> = new Map<number, ExtendedDecoder>([
  [ExtendedCapabilityId.advancedErrors, [0x18, advancedErrors]],
  [ExtendedCapabilityId.serialNumber, [12, serialNumber]],
  [ExtendedCapabilityId.vendor, [8, vendorExtended]],
]);

/**
 * Walks the list of extended capabilities, which begins at byte 256 (PCI Express base 5.0, 7.6).
 *
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

function advancedErrors(view: DataView, at: ExtendedCapabilityHeader): AdvancedErrorsCapability {
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

function serialNumber(view: DataView, at: ExtendedCapabilityHeader): SerialNumberCapability {
  const low = BigInt(view.getUint32(at.offset + 4, true));
  return {
    ...at,
    kind: 'serial-number',
    serialNumber: (BigInt(view.getUint32(at.offset + 8, true)) << 32n) | low,
  };
}

function vendorExtended(view: DataView, at: ExtendedCapabilityHeader): VendorExtendedCapability {
  const word = view.getUint32(at.offset + 4, true);
  return {
    ...at,
    kind: 'vendor-extended',
    vendorSpecificId: word & 0xffff,
    revision: (word >>> 16) & 0xf,
    length: word >>> 20,
  };
}
