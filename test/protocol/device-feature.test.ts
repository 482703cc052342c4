// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  Feature,
  decodeDeviceFeatureReply,
  decodeDeviceFeatureRequest,
  encodeDeviceFeatureReply,
  encodeDeviceFeatureRequest,
} from '../../lib/protocol';
import { expectProtocolError, expectRobust, hex, plain, toHex } from './support';

const NONE = new Uint8Array(0);
const OPERATIONS = { get: false, set: false, probe: false };

// vfio-user, VFIO_USER_DEVICE_FEATURE: argsz 4, flags 4 (index 0-15, get 16, set 17, probe 18), data.
test('golden GET of MIGRATION, with room for 8 bytes', () => {
  const text = '10000000 01000100';
  expect(toHex(encodeDeviceFeatureRequest({ feature: Feature.migration, get: true }, 8))).toBe(plain(text));
  expect(decodeDeviceFeatureRequest(hex(text))).toEqual({
    ...OPERATIONS,
    argsz: 16,
    feature: 1,
    get: true,
    data: NONE,
  });
});

test('golden reply to it: stop-copy and pre-copy', () => {
  const text = '10000000 01000100 0500000000000000';
  const data = hex('0500000000000000');
  expect(toHex(encodeDeviceFeatureReply({ feature: 1, get: true, data }))).toBe(plain(text));
  expect(decodeDeviceFeatureReply(hex(text), { feature: 1 })).toEqual({
    ...OPERATIONS,
    argsz: 16,
    complete: true,
    feature: 1,
    get: true,
    data,
  });
  expect(decodeDeviceFeatureReply(hex('10000000 01000100'), { feature: 1 }).complete).toBe(false);
});

test('golden SET of MIG_DEVICE_STATE and PROBE', () => {
  const set = '10000000 02000200 0100000000000000';
  const data = hex('0100000000000000');
  expect(toHex(encodeDeviceFeatureRequest({ feature: 2, set: true, data }))).toBe(plain(set));
  expect(decodeDeviceFeatureRequest(hex(set))).toEqual({
    ...OPERATIONS,
    argsz: 16,
    feature: 2,
    set: true,
    data,
  });
  const probe = '08000000 06000700';
  expect(toHex(encodeDeviceFeatureRequest({ feature: 6, get: true, set: true, probe: true }))).toBe(
    plain(probe),
  );
  expect(decodeDeviceFeatureRequest(hex(probe))).toEqual({
    argsz: 8,
    feature: 6,
    get: true,
    set: true,
    probe: true,
    data: NONE,
  });
});

test.each([
  ['08000000', '4 bytes, at least 8'],
  ['07000000 01000100', 'argsz is 7'],
  ['08000000 01000000', 'none of get, set and probe'],
  ['08000000 01000300', 'both get and set'],
  ['08000000 01000900', 'flags are 0x90001'],
])('request %s is refused', (text, message) => {
  expectProtocolError(() => decodeDeviceFeatureRequest(hex(text)), 'DEVICE_FEATURE', message);
});

test('replies that are wrong are refused', () => {
  expectProtocolError(
    () => decodeDeviceFeatureReply(NONE, { feature: 1 }),
    'DEVICE_FEATURE',
    'reply: 0 bytes',
  );
  expectProtocolError(
    () => decodeDeviceFeatureReply(hex('08000000 02000100'), { feature: 1 }),
    'DEVICE_FEATURE',
    'feature is 2',
  );
  expectProtocolError(
    () => decodeDeviceFeatureReply(hex('08000000 01000180'), { feature: 1 }),
    'DEVICE_FEATURE',
    'flags are 0x80010001',
  );
});

test('contradictions cannot be encoded', () => {
  expect(() => encodeDeviceFeatureRequest({ feature: 1 })).toThrow(TypeError);
  expect(() => encodeDeviceFeatureRequest({ feature: 1, get: true, set: true })).toThrow(TypeError);
  expect(() => encodeDeviceFeatureRequest({ feature: 65536, get: true })).toThrow(TypeError);
  expect(() => encodeDeviceFeatureReply({ feature: -1, get: true })).toThrow(TypeError);
});

test('every message comes back', () => {
  fc.assert(
    fc.property(
      fc.nat({ max: 65535 }),
      fc.boolean(),
      fc.boolean(),
      fc.uint8Array({ maxLength: 40 }),
      (feature, get, set, data) => {
        const message = { feature, get, set, probe: get === set, data };
        expect(decodeDeviceFeatureRequest(encodeDeviceFeatureRequest(message))).toEqual({
          ...message,
          argsz: 8 + data.length,
        });
        expect(decodeDeviceFeatureReply(encodeDeviceFeatureReply(message), { feature })).toMatchObject({
          ...message,
          complete: true,
        });
      },
    ),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeDeviceFeatureRequest);
  expectRobust((payload) => decodeDeviceFeatureReply(payload, { feature: 1 }));
});
