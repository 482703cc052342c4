// SPDX-License-Identifier: MIT
import { readArgsz, viewOf, viewOfAtLeast, writeU32 } from './wire';

/** What DEVICE_GET_INFO tells about the device (vfio-user, VFIO_USER_DEVICE_GET_INFO). */
export interface DeviceInfo {
  /** {@link DeviceFlag} bits. */
  flags: number;
  /** Number of region indexes, those of regions without a size among them. */
  numRegions: number;
  /** Number of interrupt indexes, not of vectors. */
  numIrqs: number;
}

/** A decoded DEVICE_GET_INFO reply. The numbers are the peer's: cap them before they bound a loop. */
export interface DeviceInfoReply extends DeviceInfo {
  /** Bytes that the whole payload needs. */
  argsz: number;
  /** False when the server has more to say than it was given room for. */
  complete: boolean;
}

const SIZE = 16;

/**
 * Encodes a DEVICE_GET_INFO request.
 *
 * @param argsz room for the reply's payload, in bytes
 */
export function encodeDeviceInfoRequest(argsz = SIZE): Uint8Array {
  const payload = new Uint8Array(SIZE);
  writeU32(viewOf(payload), 0, argsz, 'argsz');
  return payload;
}

/** Decodes a DEVICE_GET_INFO request. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeDeviceInfoRequest(payload: Uint8Array): { argsz: number } {
  const what = 'DEVICE_GET_INFO request';
  return { argsz: readArgsz(what, viewOfAtLeast(what, payload, SIZE), SIZE) };
}

/** Encodes a DEVICE_GET_INFO reply. */
export function encodeDeviceInfoReply(info: Readonly<DeviceInfo>): Uint8Array {
  const payload = new Uint8Array(SIZE);
  const view = viewOf(payload);
  view.setUint32(0, SIZE, true);
  writeU32(view, 4, info.flags, 'flags');
  writeU32(view, 8, info.numRegions, 'numRegions');
  writeU32(view, 12, info.numIrqs, 'numIrqs');
  return payload;
}

/** Decodes a DEVICE_GET_INFO reply. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeDeviceInfoReply(payload: Uint8Array): DeviceInfoReply {
  const view = viewOfAtLeast('DEVICE_GET_INFO reply', payload, SIZE);
  const argsz = view.getUint32(0, true);
  return {
    argsz,
    complete: argsz <= payload.byteLength,
    flags: view.getUint32(4, true),
    numRegions: view.getUint32(8, true),
    numIrqs: view.getUint32(12, true),
  };
}
