// SPDX-License-Identifier: MIT
import { readSafeU64, writeU64 } from './u64';
import { checkEcho, checkLimit, dataOf, protocolError, viewOf, viewOfAtLeast, writeU32 } from './wire';

/** The fixed part of REGION_READ and REGION_WRITE, requests and replies (vfio-user, VFIO_USER_REGION_READ). */
export interface RegionAccess {
  /** Offset in the region, in bytes. */
  offset: number;
  /** Region index. */
  region: number;
  /** Bytes that are transferred. */
  count: number;
}

/** A {@link RegionAccess} with the bytes behind it, as a view of the payload. */
export interface RegionAccessWithData extends RegionAccess {
  data: Uint8Array;
}

const SIZE = 16;

function encodeAccess({ offset, region, count }: Readonly<RegionAccess>): Uint8Array {
  const payload = new Uint8Array(SIZE);
  const view = viewOf(payload);
  writeU64(view, 0, offset, 'offset');
  writeU32(view, 8, region, 'region');
  writeU32(view, 12, count, 'count');
  return payload;
}

function decodeAccess(what: string, payload: Uint8Array): RegionAccess {
  const view = viewOfAtLeast(what, payload, SIZE);
  const access: RegionAccess = {
    offset: readSafeU64(view, 0, what, 'offset'),
    region: view.getUint32(8, true),
    count: view.getUint32(12, true),
  };
  if (!Number.isSafeInteger(access.offset + access.count)) {
    throw protocolError(what, 'offset plus count is beyond reason');
  }
  return access;
}

/** Decodes a reply, which must repeat the request and may have transferred less. */
function decodeAnswer(what: string, payload: Uint8Array, asked: Readonly<RegionAccess>): RegionAccess {
  // libvfio-user answers an access of 0 bytes with a header only.
  if (asked.count === 0 && payload.byteLength === 0) return { ...asked };
  const access = decodeAccess(what, payload);
  checkEcho(what, 'offset', access.offset, asked.offset);
  checkEcho(what, 'region', access.region, asked.region);
  checkLimit(what, 'count', access.count, asked.count);
  return access;
}

/** Encodes a REGION_READ request. Throws `ERR_OUT_OF_RANGE` for values that do not fit. */
export function encodeRegionReadRequest(request: Readonly<RegionAccess>): Uint8Array {
  return encodeAccess(request);
}

/**
 * Decodes a REGION_READ request.
 *
 * @param maxDataXferSize largest count that is accepted, in bytes
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeRegionReadRequest(payload: Uint8Array, maxDataXferSize: number): RegionAccess {
  const access = decodeAccess('REGION_READ request', payload);
  checkLimit('REGION_READ request', 'count', access.count, maxDataXferSize);
  return access;
}

/** Encodes the fixed part of a REGION_READ reply; `count` bytes of data follow it. */
export function encodeRegionReadReply(reply: Readonly<RegionAccess>): Uint8Array {
  return encodeAccess(reply);
}

/** Decodes a REGION_READ reply. `count` may be less than what `asked`, the request, wanted. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeRegionReadReply(
  payload: Uint8Array,
  asked: Readonly<RegionAccess>,
): RegionAccessWithData {
  const what = 'REGION_READ reply';
  const access = decodeAnswer(what, payload, asked);
  const start = Math.min(SIZE, payload.byteLength);
  return { ...access, data: dataOf(what, payload, start, access.count) };
}

/** Encodes the fixed part of a REGION_WRITE request; `count` bytes of data follow it. */
export function encodeRegionWriteRequest(request: Readonly<RegionAccess>): Uint8Array {
  return encodeAccess(request);
}

/**
 * Decodes a REGION_WRITE request.
 *
 * @param maxDataXferSize largest count that is accepted, in bytes
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`, also when there are more bytes than `count` says
 */
export function decodeRegionWriteRequest(payload: Uint8Array, maxDataXferSize: number): RegionAccessWithData {
  const what = 'REGION_WRITE request';
  const access = decodeAccess(what, payload);
  checkLimit(what, 'count', access.count, maxDataXferSize);
  checkEcho(what, 'count', access.count, payload.byteLength - SIZE);
  return { ...access, data: payload.subarray(SIZE) };
}

/** Encodes a REGION_WRITE reply. */
export function encodeRegionWriteReply(reply: Readonly<RegionAccess>): Uint8Array {
  return encodeAccess(reply);
}

/** Decodes a REGION_WRITE reply. `count` may be less than what `asked`, the request, had. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeRegionWriteReply(payload: Uint8Array, asked: Readonly<RegionAccess>): RegionAccess {
  return decodeAnswer('REGION_WRITE reply', payload, asked);
}
