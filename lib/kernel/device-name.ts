// SPDX-License-Identifier: MIT
import { isPciAddress, pciAddress } from './pci-address';

/** A UUID as the kernel reads it (`uuid_parse`). */
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Whether a text is a UUID, such as `83b8f4f2-509f-382f-3c1e-e6bfe0fa1001`. */
export function isUuid(text: string): boolean {
  return UUID.test(text);
}

/** Whether a text names a device of the kernel's VFIO: the address of a PCI function, or the UUID of a mediated device. */
export function isDeviceName(text: string): boolean {
  return isPciAddress(text) || isUuid(text);
}

/**
 * The name of a device as sysfs writes it.
 *
 * @throws TypeError ERR_INVALID_ARG_VALUE for what is none
 */
export function deviceName(text: string): string {
  return isUuid(text) ? text.toLowerCase() : pciAddress(text);
}
