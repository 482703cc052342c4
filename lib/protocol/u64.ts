// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';
import { protocolError, putU32, viewOf } from './wire';

/**
 * An unsigned 64-bit value. What is read from the wire is a number up to 2^53 - 1 and a bigint above;
 * what is written may be either.
 */
export type U64 = number | bigint;

const TWO_32 = 0x1_0000_0000;
/** A value whose upper half is below this is held exactly by a number. */
const SAFE_HIGH = 0x20_0000;
const TWO_64 = 1n << 64n;
/** A range that starts at or below this ends below 2^64 when its size is a number. */
const SAFE_START = TWO_64 - (1n << 53n);

/** Reads a 64-bit value: a number when it is at most 2^53 - 1, a bigint above. */
export function readU64(view: DataView, offset: number): U64 {
  const high = view.getUint32(offset + 4, true);
  return high < SAFE_HIGH ? high * TWO_32 + view.getUint32(offset, true) : view.getBigUint64(offset, true);
}

/**
 * Reads a 64-bit value where one above 2^53 - 1 makes no sense.
 *
 * @param what command and direction, for the error
 * @param field name of the field, for the error
 * @throws VfioUserError `ERR_VFIO_USER_PROTOCOL` when the value is above 2^53 - 1
 */
export function readSafeU64(view: DataView, offset: number, what: string, field: string): number {
  const value = readU64(view, offset);
  if (typeof value === 'bigint')
    throw protocolError(what, `${field} is 0x${value.toString(16)}, which is beyond reason`);
  return value;
}

/**
 * Writes a 64-bit value.
 *
 * @throws RangeError `ERR_OUT_OF_RANGE` when it is not an integer from 0 to 2^64 - 1, or a number above 2^53 - 1
 */
export function writeU64(view: DataView, offset: number, value: U64, name = 'value'): void {
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw outOfRange(`${name} must be an integer from 0 to 2^53 - 1, or a bigint, not ${value}`);
    }
    view.setUint32(offset, value % TWO_32, true);
    view.setUint32(offset + 4, Math.floor(value / TWO_32), true);
    return;
  }
  if (value < 0n || value >= TWO_64) {
    throw outOfRange(`${name} must be from 0 to 2^64 - 1, not ${value}`);
  }
  view.setBigUint64(offset, value, true);
}

/** Writes as {@link writeU64} does, but without a view, since making one takes longer than this. For messages that are frequent. */
export function putU64(bytes: Uint8Array, at: number, value: U64, name = 'value'): void {
  const number = Number(value);
  if (!Number.isSafeInteger(number) || number < 0) {
    writeU64(viewOf(bytes), at, value, name);
    return;
  }
  putU32(bytes, at, number);
  putU32(bytes, at + 4, Math.floor(number / TWO_32));
}

/** Whether two 64-bit values are the same, whichever types they have. */
export function sameU64(a: U64, b: U64): boolean {
  return a === b || (typeof a !== typeof b && BigInt(a) === BigInt(b));
}

/** Whether a range that starts at `start` ends at or below 2^64. */
export function fitsU64(start: U64, size: U64): boolean {
  // An addition of bigints is avoided where a comparison tells.
  if (typeof size === 'number' && start <= SAFE_START) return true;
  return BigInt(start) + BigInt(size) <= TWO_64;
}

/** A 64-bit value for a message: hexadecimal. */
export function hexU64(value: U64): string {
  return `0x${value.toString(16)}`;
}
