// SPDX-License-Identifier: MIT
import { checkLimit, dataOf, readArgsz, viewOf, viewOfAtLeast, writeU32 } from './wire';

const SIZE = 8;

function encodeFixed(size: number): Uint8Array {
  const payload = new Uint8Array(SIZE);
  const view = viewOf(payload);
  writeU32(view, 0, SIZE + size, 'size plus 8');
  writeU32(view, 4, size, 'size');
  return payload;
}

/**
 * Encodes a MIG_DATA_READ request (vfio-user, VFIO_USER_MIG_DATA_READ).
 *
 * @param size bytes that are wanted
 */
export function encodeMigDataReadRequest(size: number): Uint8Array {
  return encodeFixed(size);
}

/**
 * Decodes a MIG_DATA_READ request.
 *
 * @param maxDataXferSize largest size that is accepted, in bytes
 * @returns bytes that are wanted, of which `argsz` holds the reply's 8 bytes and them
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeMigDataReadRequest(
  payload: Uint8Array,
  maxDataXferSize: number,
): { argsz: number; size: number } {
  const what = 'MIG_DATA_READ request';
  const view = viewOfAtLeast(what, payload, SIZE);
  const size = view.getUint32(4, true);
  checkLimit(what, 'size', size, maxDataXferSize);
  return { argsz: readArgsz(what, view, SIZE + size), size };
}

/** Encodes the fixed part of a MIG_DATA_READ reply; `size` bytes of data follow it. */
export function encodeMigDataReadReply(size: number): Uint8Array {
  return encodeFixed(size);
}

/**
 * Decodes a MIG_DATA_READ reply. Bytes behind the data are ignored: a server may pad to what was asked for.
 *
 * @param asked bytes that were asked for; when fewer came there are no more
 * @returns the data, as a view of the payload
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeMigDataReadReply(payload: Uint8Array, asked: number): Uint8Array {
  const what = 'MIG_DATA_READ reply';
  const size = viewOfAtLeast(what, payload, SIZE).getUint32(4, true);
  checkLimit(what, 'size', size, asked);
  return dataOf(what, payload, SIZE, size);
}

/** Encodes the fixed part of a MIG_DATA_WRITE request; `size` bytes of data follow it. The reply has no payload. */
export function encodeMigDataWriteRequest(size: number): Uint8Array {
  return encodeFixed(size);
}

/**
 * Decodes a MIG_DATA_WRITE request.
 *
 * @param maxDataXferSize largest size that is accepted, in bytes
 * @returns the data, as a view of the payload
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeMigDataWriteRequest(payload: Uint8Array, maxDataXferSize: number): Uint8Array {
  const what = 'MIG_DATA_WRITE request';
  const size = viewOfAtLeast(what, payload, SIZE).getUint32(4, true);
  checkLimit(what, 'size', size, maxDataXferSize);
  return dataOf(what, payload, SIZE, size);
}
