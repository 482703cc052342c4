// SPDX-License-Identifier: MIT
import { isPciAddress } from '../kernel/pci-address';
import { UUID_FORM, isUuid } from '../kernel/device-name';
import { UsageError, type FormOption } from './option-spec';
import { printable } from './output';

/** The option of each command that opens a PCI device. */
export const VF_TOKEN_OPTION = {
  type: 'form',
  placeholder: 'uuid',
  expected: UUID_FORM,
  parse: (text: string): string | undefined => (isUuid(text) ? text : undefined),
  help: 'The VF token with which a PCI device is opened: a secret that a physical function bound to vfio-pci shares with its virtual ones.',
} as const satisfies FormOption;

/**
 * Refuses a token that nothing would be opened with.
 *
 * @throws UsageError
 */
export function checkVfToken(token: string | undefined, endpoints: readonly string[]): void {
  if (token === undefined || endpoints.some(isPciAddress)) return;
  const [endpoint] = endpoints;
  throw new UsageError(
    `--vf-token goes with the PCI address of a device${endpoint === undefined ? '' : `, and '${printable(endpoint)}' is none`}; leave it out`,
  );
}
