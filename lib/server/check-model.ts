// SPDX-License-Identifier: MIT
import { inspect } from 'node:util';
import { invalidArgument } from '../errors';
import { pageSize } from '../native';
import { checkKeys, checkKind, type Keys, type KeysByKind } from '../pci/check-keys';
import { PciIrq, type SparseArea } from '../pci/device';
import type {
  MigrationModel,
  PciDeviceModel,
  RegionType,
  ServedBar,
  ServedFunction,
  ServedRegion,
  SharedFile,
} from './device-model';
import { checkIoFds } from './served-io-fds';

/** Indexes of regions and interrupts that are served. */
const MAX_INDEX = 255;
/** A vector count is kept per client, and MSI-X has at most 2048. */
const MAX_VECTORS = 65535;

const MODEL: Keys<PciDeviceModel> = {
  name: 'required',
  pci: 'required',
  regions: 'optional',
  irqs: 'optional',
  migration: 'optional',
  passthrough: 'optional',
  reset: 'optional',
  configured: 'optional',
  attach: 'optional',
  mapped: 'optional',
  unmapping: 'optional',
  activity: 'optional',
  detach: 'optional',
};
const ACCESS = {
  size: 'required',
  shared: 'optional',
  ioFds: 'optional',
  concurrent: 'optional',
  read: 'optional',
  write: 'optional',
} as const;
const REGION: Keys<ServedRegion> = { ...ACCESS, type: 'optional' };
const IO_BAR = { ...ACCESS, kind: 'required' } as const;
const MEMORY_BAR = { ...IO_BAR, prefetchable: 'optional' } as const;
const BARS: KeysByKind<ServedBar> = { memory32: MEMORY_BAR, memory64: MEMORY_BAR, io: IO_BAR };
const REGION_TYPE: Keys<RegionType> = { type: 'required', subtype: 'required' };
const SHARED_FILE: Keys<SharedFile> = { fd: 'required', offset: 'required', areas: 'required' };
const AREA: Keys<SparseArea> = { offset: 'required', size: 'required' };
const MIGRATION: Keys<MigrationModel> = {
  save: 'required',
  load: 'required',
  preCopy: 'optional',
  stateChanged: 'optional',
};

/**
 * Checks a device model before it is served.
 *
 * @throws TypeError ERR_INVALID_ARG_VALUE when it lacks something, contradicts itself, or is an object literal with a key
 *   that is not known
 */
export function checkModel(model: PciDeviceModel): void {
  checkKeys('device model', model, MODEL);
  const { name, pci, regions = new Map<number, ServedRegion>(), irqs = new Map<number, number>() } = model;
  const { migration } = model;
  for (const [key, map] of [
    ['regions', regions],
    ['irqs', irqs],
  ] as const) {
    if (typeof map.entries !== 'function') throw invalidArgument(`${key} of device model ${name} is no Map`);
  }
  checkFunction(pci, model);
  if (migration !== undefined) {
    checkKeys(`migration of device model ${name}`, migration, MIGRATION);
    if (model.reset === undefined) {
      throw invalidArgument(
        `device model ${name} can migrate but has no reset, without which it stays in error for ever`,
      );
    }
  }
  for (const [index, region] of regions) {
    const where = `region ${index} of device model ${name}`;
    if (!isIndex(index)) throw invalidArgument(`${where}: an index is an integer from 0 to ${MAX_INDEX}`);
    if (pci.bars?.[index as 0] !== undefined) throw invalidArgument(`${where} is declared by pci already`);
    checkKeys(where, region, REGION);
    checkRegion(region, where);
  }
  for (const [index, count] of irqs) {
    if (!isIndex(index) || !Number.isInteger(count) || count < 0 || count > MAX_VECTORS) {
      throw invalidArgument(
        `interrupt index ${index} of device model ${name} has ${count} vectors; ` +
          `give integers, at most ${MAX_VECTORS} vectors`,
      );
    }
    if (index <= PciIrq.msix) {
      throw invalidArgument(
        `interrupt index ${index} of device model ${name}: INTx, MSI and MSI-X are declared by pci, with interruptPin and capabilities`,
      );
    }
  }
}

/** Checks what a device has behind its BARs; `ConfigSpace` checks what it says of them. */
function checkFunction({ bars = {}, capabilities = [] }: ServedFunction, model: PciDeviceModel): void {
  for (const [index, bar] of Object.entries(bars)) {
    if (bar === undefined) continue;
    const where = `BAR ${index} of device model ${model.name}`;
    checkKind(where, bar, BARS);
    checkRegion(bar, where);
  }
  const resettable = capabilities.some(
    (capability) => capability.kind === 'express' && capability.functionLevelReset === true,
  );
  if (resettable && model.reset === undefined)
    throw invalidArgument(`device model ${model.name} offers a function level reset, but has no reset`);
}

function isIndex(index: number): boolean {
  return Number.isInteger(index) && index >= 0 && index <= MAX_INDEX;
}

function checkRegion(region: ServedRegion, where: string): void {
  const { size, type, shared, ioFds = [] } = region;
  if (!Number.isSafeInteger(size) || size < 0) {
    throw invalidArgument(`${where} has ${size} bytes; give an integer from 0 to 2^53 - 1`);
  }
  if (type !== undefined) checkKeys(`type of ${where}`, type, REGION_TYPE);
  checkIoFds(ioFds, size, where);
  if (shared === undefined) return;
  checkKeys(`shared of ${where}`, shared, SHARED_FILE);
  if (typeof shared.fd !== 'function' && !(Number.isInteger(shared.fd) && shared.fd >= 0)) {
    throw invalidArgument(
      `shared of ${where}: fd is ${inspect(shared.fd)}; give a descriptor, or a function that returns one for a client`,
    );
  }
  for (const area of shared.areas) {
    checkKeys(`areas of ${where}`, area, AREA);
    const aligned = area.offset % pageSize === 0 && area.size % pageSize === 0;
    if (!aligned || area.offset < 0 || area.size < 1 || area.offset + area.size > size) {
      throw invalidArgument(
        `${where}: the area of ${area.size} bytes at ${area.offset} is not a number of whole pages of ` +
          `${pageSize} bytes within its ${size} bytes`,
      );
    }
  }
}
