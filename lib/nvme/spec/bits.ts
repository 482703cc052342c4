// SPDX-License-Identifier: MIT
import { outOfRange } from '../../errors';

/** A field of a 32-bit word. `get` never fails; `set` checks the range of the value. */
export interface BitField<T> {
  get(word: number): T;
  /** The bits of the field for a value, to be ORed into a word. `name` is for the message. */
  set(value: T, name: string): number;
}

/** An unsigned field of `width` bits whose lowest bit is `shift`. `bias` is added to what is stored. */
function unsigned(shift: number, width: number, bias: number): BitField<number> {
  const limit = 2 ** width - 1;
  return {
    get(word) {
      return (((word >>> shift) & limit) >>> 0) + bias;
    },
    set(value, name) {
      const stored = value - bias;
      if (!Number.isInteger(stored) || stored < 0 || stored > limit) {
        throw outOfRange(`${name} is ${value}; it must be an integer from ${bias} to ${limit + bias}`);
      }
      return (stored << shift) >>> 0;
    },
  };
}

/** An unsigned field of 1 to 32 bits. */
export function bits(shift: number, width: number): BitField<number> {
  return unsigned(shift, width, 0);
}

/** A 0's based count (NVMe base 2.0, 1.5): stored as the count less one. */
export function zeroBased(shift: number, width: number): BitField<number> {
  return unsigned(shift, width, 1);
}

/** A single bit. */
export function flag(shift: number): BitField<boolean> {
  return {
    get: (word) => ((word >>> shift) & 1) === 1,
    set: (value) => (value ? (1 << shift) >>> 0 : 0),
  };
}

/** Values of the fields of a word. */
export type WordFields<F> = { [K in keyof F]: F[K] extends BitField<infer T> ? T : never };

/** Decodes and encodes a 32-bit word. */
export interface WordCodec<V> {
  /** Values of all fields. Reserved bits are dropped. */
  decode(word: number): V;
  /**
   * The word with the given fields set, and 0 in the others.
   * @throws RangeError with code `ERR_OUT_OF_RANGE` when a value does not fit its field
   */
  encode(values: Partial<V>): number;
}

/** Values of a {@link WordCodec}. */
export type WordOf<C> = C extends WordCodec<infer V> ? V : never;

/** A codec for a 32-bit word with the given fields. */
export function wordCodec<F extends Record<string, BitField<unknown>>>(fields: F): WordCodec<WordFields<F>> {
  const entries = Object.entries(fields);
  return {
    decode(word) {
      return Object.fromEntries(entries.map(([name, field]) => [name, field.get(word)])) as WordFields<F>;
    },
    encode(values) {
      const given: Record<string, unknown> = values;
      let word = 0;
      for (const [name, field] of entries) {
        if (given[name] !== undefined) word |= field.set(given[name], name);
      }
      return word >>> 0;
    },
  };
}

/** A 64-bit value as a number. Exact up to 2^53; a greater one is rounded, and stays at or above 2^53. */
export function joinWords(low: number, high: number): number {
  return high * 0x1_0000_0000 + low;
}

/** Upper 32 bits of a non-negative integer below 2^64. The lower ones are `value >>> 0`. */
export function highWord(value: number): number {
  return Math.floor(value / 0x1_0000_0000);
}
