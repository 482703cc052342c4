// SPDX-License-Identifier: MIT
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { DmaContainer, type DmaContainerOptions } from '../dma/container';
import { VfioUserError, invalidArgument } from '../errors';
import { KernelDevice } from './device';
import { UUID_FORM, isUuid } from './device-name';
import { mediatedDevice } from './mediated-device';
import { checkHugePages } from './memory-limit';
import { pciAddress } from './pci-address';
import { checkUsable, noDevice } from './refusals';
import { SYSTEM, type SystemRoots } from './roots';
import { openInSpace } from './spaces';
import { PciSysfs, type PciFunctionInfo, type VfioDeviceInfo } from './sysfs';

/** How to open a device of the kernel's VFIO. */
export interface OpenPciOptions {
  /** Memory that the device may access: a container that devices share, or options for one of its own. */
  readonly dma?: DmaContainer | DmaContainerOptions;
  /**
   * By which of the kernel's interfaces: `iommufd` with the device's own node (Linux 6.6 and later), or its `group` and a
   * container. Default: iommufd where the kernel has it, else the group; with a {@link vfToken} the group where it is there.
   */
  readonly through?: 'iommufd' | 'group';
  /**
   * Takes a device without an IOMMU too, which the kernel must have been asked for (`enable_unsafe_noiommu_mode` of the
   * module vfio). Nothing keeps such a device from any memory of the system, so that it cannot be given DMA memory here:
   * registers and interrupts work. A warning tells of it. Default false.
   */
  readonly noiommu?: boolean;
  /**
   * A secret that the program with a physical function and those with its virtual ones share, a UUID such as
   * `bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3`. Opening the physical function with it sets it; while that one is bound to
   * vfio-pci, its virtual functions cannot be opened without. Through an iommufd, Linux asks for it from 6.17 on, and takes none before.
   */
  readonly vfToken?: string;
}

/**
 * Opens a PCI device through the kernel's VFIO. Its driver must be vfio-pci: `vfio-user bind` sees to that. A mediated device
 * (mdev) that is one for VFIO, such as a part of a GPU, is opened by its UUID.
 *
 * @param address as `lspci -D` writes it, `0000:01:00.0`; the domain 0000 may be left out. Or the UUID of a mediated device
 * @throws VfioUserError ERR_VFIO_USER_CONNECT when it cannot be had, with what to do: no such device, another driver, a
 *   group that is not viable, no IOMMU, no permission; BUSY when another process has it
 * @throws TypeError ERR_INVALID_ARG_VALUE for what is no address, a token that is no UUID, or a container whose devices were opened another way
 * @example
 * await using device = await openPci('0000:01:00.0');
 * const bar0 = await device.region('bar0');
 * console.log((await bar0.read64(0)).toString(16));
 */
export function openPci(address: string, options: OpenPciOptions = {}): Promise<KernelDevice> {
  return openPciIn(SYSTEM, address, options);
}

/** As {@link openPci}, with the system's directories elsewhere. */
export async function openPciIn(
  roots: SystemRoots,
  address: string,
  options: OpenPciOptions = {},
): Promise<KernelDevice> {
  const { vfToken } = options;
  if (vfToken !== undefined && !isUuid(vfToken))
    throw invalidArgument(`a VF token is ${UUID_FORM}, got ${vfToken}`);
  const device = isUuid(address)
    ? { ...mediatedDevice(address, roots.sys), physicalFunction: null }
    : usableFunction(pciAddress(address), roots, options.noiommu === true);
  if (!(options.dma instanceof DmaContainer) && options.dma?.hugePages === 'always')
    checkHugePages(device.address, roots.sys);
  const through = options.through ?? wayTo(device, roots, vfToken);
  if (through === 'iommufd') checkIommufd(device, roots);
  const dma = options.dma instanceof DmaContainer ? options.dma : new DmaContainer(options.dma);
  const ownsDma = dma !== options.dma;
  const inSpace = await openInSpace({ ...device, vfToken }, through, dma, roots);
  try {
    if (device.noiommu)
      process.emitWarning(
        `${device.address} is used without an IOMMU: it can write any memory of the system`,
        'VfioUserWarning',
      );
    const opened = new KernelDevice({ address: device.address, inSpace, dma, ownsDma });
    await opened.watchForRequest();
    return opened;
  } catch (error) {
    inSpace.opened.file.close();
    inSpace.leave();
    if (ownsDma) dma.close();
    throw error;
  }
}

/** @throws VfioUserError ERR_VFIO_USER_CONNECT when there is none, or VFIO does not have it */
function usableFunction(address: string, { sys }: SystemRoots, noiommu: boolean): PciFunctionInfo {
  const sysfs = new PciSysfs(sys);
  const device = sysfs.find(address);
  if (device === undefined) throw noDevice(address);
  checkUsable(device, sysfs, noiommu);
  return device;
}

/** An iommufd where there is one. A group takes a token on every kernel, and an iommufd from Linux 6.17 on. */
function wayTo(device: VfioDeviceInfo, roots: SystemRoots, vfToken: string | undefined): 'iommufd' | 'group' {
  const { iommuGroup } = device;
  const hasGroup = iommuGroup !== null && existsSync(join(roots.dev, 'vfio', String(iommuGroup)));
  if (vfToken !== undefined && hasGroup) return 'group';
  return whyNoIommufd(device, roots) === null ? 'iommufd' : 'group';
}

/** @throws VfioUserError ERR_VFIO_USER_CONNECT when the kernel does not have that way */
function checkIommufd(device: VfioDeviceInfo, roots: SystemRoots): void {
  const why = whyNoIommufd(device, roots);
  if (why === null) return;
  throw new VfioUserError(
    'ERR_VFIO_USER_CONNECT',
    `${device.address} cannot be opened through an iommufd: ${why}. Open it by its group: through 'group'`,
  );
}

/** Why a device cannot be opened through an iommufd; null when it can. */
function whyNoIommufd({ vfioNode, noiommu }: VfioDeviceInfo, { dev }: SystemRoots): string | null {
  if (noiommu) return 'without an IOMMU there is only its group';
  if (vfioNode === null || !existsSync(join(dev, 'vfio', 'devices', vfioNode)))
    return 'the kernel gives it no node in /dev/vfio/devices, which is of Linux 6.6 and an option of its build';
  return existsSync(join(dev, 'iommu')) ? null : 'there is no /dev/iommu; run modprobe iommufd';
}
