// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../errors';
import { type BarLocation, CapabilityId, ExtendedCapabilityId } from './capabilities';
import { PCIE_CONFIG_BYTES, PCI_CONFIG_BYTES, PciConfig, PciStatus } from './config-space';

/** A BAR that a device has. */
export interface BarDeclaration {
  /** A 64-bit BAR takes two indexes. */
  readonly type: 'memory32' | 'memory64' | 'io';
  /** Bytes, a power of two: of memory at least 16, of I/O 4 to 256. */
  readonly size: number;
  readonly prefetchable?: boolean;
}

/** A capability that a device has. They are laid out from byte 40h (extended ones from 100h) in the order given. */
export type CapabilityDeclaration =
  | { readonly kind: 'power-management' }
  | { readonly kind: 'express'; readonly functionLevelReset?: boolean }
  | {
      readonly kind: 'msix';
      readonly vectors: number;
      readonly table: BarLocation;
      readonly pba: BarLocation;
    }
  | { readonly kind: 'vendor'; readonly data: Uint8Array }
  | { readonly kind: 'serial-number'; readonly serialNumber: bigint }
  | { readonly kind: 'advanced-errors' };

/** What a configuration space is built from. */
export interface ConfigSpaceDeclaration {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  readonly revisionId?: number;
  /** Base class, subclass and programming interface, 24 bits. */
  readonly classCode: number;
  /** 0 none (default), 1 to 4 INTA to INTD. */
  readonly interruptPin?: number;
  /** BAR 0 to 5; undefined for one that the device lacks. */
  readonly bars?: readonly (BarDeclaration | undefined)[];
  readonly capabilities?: readonly CapabilityDeclaration[];
  /** 4096 (default), or 256 for conventional PCI. */
  readonly size?: 256 | 4096;
}

/** Bytes of a configuration space, and what a write does to each bit. */
export interface ConfigImage {
  readonly bytes: Uint8Array;
  /** Bits that take the value that is written. */
  readonly writable: Uint8Array;
  /** Bits that a written 1 clears. */
  readonly clearable: Uint8Array;
  /** Offset of each capability that has effects; undefined when there is none. */
  readonly powerManagement: number | undefined;
  readonly express: number | undefined;
  readonly msix: number | undefined;
}

/** Command register bits that the host sets; the others read 0 on PCI Express. */
const COMMAND_WRITABLE = 0x0547;
/** Error bits of the status register (PCI Local Bus 3.0, 6.2.3). */
const STATUS_CLEARABLE = 0xf900;

interface Views {
  readonly bytes: DataView;
  readonly writable: DataView;
  readonly clearable: DataView;
}

/** @throws RangeError when the value is not an integer from 0 to `limit` */
function checkField(name: string, value: number, limit: number): void {
  if (!Number.isInteger(value) || value < 0 || value > limit) {
    throw outOfRange(`${name} is ${value}; it must be an integer from 0 to ${limit}`);
  }
}

/**
 * Lays out a configuration space with header type 0.
 * @throws TypeError or RangeError when the declaration contradicts itself
 */
export function buildConfigImage(declaration: ConfigSpaceDeclaration): ConfigImage {
  const {
    vendorId,
    deviceId,
    classCode,
    size = PCIE_CONFIG_BYTES,
    bars = [],
    capabilities = [],
  } = declaration;
  const { subsystemVendorId = 0, subsystemId = 0, revisionId = 0, interruptPin = 0 } = declaration;
  for (const [name, value, limit] of [
    ['vendorId', vendorId, 0xfffe],
    ['deviceId', deviceId, 0xffff],
    ['subsystemVendorId', subsystemVendorId, 0xffff],
    ['subsystemId', subsystemId, 0xffff],
    ['revisionId', revisionId, 0xff],
    ['classCode', classCode, 0xff_ffff],
    ['interruptPin', interruptPin, 4],
  ] as const) {
    checkField(name, value, limit);
  }
  const [bytes, writable, clearable] = [new Uint8Array(size), new Uint8Array(size), new Uint8Array(size)];
  const views: Views = {
    bytes: new DataView(bytes.buffer),
    writable: new DataView(writable.buffer),
    clearable: new DataView(clearable.buffer),
  };
  views.bytes.setUint16(PciConfig.vendorId, vendorId, true);
  views.bytes.setUint16(PciConfig.deviceId, deviceId, true);
  views.writable.setUint16(PciConfig.command, COMMAND_WRITABLE, true);
  views.clearable.setUint16(PciConfig.status, STATUS_CLEARABLE, true);
  views.bytes.setUint32(PciConfig.revisionId, ((classCode << 8) | revisionId) >>> 0, true);
  views.writable.setUint8(PciConfig.cacheLineSize, 0xff);
  views.bytes.setUint16(PciConfig.subsystemVendorId, subsystemVendorId, true);
  views.bytes.setUint16(PciConfig.subsystemId, subsystemId, true);
  views.writable.setUint8(PciConfig.interruptLine, 0xff);
  views.bytes.setUint8(PciConfig.interruptPin, interruptPin);
  layOutBars(views, bars);
  const offsets = layOutCapabilities(views, capabilities, bars);
  return {
    bytes,
    writable,
    clearable,
    powerManagement: offsets.get('power-management'),
    express: offsets.get('express'),
    msix: offsets.get('msix'),
  };
}

/** Only address bits at or above the size are writable, which is how the host finds the size (PCI 3.0, 6.2.5.1). */
function layOutBars(views: Views, bars: ConfigSpaceDeclaration['bars'] & {}): void {
  if (bars.length > 6) throw outOfRange(`${bars.length} BARs; a function has at most 6`);
  bars.forEach((bar, index) => {
    if (bar === undefined) return;
    const { type, size, prefetchable = false } = bar;
    const [least, most] = type === 'io' ? [4, 256] : [16, type === 'memory32' ? 2 ** 31 : 2 ** 52];
    if (!Number.isInteger(Math.log2(size)) || size < least || size > most) {
      throw outOfRange(`BAR ${index} has ${size} bytes; it must be a power of two from ${least} to ${most}`);
    }
    if (type === 'memory64' && (index === 5 || bars[index + 1] !== undefined)) {
      throw invalidArgument(
        `BAR ${index} is 64 bits wide, but BAR ${index + 1} is not free for its upper half`,
      );
    }
    const offset = PciConfig.bar0 + 4 * index;
    const kind = type === 'io' ? 1 : (type === 'memory64' ? 4 : 0) | (prefetchable ? 8 : 0);
    views.bytes.setUint32(offset, kind, true);
    const mask = -BigInt(size);
    views.writable.setUint32(offset, Number(BigInt.asUintN(32, mask)), true);
    if (type === 'memory64')
      views.writable.setUint32(offset + 4, Number(BigInt.asUintN(32, mask >> 32n)), true);
  });
}

/** Bytes of each capability. PCI Express has the 3Ch bytes of version 2. */
function capabilitySize(capability: CapabilityDeclaration): number {
  switch (capability.kind) {
    case 'power-management':
      return 8;
    case 'express':
      return 0x3c;
    case 'msix':
    case 'serial-number':
      return 12;
    case 'vendor':
      return 3 + capability.data.byteLength;
    case 'advanced-errors':
      return 0x48;
  }
}

function layOutCapabilities(
  views: Views,
  capabilities: readonly CapabilityDeclaration[],
  bars: readonly (BarDeclaration | undefined)[],
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
      throw outOfRange(`The capability ${kind} at ${offset} does not fit the configuration space`);
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
  { bytes, writable, clearable }: Views,
  offset: number,
  capability: CapabilityDeclaration,
  bars: readonly (BarDeclaration | undefined)[],
): void {
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
    case 'msix': {
      const { vectors, table, pba } = capability;
      if (!Number.isInteger(vectors) || vectors < 1 || vectors > 2048) {
        throw outOfRange(`${vectors} MSI-X vectors; 1 to 2048 are possible`);
      }
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
      writable.setUint16(offset + 2, 0xc000, true);
      return;
    }
    case 'vendor':
      bytes.setUint8(offset, CapabilityId.vendor);
      bytes.setUint8(offset + 2, 3 + capability.data.byteLength);
      capability.data.forEach((byte, i) => {
        bytes.setUint8(offset + 3 + i, byte);
      });
      return;
    case 'serial-number':
      bytes.setBigUint64(offset + 4, capability.serialNumber, true);
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

function checkInBar(
  what: string,
  { bar, offset }: BarLocation,
  size: number,
  bars: readonly (BarDeclaration | undefined)[],
): void {
  const declared = bars[bar];
  if (declared === undefined || declared.type === 'io')
    throw invalidArgument(`The ${what} needs a memory BAR ${bar}`);
  if (!Number.isInteger(offset) || offset < 0 || offset % 8 !== 0 || offset + size > declared.size) {
    throw outOfRange(
      `The ${what} of ${size} bytes at ${offset} does not fit BAR ${bar}, or is not aligned to 8 bytes`,
    );
  }
}
