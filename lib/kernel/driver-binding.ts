// SPDX-License-Identifier: MIT
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { VfioUserError, errnoName } from '../errors';
import { pciAddress } from './pci-address';
import { noDevice, noGroup } from './refusals';
import type { SystemRoots } from './roots';
import { PciSysfs, isVfioDriver, type PciFunctionInfo } from './sysfs';

const VFIO_PCI = 'vfio-pci';

/** What a function had before {@link bindToVfio}, kept until {@link unbindFromVfio}. */
interface Before {
  readonly driver: string | null;
  readonly driverOverride: string | null;
}

/** What a change of a driver has come to. */
export interface BindingChange {
  readonly address: string;
  /** Driver before and now; null for none. */
  readonly before: string | null;
  readonly now: string | null;
  /** Other functions of the IOMMU group whose drivers keep it from being used. */
  readonly obstacles: readonly PciFunctionInfo[];
}

/**
 * Gives a function to vfio-pci: by driver_override, which concerns this function alone, unlike new_id. Whose it was is
 * noted, so that {@link unbindFromVfio} gives it back. A function that VFIO has already is left alone.
 *
 * @throws VfioUserError ERR_VFIO_USER_CONNECT when there is no such function, no IOMMU, or vfio-pci is not there or does not take it;
 *   BUSY when a file system on it is mounted; SYSTEM (EACCES, EPERM) without permission
 */
export function bindToVfio(address: string, roots: SystemRoots): BindingChange {
  const sysfs = new PciSysfs(roots.sys);
  const device = found(address, sysfs);
  const { driver, driverOverride } = device;
  const obstacles = (): PciFunctionInfo[] =>
    device.iommuGroup === null
      ? []
      : sysfs.obstacles(device.iommuGroup).filter((other) => other.address !== device.address);
  if (isVfioDriver(driver))
    return { address: device.address, before: driver, now: driver, obstacles: obstacles() };
  if (!sysfs.hasDriver(VFIO_PCI))
    throw new VfioUserError(
      'ERR_VFIO_USER_CONNECT',
      `${device.address} cannot be bound: the driver ${VFIO_PCI} is not loaded; run modprobe ${VFIO_PCI}`,
    );
  refuseMounted(device, sysfs, roots);
  if (device.iommuGroup === null && !sysfs.takesNoIommu) throw noGroup(device, sysfs);
  const change = new DriverChange(device.address, sysfs);
  note(device.address, { driver, driverOverride }, roots);
  try {
    change.override(VFIO_PCI);
    change.unbind(driver);
    change.probe();
    const now = sysfs.find(device.address)?.driver ?? null;
    if (now === VFIO_PCI) return { address: device.address, before: driver, now, obstacles: obstacles() };
    throw new VfioUserError(
      'ERR_VFIO_USER_CONNECT',
      `${device.address} was not taken by ${VFIO_PCI}; \`dmesg\` tells why`,
    );
  } catch (error) {
    giveBack(change, { driver, driverOverride });
    forget(device.address, roots);
    throw error;
  }
}

/**
 * Takes a function from VFIO, and gives it back to whose it was before {@link bindToVfio}: to that driver, or to none. When that
 * is not known the kernel chooses a driver.
 *
 * @throws VfioUserError ERR_VFIO_USER_CONNECT when there is no such function, or VFIO does not have it; SYSTEM (EACCES, EPERM)
 *   without permission
 */
export function unbindFromVfio(address: string, roots: SystemRoots): BindingChange {
  const sysfs = new PciSysfs(roots.sys);
  const device = found(address, sysfs);
  if (!isVfioDriver(device.driver))
    throw new VfioUserError(
      'ERR_VFIO_USER_CONNECT',
      `${device.address} is not bound to VFIO: its driver is ${device.driver ?? 'none'}; nothing was changed`,
    );
  const before = noted(device.address, roots);
  const change = new DriverChange(device.address, sysfs);
  change.override(before?.driverOverride ?? null);
  change.unbind(device.driver);
  if (before?.driver !== null) change.probe();
  forget(device.address, roots);
  const now = sysfs.find(device.address)?.driver ?? null;
  return { address: device.address, before: device.driver, now, obstacles: [] };
}

function found(address: string, sysfs: PciSysfs): PciFunctionInfo {
  const device = sysfs.find(pciAddress(address));
  if (device === undefined) throw noDevice(pciAddress(address));
  return device;
}

/** The writes to sysfs that change the driver of a function. */
class DriverChange {
  readonly #address: string;
  readonly #sysfs: PciSysfs;

  constructor(address: string, sysfs: PciSysfs) {
    this.#address = address;
    this.#sysfs = sysfs;
  }

  /** @param driver the only one that may be bound; null for any */
  override(driver: string | null): void {
    // A line feed alone clears it (Documentation/ABI/testing/sysfs-bus-pci).
    this.#write(join(this.#sysfs.pathOf(this.#address), 'driver_override'), driver ?? '\n');
  }

  unbind(driver: string | null): void {
    if (driver === null) return;
    this.#write(join(this.#sysfs.pathOf(this.#address), 'driver', 'unbind'), this.#address);
  }

  /** Has the kernel look for a driver. */
  probe(): void {
    this.#write(this.#sysfs.busFile('drivers_probe'), this.#address);
  }

  #write(path: string, text: string): void {
    try {
      // For writing alone, as some cannot be read; never made, as one that is not there is one that the kernel lacks.
      const fd = openSync(path, constants.O_WRONLY);
      try {
        writeSync(fd, text);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      const errno = Math.abs((error as NodeJS.ErrnoException).errno ?? 0);
      const name = errnoName(errno);
      const todo = name === 'EACCES' || name === 'EPERM' ? '; drivers are changed as root' : '';
      throw new VfioUserError(
        'ERR_VFIO_USER_SYSTEM',
        `The driver of ${this.#address} cannot be changed: writing ${path} failed with ${name}${todo}`,
        { errno, syscall: 'write', cause: error },
      );
    }
  }
}

/** Undoes what was done of a binding; the error to tell is the first one. */
function giveBack(change: DriverChange, { driver, driverOverride }: Before): void {
  try {
    change.override(driverOverride);
    if (driver !== null) change.probe();
  } catch {
    // What was refused before is refused again.
  }
}

/** Refuses to take a drive from under a file system. */
function refuseMounted({ address }: PciFunctionInfo, sysfs: PciSysfs, { proc }: SystemRoots): void {
  const disks = blockDevices(sysfs.pathOf(address));
  const mounts = read(join(proc, 'mounts'))?.split('\n') ?? [];
  // A partition has its number behind a p where the name of the disk ends with a digit.
  const names = disks.map((disk) => `${disk}(${/\d$/.test(disk) ? 'p' : ''}\\d+)?`);
  const used = mounts.find((line) => names.some((name) => new RegExp(`^/dev/${name} `).test(line)));
  if (used === undefined) return;
  const [source = '', target = ''] = used.split(' ');
  throw new VfioUserError(
    'ERR_VFIO_USER_BUSY',
    `${address} is in use: ${source} is mounted at ${target}; run umount ${target} first`,
  );
}

/** Names of the disks below a function: those in folders `block`, and the namespaces of NVMe controllers. */
function blockDevices(path: string, depth = 0): string[] {
  if (depth > 6) return [];
  return directories(path).flatMap((name) =>
    name === 'block'
      ? directories(join(path, name))
      : /^nvme\d+(c\d+)?n\d+$/.test(name)
        ? [name.replace(/c\d+/, '')]
        : blockDevices(join(path, name), depth + 1),
  );
}

function directories(path: string): string[] {
  try {
    return readdirSync(path, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name);
  } catch {
    return [];
  }
}

function notePath(address: string, { run }: SystemRoots): string {
  return join(run, 'vfio-user', 'bindings', basename(address));
}

function note(address: string, before: Before, roots: SystemRoots): void {
  const path = notePath(address, roots);
  try {
    mkdirSync(join(path, '..'), { recursive: true, mode: 0o700 });
    writeFileSync(path, JSON.stringify(before));
  } catch (error) {
    const errno = Math.abs((error as NodeJS.ErrnoException).errno ?? 0);
    throw new VfioUserError(
      'ERR_VFIO_USER_SYSTEM',
      `The driver of ${address} cannot be noted in ${path}: ${errnoName(errno)}; drivers are changed as root`,
      { errno, cause: error },
    );
  }
}

function noted(address: string, roots: SystemRoots): Before | undefined {
  const text = read(notePath(address, roots));
  if (text === undefined) return undefined;
  try {
    const { driver, driverOverride } = JSON.parse(text) as Partial<Record<keyof Before, unknown>>;
    const name = (value: unknown): string | null => (typeof value === 'string' ? value : null);
    return { driver: name(driver), driverOverride: name(driverOverride) };
  } catch {
    return undefined;
  }
}

function forget(address: string, roots: SystemRoots): void {
  rmSync(notePath(address, roots), { force: true });
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
