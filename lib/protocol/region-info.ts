// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import { RegionCapabilityId, RegionFlag } from './constants';
import { readSafeU64, writeU64 } from './u64';
import {
  checkEcho,
  dataOf,
  protocolError,
  encodeIndexRequest,
  readArgsz,
  viewOf,
  viewOfAtLeast,
  writeU32,
} from './wire';

/** A part of a region that can be mapped. */
export interface SparseMmapArea {
  /** First byte of the part in the region, in bytes. */
  offset: number;
  /** Size of the part in bytes. */
  size: number;
}

/** A capability of a region (vfio-user, VFIO region capabilities; `linux/vfio.h`). */
export type RegionCapability =
  /** Only these parts of the region can be mapped (`struct vfio_region_info_cap_sparse_mmap`). */
  | { kind: 'sparseMmap'; areas: readonly SparseMmapArea[] }
  /** What a device-specific region is (`struct vfio_region_info_cap_type`). */
  | { kind: 'type'; type: number; subtype: number }
  /** Any other: the bytes behind its header, up to the next capability or the end of the payload. */
  | { kind: 'unknown'; id: number; version: number; data: Uint8Array };

/** What DEVICE_GET_REGION_INFO tells about a region (vfio-user, VFIO_USER_DEVICE_GET_REGION_INFO). */
export interface RegionInfo {
  /** Region index. */
  index: number;
  /** {@link RegionFlag} bits. The encoder sets `caps` by itself. */
  flags: number;
  /** Size of the region in bytes; 0 when it does not exist. */
  size: number;
  /** Offset of the region in the file that comes with the reply, in bytes. */
  offset: number;
  /** In the order of the reply. */
  capabilities: readonly RegionCapability[];
}

/** A decoded DEVICE_GET_REGION_INFO reply. */
export interface RegionInfoReply extends RegionInfo {
  /** Bytes that the whole payload needs: ask again, once, with this much room when the reply is not complete. */
  argsz: number;
  /** False when the server left out capabilities for want of room; `capabilities` is empty then. */
  complete: boolean;
}

const SIZE = 32;
const CAP_HEADER_SIZE = 8;
const AREA_SIZE = 16;
/** Version of both capabilities that are understood. */
const CAP_VERSION = 1;
/** Most capabilities that are read, far more than exist. They may overlap, so without a limit a reply could take quadratic time. */
const MAX_CAPABILITIES = 64;

/**
 * Encodes a DEVICE_GET_REGION_INFO request.
 *
 * @param request `argsz` is the room for the reply's payload, in bytes
 */
export function encodeRegionInfoRequest(request: Readonly<{ index: number; argsz?: number }>): Uint8Array {
  return encodeIndexRequest(SIZE, request);
}

/**
 * Decodes a DEVICE_GET_REGION_INFO request. Bytes behind the structure are ignored (SPDK sends about 4 KiB of them),
 * as are the other fields, which QEMU fills from an earlier reply. Throws `ERR_VFIO_USER_PROTOCOL`.
 */
export function decodeRegionInfoRequest(payload: Uint8Array): { argsz: number; index: number } {
  const what = 'DEVICE_GET_REGION_INFO request';
  const view = viewOfAtLeast(what, payload, SIZE);
  return { argsz: readArgsz(what, view, SIZE), index: view.getUint32(8, true) };
}

/**
 * Encodes a DEVICE_GET_REGION_INFO reply. When the client's room does not hold the capabilities they are left out,
 * and `argsz` tells how much is needed (vfio-user, Message sizes).
 *
 * @param room the request's `argsz`
 */
export function encodeRegionInfoReply(info: Readonly<RegionInfo>, room: number): Uint8Array {
  const needed = info.capabilities.reduce((size, capability) => size + capabilitySize(capability), SIZE);
  const withCaps = info.capabilities.length > 0 && needed <= room;
  const payload = new Uint8Array(withCaps ? needed : SIZE);
  const view = viewOf(payload);
  writeU32(view, 0, needed, 'argsz');
  writeU32(view, 4, info.flags, 'flags');
  view.setUint32(4, (withCaps ? info.flags | RegionFlag.caps : info.flags & ~RegionFlag.caps) >>> 0, true);
  writeU32(view, 8, info.index, 'index');
  view.setUint32(12, withCaps ? SIZE : 0, true);
  writeU64(view, 16, info.size, 'size');
  writeU64(view, 24, info.offset, 'offset');
  if (withCaps) {
    let at = SIZE;
    info.capabilities.forEach((capability, i) => {
      const end = at + capabilitySize(capability);
      encodeCapability(payload, view, at, capability, i + 1 < info.capabilities.length ? end : 0);
      at = end;
    });
  }
  return payload;
}

/** Every capability starts at a multiple of 8, as the kernel aligns them. */
function capabilitySize(capability: RegionCapability): number {
  switch (capability.kind) {
    case 'sparseMmap':
      return CAP_HEADER_SIZE + 8 + AREA_SIZE * capability.areas.length;
    case 'type':
      return CAP_HEADER_SIZE + 8;
    case 'unknown':
      return CAP_HEADER_SIZE + Math.ceil(capability.data.byteLength / 8) * 8;
  }
}

function encodeCapability(
  payload: Uint8Array,
  view: DataView,
  at: number,
  capability: RegionCapability,
  next: number,
): void {
  view.setUint32(at + 4, next, true);
  view.setUint16(at + 2, CAP_VERSION, true);
  switch (capability.kind) {
    case 'sparseMmap':
      view.setUint16(at, RegionCapabilityId.sparseMmap, true);
      view.setUint32(at + 8, capability.areas.length, true);
      capability.areas.forEach((area, i) => {
        writeU64(view, at + 16 + AREA_SIZE * i, area.offset, 'area.offset');
        writeU64(view, at + 24 + AREA_SIZE * i, area.size, 'area.size');
      });
      break;
    case 'type':
      view.setUint16(at, RegionCapabilityId.type, true);
      writeU32(view, at + 8, capability.type, 'type');
      writeU32(view, at + 12, capability.subtype, 'subtype');
      break;
    case 'unknown':
      if (!isU16(capability.id) || !isU16(capability.version)) {
        throw outOfRange('id and version of a capability must be integers from 0 to 65535');
      }
      view.setUint16(at, capability.id, true);
      view.setUint16(at + 2, capability.version, true);
      payload.set(capability.data, at + CAP_HEADER_SIZE);
      break;
  }
}

function isU16(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 0xffff;
}

const REPLY = 'DEVICE_GET_REGION_INFO reply';

/** Decodes a DEVICE_GET_REGION_INFO reply. `asked` is the index that was asked for. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeRegionInfoReply(
  payload: Uint8Array,
  asked: Readonly<{ index: number }>,
): RegionInfoReply {
  const view = viewOfAtLeast(REPLY, payload, SIZE);
  const argsz = view.getUint32(0, true);
  const flags = view.getUint32(4, true);
  const index = view.getUint32(8, true);
  checkEcho(REPLY, 'index', index, asked.index);
  const size = readSafeU64(view, 16, REPLY, 'size');
  const offset = readSafeU64(view, 24, REPLY, 'offset');
  if (!Number.isSafeInteger(offset + size)) throw protocolError(REPLY, 'offset plus size is beyond reason');
  const complete = argsz <= payload.byteLength;
  const capabilities =
    complete && (flags & RegionFlag.caps) !== 0 ? readCapabilities(payload, view, size) : [];
  return { argsz, complete, flags, index, size, offset, capabilities };
}

function readCapabilities(payload: Uint8Array, view: DataView, regionSize: number): RegionCapability[] {
  const capabilities: RegionCapability[] = [];
  const seen = new Set<number>();
  for (let at = view.getUint32(12, true); at !== 0; at = view.getUint32(at + 4, true)) {
    if (at < SIZE || at > payload.byteLength - CAP_HEADER_SIZE) {
      throw protocolError(REPLY, `capability at ${at} is outside of the ${payload.byteLength} bytes`);
    }
    if (seen.has(at)) throw protocolError(REPLY, `the list of capabilities comes back to ${at}`);
    if (seen.size === MAX_CAPABILITIES)
      throw protocolError(REPLY, `more than ${MAX_CAPABILITIES} capabilities`);
    seen.add(at);
    capabilities.push(readCapability(payload, view, at, regionSize));
  }
  return capabilities;
}

function readCapability(
  payload: Uint8Array,
  view: DataView,
  at: number,
  regionSize: number,
): RegionCapability {
  const id = view.getUint16(at, true);
  const version = view.getUint16(at + 2, true);
  if (version === CAP_VERSION && id === RegionCapabilityId.sparseMmap) {
    dataOf(REPLY, payload, at, CAP_HEADER_SIZE + 8);
    const count = view.getUint32(at + 8, true);
    dataOf(REPLY, payload, at, CAP_HEADER_SIZE + 8 + count * AREA_SIZE);
    const areas: SparseMmapArea[] = [];
    for (let i = 0; i < count; i++) areas.push(readArea(view, at + 16 + AREA_SIZE * i, regionSize));
    return { kind: 'sparseMmap', areas };
  }
  if (version === CAP_VERSION && id === RegionCapabilityId.type) {
    dataOf(REPLY, payload, at, CAP_HEADER_SIZE + 8);
    return { kind: 'type', type: view.getUint32(at + 8, true), subtype: view.getUint32(at + 12, true) };
  }
  const next = view.getUint32(at + 4, true);
  const start = at + CAP_HEADER_SIZE;
  return { kind: 'unknown', id, version, data: payload.subarray(start, next > start ? next : undefined) };
}

function readArea(view: DataView, at: number, regionSize: number): SparseMmapArea {
  const offset = readSafeU64(view, at, REPLY, 'offset of a sparse area');
  const size = readSafeU64(view, at + 8, REPLY, 'size of a sparse area');
  if (size > regionSize || offset > regionSize - size) {
    throw protocolError(
      REPLY,
      `sparse area of ${size} bytes at ${offset} is outside of the region of ${regionSize} bytes`,
    );
  }
  return { offset, size };
}
