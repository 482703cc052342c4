// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from '../errors';
import { DmaUnmapFlag } from './constants';
import { fitsU64, hexU64, readSafeU64, readU64, sameU64, writeU64, type U64 } from './u64';
import { dataOf, protocolError, readArgsz, U32_MAX, viewOf, viewOfAtLeast, writeU32 } from './wire';

/** Payload of a DMA_UNMAP request (vfio-user, VFIO_USER_DMA_UNMAP). */
export interface DmaUnmapRequest {
  /** {@link DmaUnmapFlag} bits. */
  flags: number;
  /** IOVA of the first byte; 0 with {@link DmaUnmapFlag}.all. */
  address: U64;
  /** Size in bytes; 0 with {@link DmaUnmapFlag}.all. */
  size: U64;
  /** The dirty bitmap that is wanted; there if and only if {@link DmaUnmapFlag}.getDirtyBitmap is set. */
  bitmap?: DirtyBitmapInfo;
}

/** What a dirty bitmap looks like (libvfio-user, `struct vfio_user_bitmap`). */
export interface DirtyBitmapInfo {
  /** Bytes of memory that one bit stands for. */
  pageSize: number;
  /** Size of the bitmap in bytes. */
  size: number;
}

/** A decoded DMA_UNMAP request. */
export interface DecodedDmaUnmapRequest extends DmaUnmapRequest {
  /** Room that the client has for the reply's payload, in bytes. */
  argsz: number;
}

/** A decoded DMA_UNMAP reply. */
export interface DmaUnmapReply {
  /** Bytes that the whole payload needs; 0 when the reply had no payload. */
  argsz: number;
  /** False when the server cut the reply because it needs more room than it was given. */
  complete: boolean;
  /** The dirty bitmap, as a view of the payload; when it was asked for and is there. */
  bitmap?: Uint8Array;
}

const SIZE = 24;
const BITMAP_INFO_SIZE = 16;

/**
 * Encodes a DMA_UNMAP request: 24 bytes, 40 with a bitmap.
 *
 * @throws TypeError `ERR_INVALID_ARG_VALUE` when `bitmap` and the flag that asks for one contradict each other
 * @throws RangeError `ERR_OUT_OF_RANGE` for values that do not fit
 */
export function encodeDmaUnmapRequest(request: Readonly<DmaUnmapRequest>): Uint8Array {
  const { bitmap } = request;
  const payload = new Uint8Array(SIZE + bitmapInfoSize(request));
  const argsz = bitmap === undefined ? SIZE : SIZE + BITMAP_INFO_SIZE + bitmap.size;
  encodeFixed(payload, argsz, request);
  return payload;
}

/**
 * Encodes the fixed part of a DMA_UNMAP reply, which repeats the request; the bitmap's bytes follow it.
 *
 * @param request the request that is answered
 */
export function encodeDmaUnmapReply(request: Readonly<DmaUnmapRequest>): Uint8Array {
  return encodeDmaUnmapRequest(request);
}

function bitmapInfoSize({ flags, bitmap }: Readonly<DmaUnmapRequest>): number {
  if (((flags & DmaUnmapFlag.getDirtyBitmap) !== 0) !== (bitmap !== undefined)) {
    throw invalidArgument('bitmap must be given if and only if the flag getDirtyBitmap is set');
  }
  return bitmap === undefined ? 0 : BITMAP_INFO_SIZE;
}

function encodeFixed(payload: Uint8Array, argsz: number, request: Readonly<DmaUnmapRequest>): void {
  const view = viewOf(payload);
  writeU32(view, 0, argsz, 'argsz');
  writeU32(view, 4, request.flags, 'flags');
  writeU64(view, 8, request.address, 'address');
  writeU64(view, 16, request.size, 'size');
  if (!fitsU64(request.address, request.size)) {
    throw outOfRange(`address ${hexU64(request.address)} plus size ${hexU64(request.size)} is above 2^64`);
  }
  if (request.bitmap !== undefined) {
    writeU64(view, SIZE, request.bitmap.pageSize, 'bitmap.pageSize');
    writeU64(view, SIZE + 8, request.bitmap.size, 'bitmap.size');
  }
}

/** Decodes a DMA_UNMAP request. Flags that are not known are kept. Throws `ERR_VFIO_USER_PROTOCOL`. */
export function decodeDmaUnmapRequest(payload: Uint8Array): DecodedDmaUnmapRequest {
  const what = 'DMA_UNMAP request';
  const view = viewOfAtLeast(what, payload, SIZE);
  const flags = view.getUint32(4, true);
  const address = readU64(view, 8);
  const size = readU64(view, 16);
  if (!fitsU64(address, size)) {
    throw protocolError(what, `address ${hexU64(address)} plus size ${hexU64(size)} is above 2^64`);
  }
  if ((flags & DmaUnmapFlag.all) !== 0 && (address !== 0 || size !== 0)) {
    throw protocolError(
      what,
      `address ${hexU64(address)} and size ${hexU64(size)} must be 0 when all is unmapped`,
    );
  }
  if ((flags & DmaUnmapFlag.getDirtyBitmap) === 0) {
    return { argsz: readArgsz(what, view, SIZE), flags, address, size };
  }
  viewOfAtLeast(what, payload, SIZE + BITMAP_INFO_SIZE);
  const bitmap = readBitmapInfo(what, view);
  const argsz = readArgsz(what, view, SIZE + BITMAP_INFO_SIZE + bitmap.size);
  return { argsz, flags, address, size, bitmap };
}

function readBitmapInfo(what: string, view: DataView): DirtyBitmapInfo {
  const pageSize = readSafeU64(view, SIZE, what, 'bitmap page size');
  const size = readSafeU64(view, SIZE + 8, what, 'bitmap size');
  if (size > U32_MAX) throw protocolError(what, `bitmap size is ${size}, which is beyond reason`);
  return { pageSize, size };
}

/**
 * Decodes a DMA_UNMAP reply. A reply without payload is accepted: libvfio-user sends one when the device does no DMA.
 *
 * @param asked the request
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL`
 */
export function decodeDmaUnmapReply(payload: Uint8Array, asked: Readonly<DmaUnmapRequest>): DmaUnmapReply {
  if (payload.byteLength === 0) return { argsz: 0, complete: asked.bitmap === undefined };
  const what = 'DMA_UNMAP reply';
  const view = viewOfAtLeast(what, payload, SIZE);
  const argsz = view.getUint32(0, true);
  const address = readU64(view, 8);
  const size = readU64(view, 16);
  // With "all" the server may say how much it unmapped, as the kernel does.
  if (
    (asked.flags & DmaUnmapFlag.all) === 0 &&
    !(sameU64(address, asked.address) && sameU64(size, asked.size))
  ) {
    throw protocolError(
      what,
      `address ${hexU64(address)} and size ${hexU64(size)}, ${hexU64(asked.address)} and ${hexU64(asked.size)} were asked for`,
    );
  }
  if (asked.bitmap === undefined) return { argsz, complete: true };
  if (argsz > payload.byteLength) return { argsz, complete: false };
  viewOfAtLeast(what, payload, SIZE + BITMAP_INFO_SIZE);
  const info = readBitmapInfo(what, view);
  if (info.pageSize !== asked.bitmap.pageSize || info.size !== asked.bitmap.size) {
    throw protocolError(what, `a bitmap of ${info.size} bytes, ${asked.bitmap.size} were asked for`);
  }
  return { argsz, complete: true, bitmap: dataOf(what, payload, SIZE + BITMAP_INFO_SIZE, info.size) };
}
