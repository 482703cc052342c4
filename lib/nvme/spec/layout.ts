// SPDX-License-Identifier: MIT
import { VfioUserError, outOfRange } from '../../errors';

/** A field of a data structure. The name of its property is for messages. */
export interface Field<T> {
  get(view: DataView, name: string): T;
  set(view: DataView, value: T, name: string): void;
}

/**
 * A data structure as a table of fields, by the name of the decoded property: the mnemonic of the specification in lower case,
 * which is nvme-cli's JSON key. One table serves the driver, which decodes, and the emulated controller, which encodes.
 */
export type Layout = Record<string, Field<unknown>>;

/** What a table of fields decodes to. */
export type Decoded<L> = { [K in keyof L]: L[K] extends Field<infer T> ? T : never };

/** @throws RangeError when the value is not an integer from 0 to `limit` */
function checkRange(name: string, value: number, limit: number): void {
  if (!Number.isInteger(value) || value < 0 || value > limit) {
    throw outOfRange(`${name} is ${value}; it must be an integer from 0 to ${limit}`);
  }
}

/** An unsigned integer of 1, 2, 3 or 4 bytes. */
function unsigned(offset: number, size: 1 | 2 | 3 | 4): Field<number> {
  const limit = 2 ** (size * 8) - 1;
  return {
    get(view) {
      let value = 0;
      for (let i = size - 1; i >= 0; i--) value = value * 256 + view.getUint8(offset + i);
      return value;
    },
    set(view, value, name) {
      checkRange(name, value, limit);
      for (let i = 0; i < size; i++) view.setUint8(offset + i, (value >>> (8 * i)) & 0xff);
    },
  };
}

/** An unsigned byte. */
export const u8 = (offset: number): Field<number> => unsigned(offset, 1);
/** An unsigned 16-bit integer. */
export const u16 = (offset: number): Field<number> => unsigned(offset, 2);
/** An unsigned 24-bit integer. */
export const u24 = (offset: number): Field<number> => unsigned(offset, 3);
/** An unsigned 32-bit integer. */
export const u32 = (offset: number): Field<number> => unsigned(offset, 4);

/** A range of bits of the 16-bit integer at `offset`. */
export function bits16(offset: number, shift: number, width: number): Field<number> {
  const mask = (1 << width) - 1;
  return {
    get: (view) => (view.getUint16(offset, true) >>> shift) & mask,
    set(view, value, name) {
      checkRange(name, value, mask);
      view.setUint16(offset, (view.getUint16(offset, true) & ~(mask << shift)) | (value << shift), true);
    },
  };
}

/**
 * An unsigned 64-bit integer of which this package needs the exact value as a number.
 * Decoding throws `ERR_VFIO_USER_UNSUPPORTED` above 2^53 - 1.
 */
export function safeU64(offset: number): Field<number> {
  return {
    get(view, name) {
      const value = view.getBigUint64(offset, true);
      if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
        throw new VfioUserError(
          'ERR_VFIO_USER_UNSUPPORTED',
          `The controller reports ${name} = ${value.toString()}; values above 2^53 - 1 are not supported`,
        );
      }
      return Number(value);
    },
    set(view, value, name) {
      checkRange(name, value, Number.MAX_SAFE_INTEGER);
      view.setBigUint64(offset, BigInt(value), true);
    },
  };
}

/** An unsigned integer of 8 or 16 bytes, as a bigint. */
function bigUnsigned(offset: number, size: 8 | 16): Field<bigint> {
  return {
    get(view) {
      const low = view.getBigUint64(offset, true);
      return size === 8 ? low : (view.getBigUint64(offset + 8, true) << 64n) | low;
    },
    set(view, value, name) {
      if (value < 0n || value >= 1n << BigInt(size * 8)) {
        throw outOfRange(`${name} is ${value.toString()}; it must fit ${size} bytes`);
      }
      view.setBigUint64(offset, BigInt.asUintN(64, value), true);
      if (size === 16) view.setBigUint64(offset + 8, value >> 64n, true);
    },
  };
}

/** An unsigned 64-bit integer, as a bigint. */
export const u64 = (offset: number): Field<bigint> => bigUnsigned(offset, 8);
/** An unsigned 128-bit integer, as a bigint. */
export const u128 = (offset: number): Field<bigint> => bigUnsigned(offset, 16);

/**
 * Text in a field of fixed size. Decoding ends at the first NUL, trims spaces and replaces what is not printable
 * ASCII with `?`, because the text comes from the peer and goes to terminals. Encoding pads with `pad`.
 */
export function ascii(offset: number, length: number, pad: 0 | 0x20 = 0x20): Field<string> {
  return {
    get(view) {
      let text = '';
      for (let i = 0; i < length; i++) {
        const code = view.getUint8(offset + i);
        if (code === 0) break;
        text += code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : '?';
      }
      return text.trim();
    },
    set(view, value, name) {
      if (value.length > length || !/^[\x20-\x7e]*$/.test(value)) {
        throw outOfRange(`${name} must be at most ${length} printable ASCII characters`);
      }
      for (let i = 0; i < length; i++)
        view.setUint8(offset + i, i < value.length ? value.charCodeAt(i) : pad);
    },
  };
}

/** Bytes shown as lower-case hexadecimal in the order of memory, as identifiers are. */
export function hex(offset: number, length: number): Field<string> {
  return {
    get(view) {
      return bytesToHex(new Uint8Array(view.buffer, view.byteOffset + offset, length));
    },
    set(view, value, name) {
      new Uint8Array(view.buffer, view.byteOffset + offset, length).set(hexToBytes(value, length, name));
    },
  };
}

/** A list of `count` unsigned 16-bit integers. Encoding fills up with zeros. */
export function u16List(offset: number, count: number): Field<readonly number[]> {
  const fields = Array.from({ length: count }, (_, i) => u16(offset + 2 * i));
  return {
    get: (view, name) => fields.map((field) => field.get(view, name)),
    set(view, values, name) {
      checkRange(`length of ${name}`, values.length, count);
      fields.forEach((field, i) => {
        field.set(view, values[i] ?? 0, name);
      });
    },
  };
}

/** Lower-case hexadecimal of bytes. */
export function bytesToHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** @throws RangeError when `text` is not exactly `length` bytes in hexadecimal */
export function hexToBytes(text: string, length: number, name: string): Uint8Array {
  if (text.length !== length * 2 || !/^[0-9a-f]*$/i.test(text)) {
    throw outOfRange(`${name} must be ${length} bytes in hexadecimal, got "${text}"`);
  }
  return Uint8Array.from({ length }, (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

/** @throws VfioUserError `ERR_VFIO_USER_NVME_CONTROLLER` when fewer than `size` bytes are at hand */
export function structView(bytes: Uint8Array, size: number, name: string): DataView {
  if (bytes.byteLength < size) {
    throw new VfioUserError(
      'ERR_VFIO_USER_NVME_CONTROLLER',
      `${name} is ${size} bytes, but only ${bytes.byteLength} were received`,
    );
  }
  return new DataView(bytes.buffer, bytes.byteOffset, size);
}

/** Values of all fields. */
export function decodeLayout<L extends Layout>(layout: L, view: DataView): Decoded<L> {
  return Object.fromEntries(
    Object.entries(layout).map(([name, field]) => [name, field.get(view, name)]),
  ) as Decoded<L>;
}

/** Stores the given values; fields that are not given are left alone. */
export function encodeLayout<L extends Layout>(layout: L, view: DataView, values: Partial<Decoded<L>>): void {
  const given: Record<string, unknown> = values;
  for (const [name, field] of Object.entries(layout)) {
    if (given[name] !== undefined) field.set(view, given[name], name);
  }
}
