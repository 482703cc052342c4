// SPDX-License-Identifier: MIT
import { outOfRange } from '../errors';

/** The bytes of a register's value, the lowest first. Throws `ERR_OUT_OF_RANGE` when it has no room for it. */
export function bytesOfNumber(value: number, width: 1 | 2 | 4): Uint8Array {
  if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * width)) {
    throw outOfRange(`${String(value)} does not fit into a register of ${String(width)} bytes`);
  }
  const data = new Uint8Array(width);
  for (let index = 0; index < width; index++) data[index] = Math.floor(value / 2 ** (8 * index)) & 0xff;
  return data;
}

/** The same of a register of 8 bytes. */
export function bytesOfBigInt(value: bigint): Uint8Array {
  if (value < 0n || value >= 1n << 64n)
    throw outOfRange(`${String(value)} does not fit into a register of 8 bytes`);
  const data = new Uint8Array(8);
  new DataView(data.buffer).setBigUint64(0, value, true);
  return data;
}

/** The value of a register of 1, 2 or 4 bytes, of which `data` has all. */
export function numberOfBytes(data: Uint8Array, start: number, width: number): number {
  let value = 0;
  for (let index = width - 1; index >= 0; index--) value = value * 256 + (data[start + index] as number);
  return value;
}

/** The value of a register of 8 bytes, of which `data` has all. */
export function bigIntOfBytes(data: Uint8Array): bigint {
  return new DataView(data.buffer, data.byteOffset, data.byteLength).getBigUint64(0, true);
}
