// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  decodeRegionWriteMultiRequest,
  encodeRegionWriteMultiReply,
  encodeRegionWriteMultiRequest,
} from '../../lib/protocol';
import { anySafe, anyU32, expectProtocolError, expectRobust, hex, plain, toHex } from './support';

const COMMAND = 'REGION_WRITE_MULTI';

// vfio-user, VFIO_USER_REGION_WRITE_MULTI: wr_cnt 8, then offset 8, region 4, count 4, data 8 each.
const GOLDEN =
  '0200000000000000 1400000000000000 00000000 04000000 0100460000000000 0010000000000000 02000000 08000000 0102030405060708';
const WRITES = [
  { offset: 0x14, region: 0, data: hex('01004600') },
  { offset: 0x1000, region: 2, data: hex('0102030405060708') },
];

test('golden request', () => {
  expect(toHex(encodeRegionWriteMultiRequest(WRITES))).toBe(plain(GOLDEN));
  expect(decodeRegionWriteMultiRequest(hex(GOLDEN))).toEqual(WRITES);
});

test('golden reply', () => {
  expect(toHex(encodeRegionWriteMultiReply(2))).toBe('0200000000000000');
});

test.each([
  ['02000000', '4 bytes, at least 8'],
  ['0300000000000000' + GOLDEN.slice(16), '3 writes do not fit into 56 bytes'],
  ['ffffffffffff1f00', 'do not fit into 8 bytes'],
  ['ffffffffffffffff', 'number of writes is 0xffffffffffffffff'],
  ['0100000000000000 1400000000000000 00000000 09000000 0100460000000000', 'count of write 0 is 9'],
  ['0100000000000000 0000000000002000 00000000 04000000 0100460000000000', 'offset of write 0'],
  ['0100000000000000 ffffffffffff1f00 00000000 04000000 0100460000000000', 'offset of write 0'],
])('request %s is refused', (text, message) => {
  expectProtocolError(() => decodeRegionWriteMultiRequest(hex(text)), COMMAND, message);
});

test('writes of more than 8 bytes cannot be encoded', () => {
  expect(() => encodeRegionWriteMultiRequest([{ offset: 0, region: 0, data: new Uint8Array(9) }])).toThrow(
    RangeError,
  );
});

test('every request comes back', () => {
  const write = fc.record({ offset: anySafe, region: anyU32, data: fc.uint8Array({ maxLength: 8 }) });
  fc.assert(
    fc.property(fc.array(write, { maxLength: 10 }), (writes) => {
      expect(decodeRegionWriteMultiRequest(encodeRegionWriteMultiRequest(writes))).toEqual(writes);
    }),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeRegionWriteMultiRequest);
});
