// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  decodeDmaReadReply,
  decodeDmaReadRequest,
  decodeDmaWriteReply,
  decodeDmaWriteRequest,
  encodeDmaReadReply,
  encodeDmaReadRequest,
  encodeDmaWriteReply,
  encodeDmaWriteRequest,
  fitsU64,
} from '../../lib/protocol';
import { anyU64, expectProtocolError, expectRobust, hex, plain, toHex } from './support';

// vfio-user, VFIO_USER_DMA_READ and _WRITE; libvfio-user, struct vfio_user_dma_region_access: addr 8, count 8, data.
const FIXED = '0010000001000000 0600000000000000';
const ACCESS = { address: 0x1_0000_1000, count: 6 };
const DATA = hex('a1a2a3a4a5a6');

test.each([encodeDmaReadRequest, encodeDmaReadReply, encodeDmaWriteRequest, encodeDmaWriteReply])(
  'golden bytes of %p',
  (encode) => {
    expect(toHex(encode(ACCESS))).toBe(plain(FIXED));
    expect(() => encode({ ...ACCESS, address: -1 })).toThrow(RangeError);
    expect(() => encode({ ...ACCESS, count: -1 })).toThrow(RangeError);
  },
);

test('golden bytes decoded', () => {
  expect(decodeDmaReadRequest(hex(FIXED), 6)).toEqual(ACCESS);
  expect(decodeDmaReadReply(hex(`${FIXED} a1a2a3a4a5a6`), ACCESS)).toEqual({
    ...ACCESS,
    data: DATA,
    countSize: 8,
  });
  expect(decodeDmaWriteRequest(hex(`${FIXED} a1a2a3a4a5a6`), 6)).toEqual({ ...ACCESS, data: DATA });
});

// QEMU 10.1, hw/vfio-user: count is a uint32_t at 8, the data follow at 12, and 4 bytes of padding end the message.
test('a DMA_READ reply of QEMU 10.1 is told by the upper half of its count', () => {
  const reply = hex('0010000001000000 06000000 a1a2a3a4a5a6 00000000');
  expect(decodeDmaReadReply(reply, ACCESS)).toEqual({ ...ACCESS, data: DATA, countSize: 4 });
});

test('a DMA_READ reply whose data begins with zeros is read as the caller says', () => {
  const reply = hex('0010000001000000 06000000 00000000a5a6 00000000');
  expect(decodeDmaReadReply(reply, ACCESS)).toMatchObject({ countSize: 8, data: hex('a5a600000000') });
  expect(decodeDmaReadReply(reply, ACCESS, 4)).toMatchObject({ countSize: 4, data: hex('00000000a5a6') });
});

// 16 bytes: libvfio-user. 12 bytes: the specification's table. None: QEMU 10.1.
test.each([FIXED, '0010000001000000 06000000', ''])('the DMA_WRITE reply "%s" is accepted', (text) => {
  expect(decodeDmaWriteReply(hex(text), ACCESS)).toEqual(ACCESS);
});

test('full 64-bit addresses', () => {
  const text = '00f0ffffffffffff 0010000000000000';
  const access = { address: 0xffff_ffff_ffff_f000n, count: 4096 };
  expect(toHex(encodeDmaReadRequest(access))).toBe(plain(text));
  expect(decodeDmaReadRequest(hex(text), 4096)).toEqual(access);
});

test('requests that are wrong are refused', () => {
  const read = (text: string) => () => decodeDmaReadRequest(hex(text), 0x2000);
  const write = (text: string) => () => decodeDmaWriteRequest(hex(text), 0x2000);
  expectProtocolError(read('0010000001000000 06000000'), 'DMA_READ', 'request: 12 bytes, at least 16');
  expectProtocolError(read('0000000000000000 0120000000000000'), 'DMA_READ', 'count is 8193, at most 8192');
  expectProtocolError(read('0000000000000000 0000000000002000'), 'DMA_READ', 'count is 0x20000000000000');
  expectProtocolError(read('00f0ffffffffffff 0110000000000000'), 'DMA_READ', 'above 2^64');
  expectProtocolError(write('00'), 'DMA_WRITE', '1 bytes, at least 16');
  expectProtocolError(write(`${FIXED} a1a2a3a4a5`), 'DMA_WRITE', 'count is 6, with 5 bytes of data');
  expectProtocolError(write(`${FIXED} a1a2a3a4a5a6a7`), 'DMA_WRITE', 'count is 6, with 7 bytes of data');
  expectProtocolError(write('0000000000000000 0120000000000000'), 'DMA_WRITE', 'at most 8192');
});

test('replies that are wrong are refused', () => {
  const read = (text: string) => () => decodeDmaReadReply(hex(text), ACCESS);
  const write = (text: string) => () => decodeDmaWriteReply(hex(text), ACCESS);
  expectProtocolError(read(''), 'DMA_READ', 'reply: 0 bytes, at least 16');
  expectProtocolError(
    read('0010000000000000 0600000000000000 a1a2a3a4a5a6'),
    'DMA_READ',
    'address is 0x1000, 0x100001000',
  );
  expectProtocolError(
    read('0010000001000000 0700000000000000 a1a2a3a4a5a6a7'),
    'DMA_READ',
    'count is 7, at most 6',
  );
  expectProtocolError(read(`${FIXED} a1a2a3a4a5`), 'DMA_READ', '21 bytes, at least 22');
  expectProtocolError(read('0010000001000000 07000000 a1a2a3a4a5a6 00000000'), 'DMA_READ', 'count is 7');
  expectProtocolError(
    () => decodeDmaReadReply(hex('0010000001000000 06000000 00000000ff000000'), ACCESS, 8),
    'DMA_READ',
    'at least 22',
  );
  expectProtocolError(
    () => decodeDmaReadReply(hex('0010000001000000 06000000 000000ff a5a600000000'), ACCESS, 8),
    'DMA_READ',
    'beyond reason',
  );
  expectProtocolError(write('0010000001000000'), 'DMA_WRITE', 'reply: 8 bytes, at least 12');
  expectProtocolError(write('0020000001000000 06000000'), 'DMA_WRITE', 'address is 0x100002000');
  expectProtocolError(write('0010000001000000 07000000'), 'DMA_WRITE', 'count is 7');
  expectProtocolError(write('0010000001000000 0700000000000000'), 'DMA_WRITE', 'count is 7');
});

test('every access comes back', () => {
  fc.assert(
    fc.property(anyU64, fc.uint8Array({ maxLength: 64 }), (address, data) => {
      const access = { address, count: data.length };
      fc.pre(fitsU64(address, data.length));
      const payload = new Uint8Array([...encodeDmaWriteRequest(access), ...data]);
      expect(decodeDmaReadRequest(encodeDmaReadRequest(access), 64)).toEqual(access);
      expect(decodeDmaWriteRequest(payload, 64)).toEqual({ ...access, data });
      expect(decodeDmaReadReply(payload, access)).toEqual({ ...access, data, countSize: 8 });
      expect(decodeDmaWriteReply(encodeDmaWriteReply(access), access)).toEqual(access);
    }),
  );
});

test('any bytes are survived', () => {
  const asked = { address: 0, count: 16 };
  expectRobust((payload) => decodeDmaReadRequest(payload, 64));
  expectRobust((payload) => decodeDmaReadReply(payload, asked));
  expectRobust((payload) => decodeDmaReadReply(payload, asked, 4));
  expectRobust((payload) => decodeDmaWriteRequest(payload, 64));
  expectRobust((payload) => decodeDmaWriteReply(payload, asked));
});
