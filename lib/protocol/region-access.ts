// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import {
  checkEcho,
  checkLength,
  checkLimit,
  checkU32,
  getU32,
  newPayload,
  protocolError,
  putU32,
} from './wire';

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

/** Size of the fixed part, in bytes; data follows it. */
export const REGION_ACCESS_SIZE = 16;
const SIZE = REGION_ACCESS_SIZE;
const TWO_32 = 2 ** 32;
/** A value whose upper half is below this is held exactly by a number. */
const SAFE_HIGH = 0x20_0000;

function encodeAccess({ offset, region, count }: Readonly<RegionAccess>): Uint8Array {
  checkU32(region, 'region');
  checkU32(count, 'count');
  if (!Number.isSafeInteger(offset) || offset < 0)
    throw outOfRange(`offset must be an integer from 0 to 2^53 - 1, not ${offset}`);
  const payload = newPayload(SIZE);
  putU32(payload, 0, offset % TWO_32);
  putU32(payload, 4, Math.floor(offset / TWO_32));
  putU32(payload, 8, region);
  putU32(payload, 12, count);
  return payload;
}

function decodeAccess(what: string, payload: Uint8Array): RegionAccess {
  checkLength(what, payload, SIZE);
  const low = getU32(payload, 0);
  const high = getU32(payload, 4);
  if (high >= SAFE_HIGH) {
    const offset = (BigInt(high) << 32n) | BigInt(low);
    throw protocolError(what, `offset is 0x${offset.toString(16)}, which is beyond reason`);
  }
  const access: RegionAccess = {
    offset: high * TWO_32 + low,
    region: getU32(payload, 8),
    count: getU32(payload, 12),
  };
  if (!Number.isSafeInteger(access.offset + access.count)) {
    throw protocolError(what, 'offset plus count is beyond reason');
  }
  return access;
}

function isAccess(payload: Uint8Array, { offset, region, count }: Readonly<RegionAccess>): boolean {
  return (
    getU32(payload, 0) + getU32(payload, 4) * TWO_32 === offset &&
    getU32(payload, 8) === region &&
    getU32(payload, 12) === count
  );
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

/**
 * Decodes a REGION_READ reply, which may have fewer bytes than `asked`, the request, wanted.
 *
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL` when it is no reply to the request
 */
export function decodeRegionReadReply(
  payload: Uint8Array,
  asked: Readonly<RegionAccess>,
): RegionAccessWithData {
  const what = 'REGION_READ reply';
  // The usual reply repeats the request as it was.
  const usual = payload.byteLength >= SIZE + asked.count && isAccess(payload, asked);
  const { offset, region, count } = usual ? asked : decodeAnswer(what, payload, asked);
  if (count > 0) checkLength(what, payload, SIZE + count);
  const start = Math.min(SIZE, payload.byteLength);
  return { offset, region, count, data: payload.subarray(start, start + count) };
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
