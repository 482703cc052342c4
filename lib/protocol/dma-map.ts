// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import { fitsU64, hexU64, putU64, readU64, type U64 } from './u64';
import { checkU32, newPayload, protocolError, putU32, readArgsz, viewOfAtLeast } from './wire';

/** Payload of a DMA_MAP request (vfio-user, VFIO_USER_DMA_MAP). The reply has no payload. */
export interface DmaMapRequest {
  /** {@link DmaMapFlag} bits. */
  flags: number;
  /** Offset of the memory in the file that comes with the message, in bytes; 0 without a file. */
  offset: U64;
  /** IOVA of the first byte. */
  address: U64;
  /** Size in bytes, at least 1. */
  size: U64;
}

/** Bytes of a DMA_MAP request. */
export const DMA_MAP_SIZE = 32;
const SIZE = DMA_MAP_SIZE;

/**
 * Encodes the 32 bytes of a DMA_MAP request. Throws `ERR_OUT_OF_RANGE` for values that do not fit, and for a size of 0.
 *
 * @param payload where to, at least {@link DMA_MAP_SIZE} bytes
 */
export function encodeDmaMapRequest(
  request: Readonly<DmaMapRequest>,
  payload: Uint8Array = newPayload(SIZE),
): Uint8Array {
  const { flags, offset, address, size } = request;
  checkU32(flags, 'flags');
  putU32(payload, 0, SIZE);
  putU32(payload, 4, flags);
  putU64(payload, 8, offset, 'offset');
  putU64(payload, 16, address, 'address');
  putU64(payload, 24, size, 'size');
  if (size === 0 || size === 0n) throw outOfRange('size must be at least 1, not 0');
  if (!fitsU64(address, size))
    throw outOfRange(`address ${hexU64(address)} plus size ${hexU64(size)} is above 2^64`);
  if (!fitsU64(offset, size)) {
    throw outOfRange(`offset ${hexU64(offset)} plus size ${hexU64(size)} is above 2^64`);
  }
  return payload;
}

/** Decodes a DMA_MAP request. Flags that are not known are kept. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeDmaMapRequest(payload: Uint8Array): DmaMapRequest {
  const what = 'DMA_MAP request';
  const view = viewOfAtLeast(what, payload, SIZE);
  readArgsz(what, view, SIZE);
  const request: DmaMapRequest = {
    flags: view.getUint32(4, true),
    offset: readU64(view, 8),
    address: readU64(view, 16),
    size: readU64(view, 24),
  };
  if (request.size === 0) throw protocolError(what, 'size is 0');
  if (!fitsU64(request.address, request.size)) {
    throw protocolError(
      what,
      `address ${hexU64(request.address)} plus size ${hexU64(request.size)} is above 2^64`,
    );
  }
  if (!fitsU64(request.offset, request.size)) {
    throw protocolError(
      what,
      `offset ${hexU64(request.offset)} plus size ${hexU64(request.size)} is above 2^64`,
    );
  }
  return request;
}
