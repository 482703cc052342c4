// SPDX-License-Identifier: MIT
import {
  decodeIoRegionCommand,
  decodeIoRegionResponse,
  encodeIoRegionCommand,
  encodeIoRegionResponse,
} from '../../lib/protocol';
import { expectProtocolError, expectRobust, hex, plain, toHex } from './support';

// struct ioregionfd_cmd: u8 cmd (0 read, 1 write), u8 size_exponent : 4 and resp : 1, u8 padding[6], u64 user_data, offset,
// data (ioregionfd series, version 3, include/uapi/linux/ioregion.h).
const READ_32 = '00 12 000000000000 efcdab8967452301 1000000000000000 0000000000000000';
const WRITE_16 = '01 11 000000000000 0700000000000000 0600000000000000 3412000000000000';
const POSTED_64 = '01 03 000000000000 0700000000000000 0800000000000000 88776655 44332211';

test.each([
  [
    'read',
    READ_32,
    { write: false, width: 4, respond: true, userData: 0x0123456789abcdefn, offset: 16, data: 0n },
  ],
  ['write', WRITE_16, { write: true, width: 2, respond: true, userData: 7, offset: 6, data: 0x1234n }],
  [
    'posted write',
    POSTED_64,
    { write: true, width: 8, respond: false, userData: 7, offset: 8, data: 0x1122334455667788n },
  ],
] as const)('command: %s', (_name, bytes, command) => {
  expect(toHex(encodeIoRegionCommand(command))).toBe(plain(bytes));
  expect(decodeIoRegionCommand(hex(bytes))).toEqual(command);
});

test('what the sender leaves in the unused bytes of data is not looked at', () => {
  expect(decodeIoRegionCommand(hex(WRITE_16.replace('3412000000000000', '3412ffffffffffff'))).data).toBe(
    0x1234n,
  );
});

test('a read wants a response, whatever its bit says', () => {
  expect(decodeIoRegionCommand(hex(READ_32.replace('00 12', '00 02'))).respond).toBe(true);
});

test.each([
  ['another command', READ_32.replace('00 12', '02 12')],
  ['16 bytes wide', READ_32.replace('00 12', '00 14')],
  ['a flag that is not known', READ_32.replace('00 12', '00 32')],
  ['31 bytes', READ_32.slice(0, -2)],
])('%s is refused', (_name, bytes) => {
  expectProtocolError(() => decodeIoRegionCommand(hex(bytes)), 'ioregionfd', /./);
});

test('data that do not fit the width', () => {
  const command = { write: true, width: 1, respond: true, userData: 0, offset: 0 } as const;
  expect(() => encodeIoRegionCommand({ ...command, data: 256n })).toThrow(RangeError);
  expect(() => encodeIoRegionCommand({ ...command, data: -1n })).toThrow(RangeError);
});

test('response', () => {
  const bytes = `8877665544332211${'00'.repeat(24)}`;
  expect(toHex(encodeIoRegionResponse(0x1122334455667788n))).toBe(bytes);
  expect(decodeIoRegionResponse(hex(bytes), 8)).toBe(0x1122334455667788n);
  expect(decodeIoRegionResponse(hex(bytes), 2)).toBe(0x7788n);
  expectProtocolError(() => decodeIoRegionResponse(new Uint8Array(31), 4), 'ioregionfd', '31 bytes');
});

test('any bytes', () => {
  expectRobust(decodeIoRegionCommand);
});
