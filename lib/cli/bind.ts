// SPDX-License-Identifier: MIT
import { bindToVfio, unbindFromVfio } from '../kernel/driver-binding';
import { defineCommand } from './command';
import type { CommandSpec } from './option-spec';
import { complain, print } from './output';
import { systemRoots } from './system-roots';

const BIND = {
  name: 'bind',
  summary: 'Give a PCI device to vfio-pci, so that info and bench reach it by its address. Needs root.',
  positionals: [{ name: 'address', help: 'PCI address, such as 0000:01:00.0.' }],
  options: {},
  examples: [['bind 0000:01:00.0', 'Takes the device from its driver; unbind gives it back.']],
} as const satisfies CommandSpec;

const UNBIND = {
  name: 'unbind',
  summary: 'Give a PCI device back to the driver that it had before bind. Needs root.',
  positionals: [{ name: 'address', help: 'PCI address, such as 0000:01:00.0.' }],
  options: {},
} as const satisfies CommandSpec;

/** `vfio-user bind` */
export const bind = defineCommand(BIND, (_, [given = '']) => {
  const { address, before, now, obstacles } = bindToVfio(given, systemRoots());
  print(
    before === now
      ? `${address} is bound to ${now ?? ''} already.`
      : `${address} is bound to ${now ?? ''}; it was bound to ${before ?? 'no driver'}.`,
  );
  if (obstacles.length > 0)
    complain(
      `its IOMMU group cannot be used yet: ${obstacles.map((other) => `${other.address} (${other.driver ?? ''})`).join(', ')} belong to it too; bind or unbind them`,
    );
});

/** `vfio-user unbind` */
export const unbind = defineCommand(UNBIND, (_, [given = '']) => {
  const { address, now } = unbindFromVfio(given, systemRoots());
  print(`${address} is bound to ${now ?? 'no driver'} again.`);
});
