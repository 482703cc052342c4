// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import { readSafeU64, writeU64 } from './u64';
import { checkLimit, protocolError, viewOf, viewOfAtLeast, writeU32 } from './wire';

/** One write of a REGION_WRITE_MULTI (vfio-user, VFIO_USER_REGION_WRITE_MULTI). */
export interface SmallRegionWrite {
  /** Offset in the region, in bytes. */
  offset: number;
  /** Region index. */
  region: number;
  /** Up to 8 bytes. */
  data: Uint8Array;
}

const HEAD_SIZE = 8;
const WRITE_SIZE = 24;
const MAX_DATA = 8;

/** Encodes a REGION_WRITE_MULTI request. Throws `ERR_OUT_OF_RANGE` for values that do not fit. */
export function encodeRegionWriteMultiRequest(writes: readonly Readonly<SmallRegionWrite>[]): Uint8Array {
  const payload = new Uint8Array(HEAD_SIZE + WRITE_SIZE * writes.length);
  const view = viewOf(payload);
  writeU64(view, 0, writes.length, 'number of writes');
  writes.forEach(({ offset, region, data }, i) => {
    const at = HEAD_SIZE + WRITE_SIZE * i;
    if (data.byteLength > MAX_DATA) throw outOfRange(`a write has ${data.byteLength} bytes, at most 8 fit`);
    writeU64(view, at, offset, 'offset');
    writeU32(view, at + 8, region, 'region');
    view.setUint32(at + 12, data.byteLength, true);
    payload.set(data, at + 16);
  });
  return payload;
}

/** Decodes a REGION_WRITE_MULTI request; `data` are views of the payload. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeRegionWriteMultiRequest(payload: Uint8Array): SmallRegionWrite[] {
  const what = 'REGION_WRITE_MULTI request';
  const view = viewOfAtLeast(what, payload, HEAD_SIZE);
  const count = readSafeU64(view, 0, what, 'number of writes');
  if (count > (payload.byteLength - HEAD_SIZE) / WRITE_SIZE) {
    throw protocolError(what, `${count} writes do not fit into ${payload.byteLength} bytes`);
  }
  const writes: SmallRegionWrite[] = [];
  for (let i = 0; i < count; i++) {
    const at = HEAD_SIZE + WRITE_SIZE * i;
    const size = view.getUint32(at + 12, true);
    checkLimit(what, `count of write ${i}`, size, MAX_DATA);
    const offset = readSafeU64(view, at, what, `offset of write ${i}`);
    if (!Number.isSafeInteger(offset + size))
      throw protocolError(what, `offset of write ${i} is beyond reason`);
    writes.push({
      offset,
      region: view.getUint32(at + 8, true),
      data: payload.subarray(at + 16, at + 16 + size),
    });
  }
  return writes;
}

/** Encodes a REGION_WRITE_MULTI reply: the number of writes that were done. */
export function encodeRegionWriteMultiReply(count: number): Uint8Array {
  const payload = new Uint8Array(HEAD_SIZE);
  writeU64(viewOf(payload), 0, count, 'count');
  return payload;
}
