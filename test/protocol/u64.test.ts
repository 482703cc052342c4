// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { fitsU64, readSafeU64, readU64, sameU64, writeU64 } from '../../lib/protocol';
import { putU64, type U64 } from '../../lib/protocol/u64';
import { anyU64, expectProtocolError, hex, toHex } from './support';

const view = new DataView(new ArrayBuffer(16));
const bytes = new Uint8Array(view.buffer);

/** Both ways of writing; the second one without a view. */
const writers: [string, (at: number, value: U64, name?: string) => void][] = [
  [
    'writeU64',
    (at, value, name) => {
      writeU64(view, at, value, name);
    },
  ],
  [
    'putU64',
    (at, value, name) => {
      putU64(bytes, at, value, name);
    },
  ],
];

describe.each(writers)('%s', (_, write) => {
  test.each([
    [0, '0000000000000000'],
    [1, '0100000000000000'],
    [0x1_2345_6789, '8967452301000000'],
    [Number.MAX_SAFE_INTEGER, 'ffffffffffff1f00'],
    [0x20_0000_0000_0000n, '0000000000002000'],
    [0xffff_ffff_ffff_ffffn, 'ffffffffffffffff'],
  ])('%s is little endian on the wire', (value, text) => {
    write(4, value);
    expect(toHex(bytes.subarray(4, 12))).toBe(text);
    expect(readU64(view, 4)).toBe(value);
  });

  test('a small bigint is read back as a number', () => {
    write(0, 5n);
    expect(readU64(view, 0)).toBe(5);
  });

  test.each([-1, 1.5, NaN, Infinity, 2 ** 53, -1n, 1n << 64n])('%s is refused', (value) => {
    expect(() => {
      write(0, value, 'address');
    }).toThrow(
      expect.objectContaining({
        code: 'ERR_OUT_OF_RANGE',
        message: expect.stringContaining('address') as string,
      }) as Error,
    );
  });

  test('every value comes back', () => {
    fc.assert(
      fc.property(anyU64, (value) => {
        write(0, value);
        expect(readU64(view, 0)).toBe(value);
      }),
    );
  });
});

test('readSafeU64 refuses what a number cannot hold', () => {
  bytes.set(hex('ffffffffffff1f00 0000000000002000'));
  expect(readSafeU64(view, 0, 'REGION_READ reply', 'offset')).toBe(Number.MAX_SAFE_INTEGER);
  expectProtocolError(
    () => readSafeU64(view, 8, 'REGION_READ reply', 'offset'),
    'REGION_READ',
    /offset is 0x20000000000000/,
  );
});

test('sameU64 compares across types', () => {
  expect(sameU64(5, 5n)).toBe(true);
  expect(sameU64(5n, 6)).toBe(false);
  expect(sameU64(5n, 5n)).toBe(true);
  expect(sameU64(1, 2)).toBe(false);
});

test('fitsU64 knows the end of the address space', () => {
  expect(fitsU64(0xffff_ffff_ffff_f000n, 0x1000)).toBe(true);
  expect(fitsU64(0xffff_ffff_ffff_f000n, 0x1001)).toBe(false);
  expect(fitsU64(Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)).toBe(true);
  expect(fitsU64(1, 0xffff_ffff_ffff_ffffn)).toBe(true);
  expect(fitsU64(2, 0xffff_ffff_ffff_ffffn)).toBe(false);
});
