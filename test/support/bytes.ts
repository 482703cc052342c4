// SPDX-License-Identifier: MIT

/** Bytes from hexadecimal text; blanks and line breaks are for the reader. */
export function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replace(/\s+/g, ''), 'hex'));
}

export function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/** Hexadecimal text as {@link toHex} writes it, from one with blanks and line breaks. */
export const bare = (text: string): string => toHex(hex(text));

/** Little-endian bytes of 16-, 32- and 64-bit values, as `u32(1, 2)`. */
export const u16 = (...values: number[]): Uint8Array => new Uint8Array(Uint16Array.from(values).buffer);
export const u32 = (...values: number[]): Uint8Array => new Uint8Array(Uint32Array.from(values).buffer);
export const u64 = (...values: (number | bigint)[]): Uint8Array =>
  new Uint8Array(BigUint64Array.from(values.map(BigInt)).buffer);
export const join = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

/** A message as `struct vfio_user_header` has it: u16 id, u16 command, u32 size, u32 flags, u32 errno. */
export function message(
  command: number,
  payload: Uint8Array = new Uint8Array(0),
  { id = 1, flags = 0, errno = 0 } = {},
): Uint8Array {
  return join(u16(id, command), u32(16 + payload.length, flags, errno), payload);
}
