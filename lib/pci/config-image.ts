// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../errors';
import { isPowerOfTwo } from '../power-of-two';
import { type ConfigViews, layOutCapabilities } from './capability-layout';
import { PCIE_CONFIG_BYTES, PCI_CONFIG_BYTES, PciConfig } from './config-header';
import { declaredBars, type BarDeclarations, type ConfigSpaceDeclaration } from './declaration';

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
  readonly msi: number | undefined;
  readonly msix: number | undefined;
}

/** Command register bits that the host sets; the others read 0 on PCI Express. */
const COMMAND_WRITABLE = 0x0547;
/** Error bits of the status register (PCI Local Bus 3.0, 6.2.3). */
const STATUS_CLEARABLE = 0xf900;

/** @throws RangeError when the value is not an integer from 0 to `limit` */
function checkField(name: string, value: number, limit: number): void {
  if (!Number.isInteger(value) || value < 0 || value > limit) {
    throw outOfRange(`${name} is ${value}; it must be an integer from 0 to ${limit}`);
  }
}

/**
 * Lays out a configuration space with header type 0 (PCI Local Bus 3.0, 6.1).
 *
 * @throws TypeError or RangeError when the declaration contradicts itself
 */
export function buildConfigImage(declaration: ConfigSpaceDeclaration): ConfigImage {
  const {
    vendorId,
    deviceId,
    classCode,
    size = PCIE_CONFIG_BYTES,
    bars = {},
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
  if (![PCI_CONFIG_BYTES, PCIE_CONFIG_BYTES].includes(size))
    throw outOfRange(
      `size is ${size}; a configuration space has ${PCI_CONFIG_BYTES} or ${PCIE_CONFIG_BYTES} bytes`,
    );
  const [bytes, writable, clearable] = [new Uint8Array(size), new Uint8Array(size), new Uint8Array(size)];
  const views: ConfigViews = {
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
    msi: offsets.get('msi'),
    msix: offsets.get('msix'),
  };
}

/** Only address bits at or above the size are writable, which is how the host finds the size (PCI 3.0, 6.2.5.1). */
function layOutBars(views: ConfigViews, bars: BarDeclarations): void {
  for (const [index, bar] of declaredBars(bars)) {
    const { kind, size } = bar;
    const [least, most] = kind === 'io' ? [4, 256] : [16, kind === 'memory32' ? 2 ** 31 : 2 ** 52];
    if (!isPowerOfTwo(size) || size < least || size > most) {
      throw outOfRange(`BAR ${index} has ${size} bytes; it must be a power of two from ${least} to ${most}`);
    }
    const wide = kind === 'memory64';
    if (wide && (index === 5 || bars[(index + 1) as keyof BarDeclarations] !== undefined)) {
      throw invalidArgument(
        `BAR ${index} is 64 bits wide, but BAR ${index + 1} is not free for its upper half`,
      );
    }
    const offset = PciConfig.bar0 + 4 * index;
    const flags = kind === 'io' ? 1 : (wide ? 4 : 0) | (bar.prefetchable === true ? 8 : 0);
    views.bytes.setUint32(offset, flags, true);
    const mask = -BigInt(size);
    views.writable.setUint32(offset, Number(BigInt.asUintN(32, mask)), true);
    if (wide) views.writable.setUint32(offset + 4, Number(BigInt.asUintN(32, mask >> 32n)), true);
  }
}
