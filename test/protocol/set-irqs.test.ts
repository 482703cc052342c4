// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { decodeSetIrqsRequest, encodeSetIrqsRequest, type SetIrqsRequest } from '../../lib/protocol';
import { anyU32, expectProtocolError, expectRobust, hex, plain, toHex } from './support';

// vfio-user, VFIO_USER_DEVICE_SET_IRQS: argsz 4, flags 4, index 4, start 4, count 4, data.
const GOLDEN: [string, string, SetIrqsRequest][] = [
  [
    'two eventfds for MSI-X vectors 1 and 2',
    '14000000 24000000 02000000 01000000 02000000',
    { index: 2, data: 'eventfd', action: 'trigger', start: 1, count: 2 },
  ],
  [
    'all of MSI-X off',
    '14000000 21000000 02000000 00000000 00000000',
    { index: 2, data: 'none', action: 'trigger', start: 0, count: 0 },
  ],
  [
    'INTx masked',
    '14000000 09000000 00000000 00000000 01000000',
    { index: 0, data: 'none', action: 'mask', start: 0, count: 1 },
  ],
  [
    'one of three vectors unmasked',
    '17000000 12000000 01000000 00000000 03000000 000100',
    { index: 1, data: 'bool', action: 'unmask', start: 0, count: 3, booleans: hex('000100') },
  ],
];

test.each(GOLDEN)('golden request: %s', (_name, text, request) => {
  expect(toHex(encodeSetIrqsRequest(request))).toBe(plain(text));
  expect(decodeSetIrqsRequest(hex(text))).toEqual(request);
});

test.each([
  ['14000000 24000000', '8 bytes, at least 20'],
  ['13000000 24000000 02000000 00000000 01000000', 'argsz is 19'],
  ['14000000 25000000 02000000 00000000 01000000', 'flags are 0x25'],
  ['14000000 34000000 02000000 00000000 01000000', 'flags are 0x34'],
  ['14000000 20000000 02000000 00000000 01000000', 'flags are 0x20'],
  ['14000000 04000000 02000000 00000000 01000000', 'flags are 0x4'],
  ['14000000 64000000 02000000 00000000 01000000', 'flags are 0x64'],
  ['14000000 240000 80 02000000 00000000 01000000', 'flags are 0x80000024'],
  ['14000000 24000000 02000000 01000000 ffffffff', 'start 1 plus count 4294967295'],
  ['17000000 22000000 02000000 00000000 04000000 010101', '23 bytes, at least 24'],
])('request %s is refused', (text, message) => {
  expectProtocolError(() => decodeSetIrqsRequest(hex(text)), 'DEVICE_SET_IRQS', message);
});

test('contradictions cannot be encoded', () => {
  const request: SetIrqsRequest = { index: 2, data: 'bool', action: 'mask', start: 0, count: 2 };
  expect(() => encodeSetIrqsRequest(request)).toThrow(TypeError);
  expect(() => encodeSetIrqsRequest({ ...request, booleans: hex('01') })).toThrow(TypeError);
  expect(() => encodeSetIrqsRequest({ ...request, data: 'none', booleans: hex('0101') })).toThrow(TypeError);
  expect(() => encodeSetIrqsRequest({ ...request, data: 'none', start: 0xffff_ffff })).toThrow(RangeError);
  expect(() => encodeSetIrqsRequest({ ...request, data: 'none', index: -1 })).toThrow(RangeError);
});

test('every request comes back', () => {
  const action = fc.constantFrom('mask' as const, 'unmask' as const, 'trigger' as const);
  fc.assert(
    fc.property(
      anyU32,
      action,
      fc.nat({ max: 0x7fff_ffff }),
      fc.uint8Array({ maxLength: 40 }),
      (index, act, start, booleans) => {
        const count = booleans.length;
        const bool: SetIrqsRequest = { index, data: 'bool', action: act, start, count, booleans };
        expect(decodeSetIrqsRequest(encodeSetIrqsRequest(bool))).toEqual(bool);
        const none: SetIrqsRequest = { index, data: 'none', action: act, start, count };
        expect(decodeSetIrqsRequest(encodeSetIrqsRequest(none))).toEqual(none);
      },
    ),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeSetIrqsRequest);
});
