// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  decodeDeviceInfoReply,
  decodeDeviceInfoRequest,
  encodeDeviceInfoReply,
  encodeDeviceInfoRequest,
} from '../../lib/protocol';
import { anyU32, expectProtocolError, expectRobust, hex, plain, toHex } from './support';

// vfio-user, VFIO_USER_DEVICE_GET_INFO: argsz 4, flags 4, num_regions 4, num_irqs 4.
test('golden request', () => {
  const text = '10000000 00000000 00000000 00000000';
  expect(toHex(encodeDeviceInfoRequest())).toBe(plain(text));
  expect(toHex(encodeDeviceInfoRequest(0x20))).toBe(plain(text).replace(/^10/, '20'));
  expect(decodeDeviceInfoRequest(hex(text))).toEqual({ argsz: 16 });
});

test('golden reply: a PCI device that can be reset, 9 regions, 5 interrupt indexes', () => {
  const text = '10000000 03000000 09000000 05000000';
  const info = { flags: 3, numRegions: 9, numIrqs: 5 };
  expect(toHex(encodeDeviceInfoReply(info))).toBe(plain(text));
  expect(decodeDeviceInfoReply(hex(text))).toEqual({ ...info, argsz: 16, complete: true });
  expect(decodeDeviceInfoReply(hex(text.replace(/^10/, '20')))).toEqual({
    ...info,
    argsz: 32,
    complete: false,
  });
});

test('what is too short is refused', () => {
  expectProtocolError(
    () => decodeDeviceInfoRequest(hex('10000000')),
    'DEVICE_GET_INFO',
    'request: 4 bytes, at least 16',
  );
  expectProtocolError(
    () => decodeDeviceInfoRequest(hex('0f000000 00000000 00000000 00000000')),
    'DEVICE_GET_INFO',
    'argsz is 15',
  );
  expectProtocolError(
    () => decodeDeviceInfoReply(hex('10000000')),
    'DEVICE_GET_INFO',
    'reply: 4 bytes, at least 16',
  );
});

test('values of more than 32 bit cannot be encoded', () => {
  expect(() => encodeDeviceInfoRequest(2 ** 32)).toThrow(RangeError);
  expect(() => encodeDeviceInfoReply({ flags: 0, numRegions: -1, numIrqs: 0 })).toThrow(RangeError);
});

test('every reply comes back', () => {
  fc.assert(
    fc.property(fc.record({ flags: anyU32, numRegions: anyU32, numIrqs: anyU32 }), (info) => {
      expect(decodeDeviceInfoReply(encodeDeviceInfoReply(info))).toEqual({
        ...info,
        argsz: 16,
        complete: true,
      });
    }),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeDeviceInfoRequest);
  expectRobust(decodeDeviceInfoReply);
});
