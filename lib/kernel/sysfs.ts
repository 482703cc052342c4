// SPDX-License-Identifier: MIT
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';
import { SYSTEM } from './roots';

/** What sysfs tells of every device that VFIO may have. */
export interface VfioDeviceInfo {
  /** Its name on its bus: an address such as `0000:01:00.0`, or the UUID of a mediated device. */
  readonly address: string;
  /** Name of the driver that is bound; null when none is. */
  readonly driver: string | null;
  /** Number of the IOMMU group; null when no IOMMU is in use. */
  readonly iommuGroup: number | null;
  /** Whether the group is one that VFIO made for want of an IOMMU. */
  readonly noiommu: boolean;
  /** Name of the node in /dev/vfio/devices, such as `vfio0`; null when there is none. */
  readonly vfioNode: string | null;
}

/** A PCI function as sysfs tells of it (Documentation/ABI/testing/sysfs-bus-pci of the kernel). */
export interface PciFunctionInfo extends VfioDeviceInfo {
  /** PCI vendor id. */
  readonly vendorId: number;
  /** PCI device id. */
  readonly deviceId: number;
  /** Class, subclass and programming interface, 24 bits. */
  readonly classCode: number;
  /** Name of the only driver that may be bound; null when any may. */
  readonly driverOverride: string | null;
  /** NUMA node of the function; null when the system does not tell. */
  readonly numaNode: number | null;
  /** Address of the physical function that this one is a virtual function of; null when it is none. */
  readonly physicalFunction: string | null;
}

/** Name that VFIO gives the groups that it makes for want of an IOMMU. */
const NOIOMMU = 'vfio-noiommu';
/** Class of bridges, which need no driver of VFIO in a group (kernel: `vfio_dev_viable`, pcieport). */
const BRIDGE = 0x06;

/** The PCI functions of the system, through sysfs. */
export class PciSysfs {
  readonly #root: string;

  constructor(root = SYSTEM.sys) {
    this.#root = root;
  }

  /** All functions, by address. */
  list(): PciFunctionInfo[] {
    const names = entries(join(this.#root, 'bus', 'pci', 'devices')).sort();
    return names.flatMap((address) => this.find(address) ?? []);
  }

  /** A function; undefined when there is none at the address. */
  find(address: string): PciFunctionInfo | undefined {
    const path = this.pathOf(address);
    const vendor = text(join(path, 'vendor'));
    if (vendor === null) return undefined;
    const node = number(text(join(path, 'numa_node')));
    const override = text(join(path, 'driver_override'));
    return {
      ...vfioDeviceAt(path, address),
      vendorId: Number(vendor),
      deviceId: Number(text(join(path, 'device')) ?? NaN),
      classCode: Number(text(join(path, 'class')) ?? NaN),
      driverOverride: override === null || override === '(null)' || override === '' ? null : override,
      // -1 stands for a system without nodes.
      numaNode: node !== null && node >= 0 ? node : null,
      physicalFunction: linkName(join(path, 'physfn')),
    };
  }

  /** The functions of an IOMMU group, by address. */
  group(group: number): PciFunctionInfo[] {
    const names = entries(join(this.#root, 'kernel', 'iommu_groups', String(group), 'devices')).sort();
    return names.flatMap((address) => this.find(address) ?? []);
  }

  /** The functions of a group that keep it from being used: a driver other than VFIO's is bound to them. */
  obstacles(group: number): PciFunctionInfo[] {
    return this.group(group).filter(
      ({ driver, classCode }) =>
        driver !== null && !isVfioDriver(driver) && driver !== 'pci-stub' && classCode >> 16 !== BRIDGE,
    );
  }

  /** Whether any IOMMU is in use. */
  get hasIommu(): boolean {
    return entries(join(this.#root, 'class', 'iommu')).length > 0;
  }

  /** Whether VFIO takes devices without an IOMMU, as an administrator has told it (`enable_unsafe_noiommu_mode`). */
  get takesNoIommu(): boolean {
    return text(join(this.#root, 'module', 'vfio', 'parameters', 'enable_unsafe_noiommu_mode')) === 'Y';
  }

  /** Whether a driver is there, built in or loaded. */
  hasDriver(name: string): boolean {
    return existsSync(join(this.#root, 'bus', 'pci', 'drivers', name));
  }

  /** Directory of a function. */
  pathOf(address: string): string {
    return join(this.#root, 'bus', 'pci', 'devices', address);
  }

  /** A file of the PCI bus, such as `drivers_probe`. */
  busFile(name: string): string {
    return join(this.#root, 'bus', 'pci', name);
  }
}

/** A device, by its directory. */
export function vfioDeviceAt(path: string, address: string): VfioDeviceInfo {
  return {
    address,
    driver: linkName(join(path, 'driver')),
    iommuGroup: number(linkName(join(path, 'iommu_group'))),
    noiommu: text(join(path, 'iommu_group', 'name')) === NOIOMMU,
    vfioNode: entries(join(path, 'vfio-dev'))[0] ?? null,
  };
}

/** VFIO's driver for any PCI function, and those for certain ones, which build upon it: `mlx5_vfio_pci`, `nvgrace-gpu-vfio-pci`. */
export function isVfioDriver(driver: string | null): boolean {
  return driver !== null && /(^|[-_])vfio[-_]pci$/.test(driver);
}

/** Names in a directory; none when there is no such directory. */
function entries(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

/** A file of sysfs without its line feed; null when it is not there. */
export function text(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}

/** Name of what a link points to; null when there is no link. */
function linkName(path: string): string | null {
  try {
    return basename(readlinkSync(path));
  } catch {
    return null;
  }
}

function number(value: string | null): number | null {
  return value === null || value === '' || !Number.isInteger(Number(value)) ? null : Number(value);
}
