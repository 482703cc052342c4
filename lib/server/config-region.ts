// SPDX-License-Identifier: MIT
import type { ConfigEffect, ConfigSpace } from '../pci/config-space';
import type { ServedRegion } from './device-model';

/**
 * Configuration space as a region, for `PciRegion.config` of a device model.
 *
 * @param onEffect called for each change that a client's write makes, in the order in which a device should act
 * @example regions: new Map([[PciRegion.config, configRegion(new ConfigSpace({ vendorId: 0x1234, … }))]])
 */
export function configRegion(
  space: ConfigSpace,
  onEffect?: (effect: ConfigEffect) => void | Promise<void>,
): ServedRegion {
  return {
    size: space.size,
    read: (offset, data) => {
      data.set(space.read(offset, data.byteLength));
    },
    write: async (offset, data) => {
      for (const effect of space.write(offset, data)) await onEffect?.(effect);
    },
  };
}
