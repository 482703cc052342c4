// SPDX-License-Identifier: MIT
import { inspect, types } from 'node:util';
import { invalidArgument, outOfRange } from '../errors';
import {
  CapabilityId,
  ExtendedCapabilityId,
  MsiControl,
  MsixControl,
  type BarLocation,
} from './capabilities';
import { PCI_CONFIG_BYTES, PciConfig, PciStatus } from './config-header';
import type { BarDeclarations, CapabilityDeclaration, MsiDeclaration, MsixDeclaration } from './declaration';

/** The arrays of a `ConfigImage`. */
export interface ConfigViews {
  readonly bytes: DataView;
  readonly writable: DataView;
  readonly clearable: DataView;
}

const MSI_VECTORS: readonly number[] = [1, 2, 4, 8, 16, 32];

/** Bytes of a capability. PCI Express has the 3Ch bytes of its version 2. */
function capabilitySize(capability: CapabilityDeclaration): number {
  switch (capability.kind) {
    case 'power-management':
      return 8;
    case 'express':
      return 0x3c;
    case 'msi':
      return msiLayout(capability).size;
    case 'msix':
    case 'serial-number':
      return 12;
    case 'vendor':
      if (!types.isUint8Array(capability.data))
        throw invalidArgument('The data of the capability vendor are no Uint8Array');
      return 3 + capability.data.byteLength;
    case 'advanced-errors':
      return 0x48;
  }
}

/**
 * Writes the capabilities, one behind the other, and links them.
 *
 * @returns the offset of each kind; of `vendor`, the last one
 * @throws TypeError or RangeError when one contradicts itself, comes twice or does not fit
 */
export function layOutCapabilities(
  views: ConfigViews,
  capabilities: readonly CapabilityDeclaration[],
  bars: BarDeclarations,
): ReadonlyMap<string, number> {
  const offsets = new Map<string, number>();
  let next = 0x40;
  let link: number = PciConfig.capabilities;
  let nextExtended = PCI_CONFIG_BYTES;
  let linkExtended: number | undefined;
  for (const capability of capabilities) {
    const { kind } = capability;
    if (offsets.has(kind) && kind !== 'vendor')
      throw invalidArgument(`The capability ${kind} is declared twice`);
    const extended = kind === 'serial-number' || kind === 'advanced-errors';
    const offset = extended ? nextExtended : next;
    const end = offset + ((capabilitySize(capability) + 3) & ~3);
    if (end > (extended ? views.bytes.byteLength : PCI_CONFIG_BYTES)) {
      throw outOfRange(
        `The capability ${kind} at ${offset} does not fit the ${views.bytes.byteLength} bytes of configuration space` +
          (extended ? '; extended ones begin at 256' : ', of which the first 256 hold such capabilities'),
      );
    }
    if (extended) {
      const id =
        kind === 'serial-number' ? ExtendedCapabilityId.serialNumber : ExtendedCapabilityId.advancedErrors;
      views.bytes.setUint32(offset, 0x1_0000 | id, true);
      if (linkExtended !== undefined) {
        views.bytes.setUint32(linkExtended, views.bytes.getUint32(linkExtended, true) | (offset << 20), true);
      }
      linkExtended = offset;
      nextExtended = end;
    } else {
      views.bytes.setUint8(link, offset);
      views.bytes.setUint16(PciConfig.status, PciStatus.capabilities, true);
      link = offset + 1;
      next = end;
    }
    offsets.set(kind, offset);
    fillCapability(views, offset, capability, bars);
  }
  return offsets;
}

function fillCapability(
  views: ConfigViews,
  offset: number,
  capability: CapabilityDeclaration,
  bars: BarDeclarations,
): void {
  const { bytes, writable, clearable } = views;
  switch (capability.kind) {
    case 'power-management':
      bytes.setUint8(offset, CapabilityId.powerManagement);
      // Version 3, and No_Soft_Reset: D3hot keeps the state of the device.
      bytes.setUint16(offset + 2, 0x0003, true);
      bytes.setUint16(offset + 4, 0x0008, true);
      writable.setUint16(offset + 4, 0x0003, true);
      return;
    case 'express':
      bytes.setUint8(offset, CapabilityId.express);
      // Version 2, endpoint; role-based error reporting; a link of one lane at 2.5 GT/s, as nothing is behind it.
      bytes.setUint16(offset + 2, 0x0002, true);
      bytes.setUint32(offset + 4, 0x8000 | (capability.functionLevelReset === true ? 0x1000_0000 : 0), true);
      bytes.setUint32(offset + 0x0c, 0x0011, true);
      bytes.setUint16(offset + 0x12, 0x0011, true);
      bytes.setUint32(offset + 0x24, 0x0010, true);
      writable.setUint16(offset + 0x08, 0x7fff, true);
      clearable.setUint16(offset + 0x0a, 0x000f, true);
      writable.setUint16(offset + 0x10, 0x00cb, true);
      writable.setUint16(offset + 0x28, 0x0010, true);
      return;
    case 'msi':
      fillMsi(views, offset, capability);
      return;
    case 'msix':
      fillMsix(views, offset, capability, bars);
      return;
    case 'vendor':
      bytes.setUint8(offset, CapabilityId.vendor);
      bytes.setUint8(offset + 2, 3 + capability.data.byteLength);
      capability.data.forEach((byte, i) => {
        bytes.setUint8(offset + 3 + i, byte);
      });
      return;
    case 'serial-number':
      bytes.setBigUint64(offset + 4, checkedSerial(capability.serialNumber), true);
      return;
    case 'advanced-errors':
      // Errors that a virtual device may report: bits of PCI Express base 5.0, 7.8.4.2 to 7.8.4.6, with their defaults.
      for (const [at, value] of [
        [0x0c, 0x0006_2030],
        [0x14, 0x0000_2000],
      ] as const) {
        bytes.setUint32(offset + at, value, true);
      }
      clearable.setUint32(offset + 0x04, 0x003f_f030, true);
      writable.setUint32(offset + 0x08, 0x003f_f030, true);
      writable.setUint32(offset + 0x0c, 0x003f_f030, true);
      clearable.setUint32(offset + 0x10, 0x0000_31c1, true);
      writable.setUint32(offset + 0x14, 0x0000_31c1, true);
      return;
  }
}

function checkedSerial(serialNumber: unknown): bigint {
  if (typeof serialNumber === 'bigint' && BigInt.asUintN(64, serialNumber) === serialNumber)
    return serialNumber;
  throw outOfRange(`serialNumber is ${inspect(serialNumber)}; it must be a bigint from 0 to 2^64 - 1`);
}

/** Where the parts of an MSI capability are (`linux/pci_regs.h`, `PCI_MSI_*`); 0 for one that it lacks. */
function msiLayout({ address64 = true, perVectorMasking = false }: MsiDeclaration): {
  readonly size: number;
  readonly upperAddress: number;
  readonly data: number;
  readonly mask: number;
} {
  const data = address64 ? 0x0c : 0x08;
  const mask = perVectorMasking ? data + 4 : 0;
  return { size: perVectorMasking ? mask + 8 : data + 2, upperAddress: address64 ? 0x08 : 0, data, mask };
}

/** Message Control and what follows it (PCI Express base 5.0, 7.7.1). The pending bits behind the mask are read-only. */
function fillMsi({ bytes, writable }: ConfigViews, offset: number, capability: MsiDeclaration): void {
  const { vectors, address64 = true, perVectorMasking = false } = capability;
  if (!MSI_VECTORS.includes(vectors))
    throw outOfRange(`${vectors} MSI vectors; ${MSI_VECTORS.join(', ')} are possible`);
  const { upperAddress, data, mask } = msiLayout(capability);
  bytes.setUint8(offset, CapabilityId.msi);
  bytes.setUint16(
    offset + 2,
    (Math.log2(vectors) << 1) |
      (address64 ? MsiControl.address64 : 0) |
      (perVectorMasking ? MsiControl.perVectorMasking : 0),
    true,
  );
  writable.setUint16(offset + 2, MsiControl.enable | MsiControl.messages, true);
  writable.setUint32(offset + 4, 0xffff_fffc, true);
  if (upperAddress !== 0) writable.setUint32(offset + upperAddress, 0xffff_ffff, true);
  writable.setUint16(offset + data, 0xffff, true);
  if (mask !== 0) writable.setUint32(offset + mask, 2 ** vectors - 1, true);
}

function fillMsix(
  { bytes, writable }: ConfigViews,
  offset: number,
  { vectors, table, pba }: MsixDeclaration,
  bars: BarDeclarations,
): void {
  if (!Number.isInteger(vectors) || vectors < 1 || vectors > 2048)
    throw outOfRange(`${vectors} MSI-X vectors; 1 to 2048 are possible`);
  const tableBytes = 16 * vectors;
  const pbaBytes = 8 * Math.ceil(vectors / 64);
  checkInBar('MSI-X table', table, tableBytes, bars);
  checkInBar('MSI-X pending bit array', pba, pbaBytes, bars);
  if (
    table.bar === pba.bar &&
    table.offset < pba.offset + pbaBytes &&
    pba.offset < table.offset + tableBytes
  ) {
    throw invalidArgument('The MSI-X table and the pending bit array overlap');
  }
  bytes.setUint8(offset, CapabilityId.msix);
  bytes.setUint16(offset + 2, vectors - 1, true);
  bytes.setUint32(offset + 4, table.offset + table.bar, true);
  bytes.setUint32(offset + 8, pba.offset + pba.bar, true);
  writable.setUint16(offset + 2, MsixControl.enable | MsixControl.functionMask, true);
}

function checkInBar(what: string, { bar, offset }: BarLocation, size: number, bars: BarDeclarations): void {
  const declared = bars[bar as keyof BarDeclarations];
  if (declared === undefined || declared.kind === 'io')
    throw invalidArgument(`The ${what} needs a memory BAR ${bar}`);
  if (!Number.isInteger(offset) || offset < 0 || offset % 8 !== 0 || offset + size > declared.size) {
    throw outOfRange(
      `The ${what} of ${size} bytes at ${offset} does not fit BAR ${bar}, or is not aligned to 8 bytes`,
    );
  }
}
