// SPDX-License-Identifier: MIT
import type { SparseArea } from '../pci/device';
import {
  Command,
  RegionFlag,
  decodeRegionInfoReply,
  encodeRegionInfoRequest,
  type RegionInfo,
} from '../protocol';
import type { FdList } from '../transport';
import { ask, type Asked } from './ask';

/** What the server told about a region, and the descriptors that came with it. */
export interface RegionDescription {
  readonly index: number;
  /** Bytes; 0 for a region that is absent. */
  readonly size: number;
  /** `RegionFlag` bits. */
  readonly flags: number;
  /** Offset of the region's first byte in the descriptor. */
  readonly fdOffset: number;
  /** The parts that can be mapped. */
  readonly areas: readonly SparseArea[];
  /** Type and subtype of a device-specific region (`struct vfio_region_info_cap_type`). */
  readonly type?: { readonly type: number; readonly subtype: number } | undefined;
  /** No descriptor, one for all areas, or one for each area. They belong to the caller. */
  readonly fds: readonly number[];
}

/** Info that fits into this many bytes is asked for with one message; larger takes a second one. */
const INFO_SIZE = 4096;
const MAX_INFO_SIZE = 1 << 20;

/** Asks what a region is (vfio-user, VFIO_USER_DEVICE_GET_REGION_INFO). */
export async function describeRegion(asked: Asked, index: number): Promise<RegionDescription> {
  const { told: info, fds } = await ask(asked, {
    command: Command.deviceGetRegionInfo,
    room: INFO_SIZE,
    mostRoom: MAX_INFO_SIZE,
    encode: (argsz) => encodeRegionInfoRequest({ index, argsz }),
    decode: (payload) => decodeRegionInfoReply(payload, { index }),
  });
  // When the capabilities are cut off, it is not known which parts can be mapped. Then none are.
  const mappable = info.complete && (info.flags & RegionFlag.mmap) !== 0;
  const areas = mappable ? mappableAreas(info) : [];
  return {
    index,
    size: info.size,
    flags: info.flags,
    fdOffset: info.offset,
    areas,
    type: info.capabilities.find((capability) => capability.kind === 'type'),
    fds: takeFds(fds, mappable ? Math.max(1, areas.length) : 0),
  };
}

/** The areas of a sparse mmap capability; without one, the whole region. */
function mappableAreas({ size, capabilities }: RegionInfo): readonly SparseArea[] {
  const sparse = capabilities.find((capability) => capability.kind === 'sparseMmap');
  return sparse?.areas ?? (size > 0 ? [{ offset: 0, size }] : []);
}

/** Takes up to `most` descriptors, and closes what a server sent beyond that. */
function takeFds(fds: FdList, most: number): number[] {
  const taken = [];
  for (let index = 0; index < Math.min(most, fds.length); index++) {
    const fd = fds.take(index);
    if (fd !== undefined) taken.push(fd);
  }
  fds.close();
  return taken;
}
