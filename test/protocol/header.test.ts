// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { checkHeader, decodeHeader, encodeHeader, isError, isNoReply, isReply } from '../../lib/protocol';
import { anyU32, expectProtocolError, hex, plain, toHex } from './support';

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

// vfio-user, Header: id 2, command 2, message size 4, flags 4 (type 0-3, no_reply 4, error 5), error 4.
test.each([
  [
    'a REGION_READ',
    '3412 0900 20000000 00000000 00000000',
    { id: 0x1234, command: 9, size: 32, flags: 0, error: 0 },
  ],
  [
    'an error reply',
    '0100 0200 10000000 21000000 16000000',
    { id: 1, command: 2, size: 16, flags: 0x21, error: 22 },
  ],
  [
    'a posted write',
    'ffff 0a00 24000000 10000000 00000000',
    { id: 0xffff, command: 10, size: 36, flags: 0x10, error: 0 },
  ],
])('%s', (_name, text, header) => {
  const bytes = new Uint8Array(20).fill(0xee);
  encodeHeader(viewOf(bytes), 2, header);
  expect(toHex(bytes)).toBe(`eeee${plain(text)}eeee`);
  const into = { id: 9, command: 9, size: 9, flags: 9, error: 9 };
  expect(decodeHeader(viewOf(hex(text)), 0, into)).toBe(into);
  expect(into).toEqual(header);
  expect(decodeHeader(viewOf(bytes), 2)).toEqual(header);
});

test('every header comes back', () => {
  const u16 = fc.nat({ max: 0xffff });
  const view = new DataView(new ArrayBuffer(16));
  fc.assert(
    fc.property(
      fc.record({ id: u16, command: u16, size: anyU32, flags: anyU32, error: anyU32 }),
      (header) => {
        encodeHeader(view, 0, header);
        expect(decodeHeader(view, 0)).toEqual(header);
      },
    ),
  );
});

test('sizes from the header to the maximum are accepted', () => {
  const header = { id: 7, command: 9, size: 16, flags: 0, error: 0 };
  expect(() => {
    checkHeader(header, 4096);
    checkHeader({ ...header, size: 4096 }, 4096);
    checkHeader({ ...header, command: 999, flags: 1 }, 4096);
  }).not.toThrow();
  expectProtocolError(
    () => {
      checkHeader({ ...header, size: 15 }, 4096);
    },
    'REGION_READ',
    'REGION_READ request (id 7): message size is 15, expected from 16 to 4096',
  );
  expectProtocolError(
    () => {
      checkHeader({ ...header, size: 4097, flags: 1 }, 4096);
    },
    'REGION_READ',
    /REGION_READ reply .*4097/,
  );
});

test('a type that does not exist is refused', () => {
  expectProtocolError(
    () => {
      checkHeader({ id: 7, command: 9, size: 16, flags: 2, error: 0 }, 64);
    },
    'REGION_READ',
    /message type is 2/,
  );
});

test('the flags are told apart', () => {
  expect([0, 1, 0x10, 0x20, 0x21].map(isReply)).toEqual([false, true, false, true, true]);
  expect([0, 1, 0x10, 0x20, 0x21].map(isError)).toEqual([false, false, false, true, true]);
  expect([0, 1, 0x10, 0x20, 0x11].map(isNoReply)).toEqual([false, false, true, false, true]);
});
