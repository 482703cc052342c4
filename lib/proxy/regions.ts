// SPDX-License-Identifier: MIT
import { fstatSync } from 'node:fs';
import { pageSize } from '../native';
import type { SparseArea } from '../pci/device';
import { CommandError, Errno, type ServedRegion, type SharedFile } from '../server';
import type { ProxiedDevice, ProxiedRegion } from './device';
import type { Steps } from './steps';

/** How regions are handed through. */
export interface RegionOptions {
  /** Lets nothing be mapped, so that every access comes through the proxy. */
  readonly trap: boolean;
  readonly steps: Steps;
  /** Throws when the device is gone: its descriptors are closed then. */
  readonly assertThere: () => void;
}

/** The regions of a device as they are served, by index: of the same sizes, with the same bytes at the same places. */
export async function proxiedRegions(
  device: ProxiedDevice,
  options: RegionOptions,
): Promise<Map<number, ServedRegion>> {
  const { regionCount } = await device.info();
  const served = new Map<number, ServedRegion>();
  for (let index = 0; index < regionCount; index++) {
    const region = await device.region(index);
    if (region.size > 0) served.set(index, servedRegion(region, options));
  }
  return served;
}

/** An access is handed through as wide as it came. */
function servedRegion(region: ProxiedRegion, { trap, steps, assertThere }: RegionOptions): ServedRegion {
  const { index, size, type, subtype = 0 } = region;
  const shared = trap ? null : sharedFile(region, assertThere);
  const read = async (offset: number, data: Uint8Array): Promise<void> =>
    steps.ask({ kind: 'read', region: index, offset, data }, async () => {
      data.set(await region.readBytes(offset, data.length));
    });
  const write = async (offset: number, data: Uint8Array): Promise<void> =>
    steps.act({ kind: 'write', region: index, offset, data }, () => region.writeBytes(offset, data));
  return {
    size,
    ...(type !== undefined && { type: { type, subtype } }),
    ...(shared !== null && { shared }),
    ...(region.readable && { read }),
    ...(region.writable && { write }),
  };
}

/**
 * What clients may map. Only a file of memory is handed on: the descriptor of a device node, as the kernel's VFIO has, is the
 * whole device, with its configuration space and interrupts, for as long as whoever got it keeps it.
 */
function sharedFile(region: ProxiedRegion, assertThere: () => void): SharedFile | null {
  const areas = region.areas.filter(isPages);
  const [first, ...others] = areas.map((area) => placeOf(region, area));
  // A region of a served device is in one file (vfio-user, VFIO_USER_DEVICE_GET_REGION_INFO).
  if (first === undefined || others.some(({ fd, start }) => fd !== first.fd || start !== first.start))
    return null;
  const { fd, start } = first;
  if (start < 0 || !fstatSync(fd).isFile()) return null;
  return {
    fd: () => {
      assertThere();
      return fd;
    },
    offset: start,
    areas,
  };
}

/** The file of an area, which is the region's, and where the region's first byte is in it. */
function placeOf(region: ProxiedRegion, { offset, size }: SparseArea): { fd: number; start: number } {
  const mapped = region.map(offset, size);
  mapped.close();
  return { fd: mapped.fd, start: mapped.fdOffset - offset };
}

function isPages({ offset, size }: SparseArea): boolean {
  return offset % pageSize === 0 && size % pageSize === 0;
}

/** For a device that is gone. */
export function goneRefusal(error: Error): CommandError {
  return new CommandError(Errno.ENODEV, error.message);
}
