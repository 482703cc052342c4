// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  decodeRegionReadRequest,
  decodeRegionWriteReply,
  decodeRegionWriteRequest,
  encodeRegionReadReply,
  encodeRegionReadRequest,
  encodeRegionWriteReply,
  encodeRegionWriteRequest,
} from '../../lib/protocol';
import { anySafe, anyU32, expectProtocolError, expectRobust, hex, plain, readReply, toHex } from './support';

// vfio-user, VFIO_USER_REGION_READ and _WRITE: offset 8, region 4, count 4, data.
const FIXED = '1400000001000000 00000000 04000000';
const ACCESS = { offset: 0x1_0000_0014, region: 0, count: 4 };
const DATA = hex('01004600');

test.each([encodeRegionReadRequest, encodeRegionReadReply, encodeRegionWriteRequest, encodeRegionWriteReply])(
  'golden bytes of %p',
  (encode) => {
    expect(toHex(encode(ACCESS))).toBe(plain(FIXED));
    expect(() => encode({ ...ACCESS, offset: -1 })).toThrow(RangeError);
    expect(() => encode({ ...ACCESS, region: 2 ** 32 })).toThrow(RangeError);
    expect(() => encode({ ...ACCESS, count: 1.5 })).toThrow(RangeError);
  },
);

test('golden bytes decoded', () => {
  expect(decodeRegionReadRequest(hex(FIXED), 4)).toEqual(ACCESS);
  expect(readReply(hex(`${FIXED} 01004600`), ACCESS)).toEqual({ ...ACCESS, data: DATA });
  expect(decodeRegionWriteRequest(hex(`${FIXED} 01004600`), 4)).toEqual({ ...ACCESS, data: DATA });
  expect(decodeRegionWriteReply(hex(FIXED), ACCESS)).toEqual(ACCESS);
});

test('data is a view, not a copy', () => {
  const payload = hex(`${FIXED} 01004600`);
  expect(readReply(payload, ACCESS).data.buffer).toBe(payload.buffer);
  expect(decodeRegionWriteRequest(payload, 4).data.buffer).toBe(payload.buffer);
});

test('a reply may have transferred less, and nothing for nothing', () => {
  expect(readReply(hex(`${FIXED} 01004600`), { ...ACCESS, count: 8 })).toEqual({
    ...ACCESS,
    data: DATA,
  });
  expect(decodeRegionWriteReply(hex(FIXED), { ...ACCESS, count: 8 }).count).toBe(4);
  const none = { ...ACCESS, count: 0 };
  expect(readReply(new Uint8Array(0), none)).toEqual({ ...none, data: new Uint8Array(0) });
  expect(decodeRegionWriteReply(new Uint8Array(0), none)).toEqual(none);
});

test('requests that are wrong are refused', () => {
  const read = (text: string) => () => decodeRegionReadRequest(hex(text), 4);
  const write = (text: string) => () => decodeRegionWriteRequest(hex(text), 4);
  expectProtocolError(read('1400'), 'REGION_READ', 'REGION_READ request: 2 bytes, at least 16 expected');
  expectProtocolError(read('0000000000000000 00000000 05000000'), 'REGION_READ', 'count is 5, at most 4');
  expectProtocolError(
    read('0000000000002000 00000000 04000000'),
    'REGION_READ',
    'offset is 0x20000000000000',
  );
  expectProtocolError(read('ffffffffffff1f00 00000000 01000000'), 'REGION_READ', 'offset plus count');
  expectProtocolError(write('1400'), 'REGION_WRITE', 'at least 16 expected');
  expectProtocolError(
    write('0000000000000000 00000000 05000000 0102030405'),
    'REGION_WRITE',
    'count is 5, at most 4',
  );
  expectProtocolError(write('0000000000000000 00000000 04000000 010203'), 'REGION_WRITE', 'count is 4, 3');
  expectProtocolError(
    write('0000000000000000 00000000 04000000 0102030405'),
    'REGION_WRITE',
    'count is 4, 5',
  );
});

test('replies that are wrong are refused', () => {
  const read = (text: string) => () => readReply(hex(text), ACCESS);
  const write = (text: string) => () => decodeRegionWriteReply(hex(text), ACCESS);
  expectProtocolError(
    read('140000000100000000000000'),
    'REGION_READ',
    'REGION_READ reply: 12 bytes, at least 16 expected',
  );
  expectProtocolError(read(''), 'REGION_READ', '0 bytes');
  expectProtocolError(read(`${FIXED} 010046`), 'REGION_READ', '19 bytes, at least 20');
  expectProtocolError(read('1500000001000000 00000000 04000000 01004600'), 'REGION_READ', 'offset is');
  expectProtocolError(read('1400000001000000 01000000 04000000 01004600'), 'REGION_READ', 'region is 1');
  expectProtocolError(read('1400000001000000 00000000 05000000 0100460000'), 'REGION_READ', 'count is 5');
  expectProtocolError(write(''), 'REGION_WRITE', '0 bytes');
  expectProtocolError(write('1400000001000000 00000000 05000000'), 'REGION_WRITE', 'count is 5');
  expectProtocolError(write('1400000001000000 07000000 04000000'), 'REGION_WRITE', 'region is 7');
});

test('every access comes back', () => {
  fc.assert(
    fc.property(anySafe, anyU32, fc.uint8Array({ maxLength: 64 }), (offset, region, data) => {
      const access = { offset, region, count: data.length };
      expect(decodeRegionReadRequest(encodeRegionReadRequest(access), 64)).toEqual(access);
      const payload = new Uint8Array([...encodeRegionWriteRequest(access), ...data]);
      expect(decodeRegionWriteRequest(payload, 64)).toEqual({ ...access, data });
      expect(readReply(payload, access)).toEqual({ ...access, data });
      expect(decodeRegionWriteReply(encodeRegionWriteReply(access), access)).toEqual(access);
    }),
  );
});

test('any bytes are survived', () => {
  const asked = { offset: 0, region: 0, count: 16 };
  expectRobust((payload) => decodeRegionReadRequest(payload, 64));
  expectRobust((payload) => readReply(payload, asked));
  expectRobust((payload) => readReply(payload, { ...asked, count: 0 }));
  expectRobust((payload) => decodeRegionWriteRequest(payload, 64));
  expectRobust((payload) => decodeRegionWriteReply(payload, asked));
});
