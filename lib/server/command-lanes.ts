// SPDX-License-Identifier: MIT
import { Command } from '../protocol';
import type { Lane } from '../transport';
import type { PciDeviceModel } from './device-model';

type Regions = PciDeviceModel['regions'];

/**
 * Commands in which the device model has no part. DEVICE_SET_IRQS is one of them: it changes our table of eventfds, beside
 * the register accesses of other threads, as the ioctl of the kernel's VFIO does; an unmask must not wait for a slow
 * register.
 */
const APART: Lane = { key: 'apart', shared: true };

/** Accesses of one region are done one at a time, but reads overlap in a region that says so. */
export function regionLane(regions: Regions, index: number, write: boolean): Lane {
  return { key: index, shared: !write && regions.get(index)?.concurrent === true };
}

/**
 * What a command overlaps with (vfio-user, "Command Concurrency"). All that changes what the device works with (DMA ranges,
 * reset, migration) is a barrier, and so is what is rare: REGION_WRITE_MULTI, which may concern many regions, and
 * DEVICE_FEATURE.
 */
export function commandLane(regions: Regions, command: number, payload: Uint8Array): Lane | null {
  switch (command) {
    case Command.deviceGetInfo:
    case Command.deviceGetRegionInfo:
    case Command.deviceGetRegionIoFds:
    case Command.deviceGetIrqInfo:
    case Command.deviceSetIrqs:
      return APART;
    case Command.regionRead:
    case Command.regionWrite: {
      // Too short to be one: it is refused when its turn comes.
      if (payload.byteLength < 16) return APART;
      const index = new DataView(payload.buffer, payload.byteOffset).getUint32(8, true);
      return regionLane(regions, index, command === Command.regionWrite);
    }
    default:
      return null;
  }
}
