// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  decodeIrqInfoReply,
  decodeIrqInfoRequest,
  encodeIrqInfoReply,
  encodeIrqInfoRequest,
} from '../../lib/protocol';
import { anyU32, expectProtocolError, expectRobust, hex, plain, toHex } from './support';

// vfio-user, VFIO_USER_DEVICE_GET_IRQ_INFO: argsz 4, flags 4, index 4, count 4.
test('golden request for MSI-X', () => {
  const text = '10000000 00000000 02000000 00000000';
  expect(toHex(encodeIrqInfoRequest({ index: 2 }))).toBe(plain(text));
  expect(decodeIrqInfoRequest(hex(text))).toEqual({ argsz: 16, index: 2 });
});

test('golden reply: 32 vectors by eventfd, which cannot be resized', () => {
  const text = '10000000 09000000 02000000 20000000';
  const info = { index: 2, flags: 9, count: 32 };
  expect(toHex(encodeIrqInfoReply(info))).toBe(plain(text));
  expect(decodeIrqInfoReply(hex(text), { index: 2 })).toEqual({ ...info, argsz: 16, complete: true });
  expect(decodeIrqInfoReply(hex(text.replace(/^10/, '18')), { index: 2 }).complete).toBe(false);
});

test('what is wrong is refused', () => {
  const command = 'DEVICE_GET_IRQ_INFO';
  expectProtocolError(() => decodeIrqInfoRequest(hex('10000000')), command, 'request: 4 bytes, at least 16');
  expectProtocolError(
    () => decodeIrqInfoRequest(hex('0f000000 00000000 02000000 00000000')),
    command,
    'argsz is 15',
  );
  expectProtocolError(
    () => decodeIrqInfoReply(hex('10'), { index: 2 }),
    command,
    'reply: 1 bytes, at least 16',
  );
  expectProtocolError(
    () => decodeIrqInfoReply(hex('10000000 00000000 01000000 01000000'), { index: 2 }),
    command,
    'index is 1, 2 was asked for',
  );
});

test('values of more than 32 bit cannot be encoded', () => {
  expect(() => encodeIrqInfoRequest({ index: 2 ** 32 })).toThrow(RangeError);
  expect(() => encodeIrqInfoReply({ index: 0, flags: 0, count: 1.5 })).toThrow(RangeError);
});

test('every reply comes back', () => {
  fc.assert(
    fc.property(fc.record({ flags: anyU32, index: anyU32, count: anyU32 }), (info) => {
      expect(decodeIrqInfoReply(encodeIrqInfoReply(info), info)).toEqual({
        ...info,
        argsz: 16,
        complete: true,
      });
    }),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeIrqInfoRequest);
  expectRobust((payload) => decodeIrqInfoReply(payload, { index: 2 }));
});
