// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { decodeDmaMapRequest, encodeDmaMapRequest, fitsU64 } from '../../lib/protocol';
import { anyU32, anyU64, expectProtocolError, expectRobust, hex, plain, toHex } from './support';

// vfio-user, VFIO_USER_DMA_MAP: argsz 4, flags 4, offset 8, address 8, size 8.
const GOLDEN = '20000000 03000000 0010000000000000 0000000001000000 0000200000000000';
const REQUEST = { flags: 3, offset: 0x1000, address: 0x1_0000_0000, size: 0x20_0000 };

test('golden request', () => {
  expect(toHex(encodeDmaMapRequest(REQUEST))).toBe(plain(GOLDEN));
  expect(decodeDmaMapRequest(hex(GOLDEN))).toEqual(REQUEST);
  expect(decodeDmaMapRequest(hex(`${GOLDEN} ffff`))).toEqual(REQUEST);
});

test('the last page of the address space can be mapped', () => {
  const text = '20000000 01000000 0000000000000000 00f0ffffffffffff 0010000000000000';
  const request = { flags: 1, offset: 0, address: 0xffff_ffff_ffff_f000n, size: 4096 };
  expect(toHex(encodeDmaMapRequest(request))).toBe(plain(text));
  expect(decodeDmaMapRequest(hex(text))).toEqual(request);
});

test.each([
  ['20000000', '4 bytes, at least 32 expected'],
  ['1f000000 03000000 0000000000000000 0000000001000000 0000200000000000', 'argsz is 31, at least 32'],
  ['20000000 03000000 0000000000000000 0000000001000000 0000000000000000', 'size is 0'],
  [
    '20000000 03000000 0000000000000000 00f0ffffffffffff 0110000000000000',
    'address 0xfffffffffffff000 plus size 0x1001',
  ],
  [
    '20000000 03000000 00f0ffffffffffff 0000000000000000 0110000000000000',
    'offset 0xfffffffffffff000 plus size 0x1001',
  ],
])('request %s is refused', (text, message) => {
  expectProtocolError(() => decodeDmaMapRequest(hex(text)), 'DMA_MAP', message);
});

test.each([
  { ...REQUEST, size: 0 },
  { ...REQUEST, size: 0n },
  { ...REQUEST, flags: -1 },
  { ...REQUEST, flags: 2 ** 32 },
  { ...REQUEST, address: -1 },
  { ...REQUEST, address: 0xffff_ffff_ffff_ffffn },
  { ...REQUEST, offset: 0xffff_ffff_ffff_ffffn },
])('%o cannot be encoded', (request) => {
  expect(() => encodeDmaMapRequest(request)).toThrow(RangeError);
});

test('every request comes back', () => {
  fc.assert(
    fc.property(fc.record({ flags: anyU32, offset: anyU64, address: anyU64, size: anyU64 }), (request) => {
      fc.pre(
        request.size !== 0 && fitsU64(request.address, request.size) && fitsU64(request.offset, request.size),
      );
      expect(decodeDmaMapRequest(encodeDmaMapRequest(request))).toEqual(request);
    }),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeDmaMapRequest);
});
