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

/** A view of exactly the bytes of `bytes`. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A view of a payload, once it is known to have at least `size` bytes. Throws the protocol error otherwise. */
export function viewOfAtLeast(what: string, payload: Uint8Array, size: number): DataView {
  if (payload.byteLength < size) {
    throw protocolError(what, `${String(payload.byteLength)} bytes, at least ${String(size)} expected`);
  }
  return viewOf(payload);
}

/** `count` bytes of a payload from `start`, as a view. Throws the protocol error when they are not all there. */
export function dataOf(what: string, payload: Uint8Array, start: number, count: number): Uint8Array {
  if (count > payload.byteLength - start) {
    throw protocolError(
      what,
      `${String(payload.byteLength)} bytes, at least ${String(start + count)} expected`,
    );
  }
  return payload.subarray(start, start + count);
}

/** Writes an unsigned 32-bit value. Throws `ERR_OUT_OF_RANGE` when it is none. */
export function writeU32(view: DataView, offset: number, value: number, name: string): void {
  if (!Number.isInteger(value) || value < 0 || value > U32_MAX) {
    throw outOfRange(`${name} must be an integer from 0 to ${String(U32_MAX)}, not ${String(value)}`);
  }
  view.setUint32(offset, value, true);
}

/**
 * Reads `argsz` of a request: the room that the sender has for the reply. It must at least hold the fixed part
 * (vfio-user, Message sizes).
 */
export function readArgsz(what: string, view: DataView, minimum: number): number {
  const argsz = view.getUint32(0, true);
  if (argsz < minimum) {
    throw protocolError(what, `argsz is ${String(argsz)}, at least ${String(minimum)} expected`);
  }
  return argsz;
}

/** Throws the protocol error when a field of a reply does not repeat what was asked for. */
export function checkEcho(what: string, field: string, got: number, asked: number): void {
  if (got !== asked) {
    throw protocolError(what, `${field} is ${String(got)}, ${String(asked)} was asked for`);
  }
}

/** Throws the protocol error when a count from the wire is above a limit. */
export function checkLimit(what: string, field: string, got: number, limit: number): void {
  if (got > limit) {
    throw protocolError(what, `${field} is ${String(got)}, at most ${String(limit)} expected`);
  }
}
