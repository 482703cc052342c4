// SPDX-License-Identifier: MIT
import { join } from 'node:path';
import { VfioUserError } from '../errors';
import { deviceName } from './device-name';
import { text, vfioDeviceAt, type VfioDeviceInfo } from './sysfs';

/** `VFIO_DEVICE_API_PCI_STRING` of `linux/vfio.h`. */
const PCI = 'vfio-pci';

/**
 * A mediated device: one that a driver of the kernel has made, in software or of a part of a real one
 * (Documentation/driver-api/vfio-mediated-device.rst of the kernel). VFIO makes a group for each, whose name is that of groups
 * without an IOMMU; but its driver sees to what memory it reaches.
 *
 * @param uuid its name
 * @param sys mount point of sysfs
 * @throws VfioUserError ERR_VFIO_USER_CONNECT when there is none, it is no PCI device, or VFIO does not have it
 */
export function mediatedDevice(uuid: string, sys: string): VfioDeviceInfo {
  const devices = join(sys, 'bus', 'mdev', 'devices');
  const address = deviceName(uuid);
  const path = join(devices, address);
  const kind = text(join(path, 'mdev_type', 'device_api'));
  if (kind === null)
    throw refused(
      `there is no mediated device ${address}; \`ls ${devices}\` lists those that are there. A UUID that is written to create, in ` +
        'a folder of /sys/class/mdev_bus/*/mdev_supported_types, makes one',
    );
  if (kind !== PCI)
    throw refused(
      `${address} is no PCI device: VFIO offers it as ${kind}, which this package does not drive`,
    );
  const device = { ...vfioDeviceAt(path, address), noiommu: false };
  if (device.iommuGroup === null && device.vfioNode === null)
    throw refused(
      `${address} cannot be opened: VFIO does not have it, as no driver is bound to it; remove it and make it anew`,
    );
  return device;
}

function refused(message: string): VfioUserError {
  return new VfioUserError('ERR_VFIO_USER_CONNECT', message);
}
