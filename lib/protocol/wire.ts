// SPDX-License-Identifier: MIT
import { outOfRange, VfioUserError } from '../errors';

/** Largest value of a 32-bit field. */
export const U32_MAX = 0xffff_ffff;

/**
 * The error for a message that breaks the protocol.
 *
 * @param what command and direction, such as `REGION_READ reply`; the first word becomes the error's `command`
 * @param problem what is wrong with it
 */
export function protocolError(what: string, problem: string, cause?: unknown): VfioUserError {
  const space = what.indexOf(' ');
  const command = space < 0 ? what : what.slice(0, space);
  return new VfioUserError('ERR_VFIO_USER_PROTOCOL', `${what}: ${problem}`, { command, cause });
}

/** Small payloads are parts of larger buffers: a buffer for each would take V8 a microsecond. */
const SLAB_SIZE = 16 << 10;
const SLAB_PAYLOAD = 256;
let slab = new ArrayBuffer(0);
let slabUsed = 0;

/** Zeroed bytes for a payload, which nobody else uses; their buffer may hold other payloads too. */
export function newPayload(size: number): Uint8Array {
  if (size > SLAB_PAYLOAD) return new Uint8Array(size);
  if (slabUsed + size > slab.byteLength) {
    slab = new ArrayBuffer(SLAB_SIZE);
    slabUsed = 0;
  }
  const payload = new Uint8Array(slab, slabUsed, size);
  // Views of 64-bit numbers over a payload need their alignment.
  slabUsed += (size + 7) & ~7;
  return payload;
}

/** Reads a 32-bit value without a view: faster than making one for a few fields. Bounds are the caller's. */
export function getU32(bytes: Uint8Array, at: number): number {
  const low = (bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16);
  return (low | ((bytes[at + 3] as number) << 24)) >>> 0;
}

/** Writes a 32-bit value without a view. Takes it modulo 2^32; bounds are the caller's. */
export function putU32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

/** A view of exactly the bytes of `bytes`. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A view of a payload, once it is known to have at least `size` bytes. Throws the protocol error otherwise. */
export function viewOfAtLeast(what: string, payload: Uint8Array, size: number): DataView {
  checkLength(what, payload, size);
  return viewOf(payload);
}

/** Throws the protocol error when a payload has fewer than `size` bytes. */
export function checkLength(what: string, payload: Uint8Array, size: number): void {
  if (payload.byteLength >= size) return;
  throw protocolError(what, `${payload.byteLength} bytes, at least ${size} expected`);
}

/** `count` bytes of a payload from `start`, as a view. Throws the protocol error when they are not all there. */
export function dataOf(what: string, payload: Uint8Array, start: number, count: number): Uint8Array {
  if (count > payload.byteLength - start) {
    throw protocolError(what, `${payload.byteLength} bytes, at least ${start + count} expected`);
  }
  return payload.subarray(start, start + count);
}

/** Writes an unsigned 32-bit value. Throws `ERR_OUT_OF_RANGE` when it is none. */
export function writeU32(view: DataView, offset: number, value: number, name: string): void {
  checkU32(value, name);
  view.setUint32(offset, value, true);
}

/** Throws `ERR_OUT_OF_RANGE` when a value is no unsigned 32-bit value. */
export function checkU32(value: number, name: string): void {
  if (Number.isInteger(value) && value >= 0 && value <= U32_MAX) return;
  throw outOfRange(`${name} must be an integer from 0 to ${U32_MAX}, not ${value}`);
}

/**
 * Reads `argsz` of a request: the room that the sender has for the reply. It must at least hold the fixed part
 * (vfio-user, Message sizes).
 */
export function readArgsz(what: string, view: DataView, minimum: number): number {
  const argsz = view.getUint32(0, true);
  if (argsz < minimum) {
    throw protocolError(what, `argsz is ${argsz}, at least ${minimum} expected`);
  }
  return argsz;
}

/** Throws the protocol error when a field of a reply does not repeat what was asked for. */
export function checkEcho(what: string, field: string, got: number, asked: number): void {
  if (got !== asked) {
    throw protocolError(what, `${field} is ${got}, ${asked} was asked for`);
  }
}

/** Throws the protocol error when a count from the wire is above a limit. */
export function checkLimit(what: string, field: string, got: number, limit: number): void {
  if (got > limit) {
    throw protocolError(what, `${field} is ${got}, at most ${limit} expected`);
  }
}

/**
 * Encodes the `size` bytes of a request about a region or an interrupt index: `argsz`, flags, index, and what only replies fill.
 *
 * @param request `argsz` is the room for the reply's payload, in bytes; by default for a payload as long as the request's
 */
export function encodeIndexRequest(
  size: number,
  { index, argsz = size }: Readonly<{ index: number; argsz?: number }>,
): Uint8Array {
  const payload = new Uint8Array(size);
  const view = viewOf(payload);
  writeU32(view, 0, argsz, 'argsz');
  writeU32(view, 8, index, 'index');
  return payload;
}
