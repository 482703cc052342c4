// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  DmaUnmapFlag,
  decodeDmaUnmapReply,
  decodeDmaUnmapRequest,
  encodeDmaUnmapReply,
  encodeDmaUnmapRequest,
  fitsU64,
} from '../../lib/protocol';
import { anyU64, expectProtocolError, expectRobust, hex, plain, toHex } from './support';

// vfio-user, VFIO_USER_DMA_UNMAP: argsz 4, flags 4, address 8, size 8.
const GOLDEN = '18000000 00000000 0000000001000000 0000200000000000';
const REQUEST = { flags: 0, address: 0x1_0000_0000, size: 0x20_0000 };
// libvfio-user, struct vfio_user_bitmap behind it: pgsize 8, size 8.
const WITH_BITMAP = '30000000 01000000 0000000001000000 0000200000000000 0010000000000000 0800000000000000';
const BITMAP_REQUEST = { ...REQUEST, flags: 1, bitmap: { pageSize: 4096, size: 8 } };

test('golden request, which the reply repeats', () => {
  expect(toHex(encodeDmaUnmapRequest(REQUEST))).toBe(plain(GOLDEN));
  expect(toHex(encodeDmaUnmapReply(REQUEST))).toBe(plain(GOLDEN));
  expect(decodeDmaUnmapRequest(hex(GOLDEN))).toEqual({ ...REQUEST, argsz: 24 });
  expect(decodeDmaUnmapReply(hex(GOLDEN), REQUEST)).toEqual({ argsz: 24, complete: true });
});

test('golden request with a dirty bitmap', () => {
  expect(toHex(encodeDmaUnmapRequest(BITMAP_REQUEST))).toBe(plain(WITH_BITMAP));
  expect(decodeDmaUnmapRequest(hex(WITH_BITMAP))).toEqual({ ...BITMAP_REQUEST, argsz: 48 });
  const reply = decodeDmaUnmapReply(hex(`${WITH_BITMAP} 0102030405060708`), BITMAP_REQUEST);
  expect(reply).toEqual({ argsz: 48, complete: true, bitmap: hex('0102030405060708') });
});

test('unmap all', () => {
  const text = '18000000 02000000 0000000000000000 0000000000000000';
  const request = { flags: DmaUnmapFlag.all, address: 0, size: 0 };
  expect(toHex(encodeDmaUnmapRequest(request))).toBe(plain(text));
  expect(decodeDmaUnmapRequest(hex(text))).toEqual({ ...request, argsz: 24 });
  expect(
    decodeDmaUnmapReply(hex('18000000 02000000 0000000000000000 0000200000000000'), request).complete,
  ).toBe(true);
});

test('a reply without payload is accepted', () => {
  expect(decodeDmaUnmapReply(new Uint8Array(0), REQUEST)).toEqual({ argsz: 0, complete: true });
  expect(decodeDmaUnmapReply(new Uint8Array(0), BITMAP_REQUEST)).toEqual({ argsz: 0, complete: false });
});

test('a cut reply is not complete', () => {
  expect(decodeDmaUnmapReply(hex(WITH_BITMAP), BITMAP_REQUEST)).toEqual({ argsz: 48, complete: false });
});

test.each([
  ['18000000 00000000', '8 bytes, at least 24'],
  ['17000000 00000000 0000000001000000 0000200000000000', 'argsz is 23'],
  ['18000000 00000000 00f0ffffffffffff 0110000000000000', 'above 2^64'],
  ['18000000 02000000 0010000000000000 0000000000000000', 'must be 0'],
  ['18000000 02000000 0000000000000000 0010000000000000', 'must be 0'],
  ['18000000 01000000 0000000001000000 0000200000000000', '24 bytes, at least 40'],
  [
    '2f000000 01000000 0000000001000000 0000200000000000 0010000000000000 0800000000000000',
    'argsz is 47, at least 48',
  ],
  ['30000000 01000000 0000000001000000 0000200000000000 0010000000000000 0000000001000000', 'beyond reason'],
  [
    '30000000 01000000 0000000001000000 0000200000000000 00000000000000ff 0800000000000000',
    'bitmap page size',
  ],
])('request %s is refused', (text, message) => {
  expectProtocolError(() => decodeDmaUnmapRequest(hex(text)), 'DMA_UNMAP', message);
});

test.each([
  ['00', REQUEST, '1 bytes, at least 24'],
  ['18000000 00000000 0010000001000000 0000200000000000', REQUEST, 'were asked for'],
  ['18000000 00000000 0000000001000000 0010000000000000', REQUEST, 'were asked for'],
  ['18000000 01000000 0000000001000000 0000200000000000', BITMAP_REQUEST, '24 bytes, at least 40'],
  [
    '28000000 01000000 0000000001000000 0000200000000000 0010000000000000 0900000000000000',
    BITMAP_REQUEST,
    'a bitmap of 9 bytes, 8',
  ],
  [
    '28000000 01000000 0000000001000000 0000200000000000 0010000000000000 0800000000000000',
    BITMAP_REQUEST,
    '40 bytes, at least 48',
  ],
])('reply %s is refused', (text, asked, message) => {
  expectProtocolError(() => decodeDmaUnmapReply(hex(text), asked), 'DMA_UNMAP', message);
});

test('contradictions cannot be encoded', () => {
  expect(() => encodeDmaUnmapRequest({ ...REQUEST, flags: 1 })).toThrow(TypeError);
  expect(() => encodeDmaUnmapRequest({ ...BITMAP_REQUEST, flags: 0 })).toThrow(TypeError);
  expect(() =>
    encodeDmaUnmapRequest({ ...BITMAP_REQUEST, bitmap: { pageSize: 4096, size: 2 ** 32 } }),
  ).toThrow(RangeError);
  expect(() => encodeDmaUnmapRequest({ ...REQUEST, address: 0xffff_ffff_ffff_ffffn })).toThrow(RangeError);
});

test('every request comes back', () => {
  fc.assert(
    fc.property(fc.record({ flags: fc.constant(0), address: anyU64, size: anyU64 }), (request) => {
      fc.pre(fitsU64(request.address, request.size));
      expect(decodeDmaUnmapRequest(encodeDmaUnmapRequest(request))).toEqual({ ...request, argsz: 24 });
      expect(decodeDmaUnmapReply(encodeDmaUnmapReply(request), request).complete).toBe(true);
    }),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeDmaUnmapRequest);
  expectRobust((payload) => decodeDmaUnmapReply(payload, BITMAP_REQUEST));
  expectRobust((payload) => decodeDmaUnmapReply(payload, { ...BITMAP_REQUEST, flags: 3 }));
});
