// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';

const ADDRESS = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])$/i;

/** Whether a text is the address of a PCI function: `0000:01:00.0`, or `01:00.0` in domain 0. */
export function isPciAddress(text: string): boolean {
  return ADDRESS.test(text);
}

/**
 * An address as sysfs writes it: with its domain, in lower case.
 *
 * @throws TypeError ERR_INVALID_ARG_VALUE
 */
export function pciAddress(text: string): string {
  const [, domain = '0000', bus, device, fn] = ADDRESS.exec(text) ?? [];
  if (bus === undefined || device === undefined || fn === undefined)
    throw invalidArgument(`'${text}' is no PCI address; write it as lspci -D does, such as 0000:01:00.0`);
  return `${domain}:${bus}:${device}.${fn}`.toLowerCase();
}
