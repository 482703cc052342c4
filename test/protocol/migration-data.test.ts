// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  decodeMigDataReadReply,
  decodeMigDataReadRequest,
  decodeMigDataWriteRequest,
  encodeMigDataReadReply,
  encodeMigDataReadRequest,
  encodeMigDataWriteRequest,
} from '../../lib/protocol';
import { expectProtocolError, expectRobust, hex, plain, toHex } from './support';

// vfio-user, VFIO_USER_MIG_DATA_READ and _WRITE: argsz 4, size 4, data. argsz as in mig_data_payload() of
// libvfio-user's test/py/test_migration.py: 8 more than the size.
const FIXED = '0c000000 04000000';

test('golden bytes', () => {
  expect(toHex(encodeMigDataReadRequest(4))).toBe(plain(FIXED));
  expect(toHex(encodeMigDataReadReply(4))).toBe(plain(FIXED));
  expect(toHex(encodeMigDataWriteRequest(4))).toBe(plain(FIXED));
  expect(decodeMigDataReadRequest(hex(FIXED), 4)).toEqual({ argsz: 12, size: 4 });
  expect(decodeMigDataReadReply(hex(`${FIXED} 01020304`), 4)).toEqual(hex('01020304'));
  expect(decodeMigDataWriteRequest(hex(`${FIXED} 01020304`), 4)).toEqual(hex('01020304'));
});

test('the size of a reply counts, not its padding', () => {
  expect(decodeMigDataReadReply(hex('0a000000 02000000 01020000'), 4)).toEqual(hex('0102'));
});

test('what is wrong is refused', () => {
  expectProtocolError(
    () => decodeMigDataReadRequest(hex('0c'), 4),
    'MIG_DATA_READ',
    'request: 1 bytes, at least 8',
  );
  expectProtocolError(
    () => decodeMigDataReadRequest(hex('0d000000 05000000'), 4),
    'MIG_DATA_READ',
    'size is 5, at most 4',
  );
  expectProtocolError(
    () => decodeMigDataReadRequest(hex('0b000000 04000000'), 4),
    'MIG_DATA_READ',
    'argsz is 11, at least 12',
  );
  expectProtocolError(
    () => decodeMigDataReadReply(hex(''), 4),
    'MIG_DATA_READ',
    'reply: 0 bytes, at least 8',
  );
  expectProtocolError(
    () => decodeMigDataReadReply(hex('0d000000 05000000 0102030405'), 4),
    'MIG_DATA_READ',
    'size is 5',
  );
  expectProtocolError(
    () => decodeMigDataReadReply(hex(`${FIXED} 010203`), 4),
    'MIG_DATA_READ',
    '11 bytes, at least 12',
  );
  expectProtocolError(
    () => decodeMigDataWriteRequest(hex('0c000000'), 4),
    'MIG_DATA_WRITE',
    'request: 4 bytes, at least 8',
  );
  expectProtocolError(
    () => decodeMigDataWriteRequest(hex('0d000000 05000000 0102030405'), 4),
    'MIG_DATA_WRITE',
    'size is 5',
  );
  expectProtocolError(
    () => decodeMigDataWriteRequest(hex(`${FIXED} 010203`), 4),
    'MIG_DATA_WRITE',
    '11 bytes',
  );
});

test('sizes that do not fit cannot be encoded', () => {
  expect(() => encodeMigDataReadRequest(0xffff_fff8)).toThrow(RangeError);
  expect(() => encodeMigDataWriteRequest(-1)).toThrow(RangeError);
});

test('everything comes back', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (data) => {
      const payload = new Uint8Array([...encodeMigDataWriteRequest(data.length), ...data]);
      expect(decodeMigDataWriteRequest(payload, 64)).toEqual(data);
      expect(decodeMigDataReadReply(payload, 64)).toEqual(data);
      expect(decodeMigDataReadRequest(encodeMigDataReadRequest(data.length), 64).size).toBe(data.length);
    }),
  );
});

test('any bytes are survived', () => {
  expectRobust((payload) => decodeMigDataReadRequest(payload, 64));
  expectRobust((payload) => decodeMigDataReadReply(payload, 64));
  expectRobust((payload) => decodeMigDataWriteRequest(payload, 64));
});
