// SPDX-License-Identifier: MIT
import { fitsU64, hexU64, putU64, readSafeU64, readU64, sameU64, type U64 } from './u64';
import { checkLimit, dataOf, protocolError, viewOfAtLeast } from './wire';

/** The fixed part of DMA_READ and DMA_WRITE, requests and replies (vfio-user, VFIO_USER_DMA_READ). */
export interface DmaAccess {
  /** IOVA of the first byte. */
  address: U64;
  /** Bytes that are transferred. */
  count: number;
}

/** A {@link DmaAccess} with the bytes behind it, as a view of the payload. */
export interface DmaAccessWithData extends DmaAccess {
  data: Uint8Array;
}

/** Bytes of the field `count`: 8 in the specification, 4 in QEMU 10.1 and 10.2. */
export type DmaCountSize = 4 | 8;

/** A decoded DMA_READ reply. */
export interface DmaReadReply extends DmaAccessWithData {
  /** How the peer wrote the count: once it is 4, pass 4 for all further replies of this peer. */
  countSize: DmaCountSize;
}

const SIZE = 16;

function encodeAccess({ address, count }: Readonly<DmaAccess>): Uint8Array {
  const payload = new Uint8Array(SIZE);
  putU64(payload, 0, address, 'address');
  putU64(payload, 8, count, 'count');
  return payload;
}

function decodeRequest(what: string, payload: Uint8Array, maxDataXferSize: number): DmaAccess {
  const view = viewOfAtLeast(what, payload, SIZE);
  const access: DmaAccess = { address: readU64(view, 0), count: readSafeU64(view, 8, what, 'count') };
  checkLimit(what, 'count', access.count, maxDataXferSize);
  if (!fitsU64(access.address, access.count)) {
    throw protocolError(what, `address ${hexU64(access.address)} plus count ${access.count} is above 2^64`);
  }
  return access;
}

function checkAddress(what: string, view: DataView, asked: Readonly<DmaAccess>): void {
  const address = readU64(view, 0);
  if (!sameU64(address, asked.address)) {
    throw protocolError(what, `address is ${hexU64(address)}, ${hexU64(asked.address)} was asked for`);
  }
}

/** Encodes a DMA_READ request. Throws `ERR_OUT_OF_RANGE` for values that do not fit. */
export function encodeDmaReadRequest(request: Readonly<DmaAccess>): Uint8Array {
  return encodeAccess(request);
}

/**
 * Decodes a DMA_READ request.
 *
 * @param maxDataXferSize largest count that is accepted, in bytes
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeDmaReadRequest(payload: Uint8Array, maxDataXferSize: number): DmaAccess {
  return decodeRequest('DMA_READ request', payload, maxDataXferSize);
}

/** Encodes the fixed part of a DMA_READ reply; `count` bytes of data follow it, no more: libvfio-user reads what it asked for. */
export function encodeDmaReadReply(reply: Readonly<DmaAccess>): Uint8Array {
  return encodeAccess(reply);
}

/**
 * Decodes a DMA_READ reply.
 *
 * QEMU 10.1 and 10.2 write `count` with 4 bytes and the data right behind it, in a payload as long as the specification's.
 * Where the data begins with four zero bytes such a reply cannot be told from a proper one, and is read as a proper one.
 *
 * @param asked the request
 * @param countSize how this peer writes the count; when absent, 4 if the upper half of an 8-byte count would not be 0
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeDmaReadReply(
  payload: Uint8Array,
  asked: Readonly<DmaAccess>,
  countSize?: DmaCountSize,
): DmaReadReply {
  const what = 'DMA_READ reply';
  const view = viewOfAtLeast(what, payload, SIZE);
  checkAddress(what, view, asked);
  const width = countSize ?? (view.getUint32(12, true) === 0 ? 8 : 4);
  const count = width === 4 ? view.getUint32(8, true) : readSafeU64(view, 8, what, 'count');
  checkLimit(what, 'count', count, asked.count);
  return { address: asked.address, count, data: dataOf(what, payload, 8 + width, count), countSize: width };
}

/** Encodes the fixed part of a DMA_WRITE request; `count` bytes of data follow it. */
export function encodeDmaWriteRequest(request: Readonly<DmaAccess>): Uint8Array {
  return encodeAccess(request);
}

/**
 * Decodes a DMA_WRITE request.
 *
 * @param maxDataXferSize largest count that is accepted, in bytes
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`, also when there are more bytes than `count` says
 */
export function decodeDmaWriteRequest(payload: Uint8Array, maxDataXferSize: number): DmaAccessWithData {
  const what = 'DMA_WRITE request';
  const access = decodeRequest(what, payload, maxDataXferSize);
  if (access.count !== payload.byteLength - SIZE) {
    throw protocolError(what, `count is ${access.count}, with ${payload.byteLength - SIZE} bytes of data`);
  }
  return { ...access, data: payload.subarray(SIZE) };
}

/**
 * Encodes a DMA_WRITE reply: 16 bytes. The specification's table gives the count 4 bytes here, libvfio-user waits for 8,
 * and drops the connection when they do not come.
 */
export function encodeDmaWriteReply(reply: Readonly<DmaAccess>): Uint8Array {
  return encodeAccess(reply);
}

/**
 * Decodes a DMA_WRITE reply: 16 bytes from libvfio-user's clients, 12 by the specification's table, none from QEMU 10.1.
 *
 * @param asked the request; without a payload its count is taken as transferred
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeDmaWriteReply(payload: Uint8Array, asked: Readonly<DmaAccess>): DmaAccess {
  if (payload.byteLength === 0) return { ...asked };
  const what = 'DMA_WRITE reply';
  const view = viewOfAtLeast(what, payload, 12);
  checkAddress(what, view, asked);
  const count = payload.byteLength < SIZE ? view.getUint32(8, true) : readSafeU64(view, 8, what, 'count');
  checkLimit(what, 'count', count, asked.count);
  return { address: asked.address, count };
}
