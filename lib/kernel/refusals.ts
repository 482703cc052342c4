// SPDX-License-Identifier: MIT
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { VfioUserError } from '../errors';
import type { SystemRoots } from './roots';
import type { DeviceToOpen } from './iommu-space';
import { PciSysfs, isVfioDriver, type PciFunctionInfo, type VfioDeviceInfo } from './sysfs';

const SYSFS_DEVICES = 'vfio-user devices';

/** There is no such function. */
export function noDevice(address: string): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_CONNECT',
    `no PCI device is at ${address}; \`${SYSFS_DEVICES} --all\` lists those that are there`,
  );
}

/**
 * Checks what can be known before anything is opened.
 *
 * @throws VfioUserError ERR_VFIO_USER_CONNECT
 */
export function checkUsable(device: PciFunctionInfo, sysfs: PciSysfs, noiommu: boolean): void {
  const { address, driver, iommuGroup } = device;
  if (!isVfioDriver(driver)) {
    const now = driver === null ? 'no driver is bound to it' : `its driver is ${driver}`;
    throw refused(
      `${address} cannot be opened: ${now}, and VFIO's is needed. Run \`vfio-user bind ${address}\` as root` +
        (driver === null ? '' : `, which takes it from ${driver}`),
    );
  }
  if (device.noiommu && !noiommu)
    throw refused(
      `${address} is in a group without an IOMMU, where a device may write any memory of the system. ` +
        'Enable the IOMMU (firmware: VT-d or AMD-Vi; kernel: intel_iommu=on), or ask for it with the option noiommu of openPci',
    );
  if (iommuGroup === null) throw noGroup(device, sysfs);
}

/** A device is in no IOMMU group, without which VFIO does not take it. */
export function noGroup({ address }: VfioDeviceInfo, sysfs: PciSysfs): VfioUserError {
  return refused(
    sysfs.hasIommu
      ? `${address} is in no IOMMU group, so the kernel cannot keep it from other memory; use a device behind the IOMMU`
      : `${address} is in no IOMMU group: no IOMMU is in use. Enable it in the firmware (VT-d or AMD-Vi) and for the kernel ` +
          '(intel_iommu=on on its command line), then boot anew',
  );
}

/** The group of a device has other devices that somebody drives. */
export function notViable({ address, iommuGroup }: VfioDeviceInfo, sysfs: PciSysfs): VfioUserError {
  const others = sysfs
    .obstacles(iommuGroup ?? -1)
    .map(({ address: other, driver }) => `${other} (${driver ?? ''})`);
  return refused(
    `${address} cannot be opened: its IOMMU group ${iommuGroup ?? ''} is not viable, as the IOMMU cannot keep its devices apart ` +
      (others.length === 0
        ? 'and a driver is bound to one of them'
        : `and drivers are bound to ${others.join(', ')}. Unbind them, or \`vfio-user bind\` them too`),
  );
}

/**
 * Runs a step of opening a device, and tells what a failure means.
 *
 * @throws VfioUserError ERR_VFIO_USER_CONNECT, BUSY or SYSTEM
 */
export function explainOpen<T>(device: DeviceToOpen, roots: SystemRoots, step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (!(error instanceof VfioUserError)) throw error;
    const sysfs = new PciSysfs(roots.sys);
    if (isOwnedByOthers(device, sysfs, error)) throw notViable(device, sysfs);
    const text = explanation(device, roots, error);
    if (text === undefined) throw error;
    const { errno, syscall } = error;
    const code = isBusy(device, error) ? 'ERR_VFIO_USER_BUSY' : 'ERR_VFIO_USER_CONNECT';
    throw new VfioUserError(code, `${device.address} cannot be opened: ${text}`, {
      errno,
      syscall,
      cause: error,
    });
  }
}

/** The nodes that a user must have, but for that of containers, which all have: of both ways, where the kernel has both. */
function nodesOf({ iommuGroup, vfioNode }: DeviceToOpen, { dev }: SystemRoots): string[] {
  const group = iommuGroup === null ? [] : [join(dev, 'vfio', String(iommuGroup))];
  const own = vfioNode === null ? [] : [join(dev, 'vfio', 'devices', vfioNode), join(dev, 'iommu')];
  return [...group, ...own];
}

/** Another driver has the group of a device that is opened by itself (`iommu_device_claim_dma_owner` of the kernel). */
function isOwnedByOthers(
  { iommuGroup }: DeviceToOpen,
  sysfs: PciSysfs,
  { errnoName, message }: VfioUserError,
): boolean {
  const refusesOwner = errnoName === 'EPERM' && message.startsWith('VFIO_DEVICE_BIND_IOMMUFD');
  return refusesOwner && sysfs.obstacles(iommuGroup ?? -1).length > 0;
}

/** A device that was opened by itself can be bound once, which the kernel tells by EINVAL (`vfio_df_open`). */
function isBusy(
  { vfToken }: DeviceToOpen,
  { errnoName, message }: Pick<VfioUserError, 'errnoName' | 'message'>,
): boolean {
  if (errnoName === 'EBUSY') return true;
  return errnoName === 'EINVAL' && vfToken === undefined && message.startsWith('VFIO_DEVICE_BIND_IOMMUFD');
}

function explanation(
  device: DeviceToOpen,
  roots: SystemRoots,
  { errnoName, syscall, message }: VfioUserError,
): string | undefined {
  const { address, iommuGroup, vfToken } = device;
  const opening = syscall === 'open';
  switch (isBusy(device, { errnoName, message }) ? 'EBUSY' : errnoName) {
    case 'ENOENT':
      return existsSync(join(roots.dev, 'vfio'))
        ? `a node of VFIO is missing (${message}); is the module loaded? modprobe vfio-pci`
        : `there is no ${join(roots.dev, 'vfio')}; run modprobe vfio-pci`;
    case 'EACCES':
      if (!opening) return tokenWanted(device);
      return `permission denied (${message}). Run as root, or give the nodes to your user: chown $USER ${nodesOf(device, roots).join(' ')}`;
    case 'EPERM':
      return opening
        ? `permission denied (${message}); a container has to be given the device`
        : 'the kernel refuses it (EPERM). Either interrupts cannot be kept apart, for want of interrupt remapping: enable that, or on a ' +
            'system that you trust set allow_unsafe_interrupts=1 of the module vfio_iommu_type1 (of iommufd for /dev/iommu); or without ' +
            'an IOMMU the process lacks CAP_SYS_RAWIO';
    case 'EBUSY':
      return `another process uses it${iommuGroup === null ? '' : ` or another device of its IOMMU group ${iommuGroup}`}; \`fuser -v /dev/vfio/*\` tells which`;
    case 'ENODEV':
      return `the kernel has no such device in the group (${message}); it may just have been unplugged: \`${SYSFS_DEVICES}\` lists what is there`;
    case 'EINVAL':
      return vfToken === undefined
        ? `the kernel refuses it (${message})`
        : `the kernel refuses it with a VF token (${message}): only a physical function with virtual ones and those, when that one is ` +
            `bound to vfio-pci, have one, and through an iommufd Linux takes it from 6.17 on. Leave ${VF_TOKEN_OPTION} out, or open it through its group`;
    case undefined:
    default:
      return opening ? message : `${message} (${address})`;
  }
}

/** How it is called, for those who read a message. */
const VF_TOKEN_OPTION = 'the option vfToken (--vf-token on the command line)';

/** What `vfio_pci_validate_vf_token` of the kernel means by EACCES. */
function tokenWanted({ physicalFunction, vfToken }: DeviceToOpen): string {
  const given = vfToken === undefined ? 'wants a VF token' : 'has another VF token';
  return physicalFunction === null
    ? `the kernel ${given} for it (EACCES), as programs use its virtual functions; open it with ${VF_TOKEN_OPTION}, the one that they have`
    : `the kernel ${given} for it (EACCES): it is a virtual function of ${physicalFunction}, which is bound to vfio-pci. First a program ` +
        `opens ${physicalFunction} with ${VF_TOKEN_OPTION}, a UUID of its choice, then this one is opened with the same`;
}

function refused(text: string): VfioUserError {
  return new VfioUserError('ERR_VFIO_USER_CONNECT', text);
}
