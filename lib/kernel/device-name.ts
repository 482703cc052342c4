// SPDX-License-Identifier: MIT
import { isPciAddress, pciAddress } from './pci-address';

/** A UUID as the kernel reads it (`uuid_parse`). */
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What a UUID is, for messages. */
export const UUID_FORM = 'a UUID, such as bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3';

/** Whether a text is a UUID. */
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
