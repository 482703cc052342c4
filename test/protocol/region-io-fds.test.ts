// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  decodeRegionIoFdsReply,
  decodeRegionIoFdsRequest,
  encodeRegionIoFdsReply,
  encodeRegionIoFdsRequest,
  type RegionIoFd,
} from '../../lib/protocol';
import { anySafe, anyU32, anyU64, expectProtocolError, expectRobust, hex, plain, toHex } from './support';

const COMMAND = 'DEVICE_GET_REGION_IO_FDS';
const ASKED = { index: 2, fdCount: 2 };

// vfio-user, VFIO_USER_DEVICE_GET_REGION_IO_FDS: argsz 4, flags 4, index 4, count 4.
test('golden request', () => {
  const text = '00020000 00000000 02000000 00000000';
  expect(toHex(encodeRegionIoFdsRequest({ index: 2, argsz: 512 }))).toBe(plain(text));
  expect(toHex(encodeRegionIoFdsRequest({ index: 2 }))).toBe(plain('10000000 00000000 02000000 00000000'));
  expect(decodeRegionIoFdsRequest(hex(text))).toEqual({ argsz: 512, index: 2 });
});

// Specification: offset 8, size 8, fd_index 4, type 4, flags 4, padding 4, datamatch or user_data 8.
const SPEC_ENTRIES: RegionIoFd[] = [
  { type: 'ioeventfd', offset: 0x1000, size: 4, fdIndex: 0, flags: 1, datamatch: 0x55 },
  { type: 'ioregionfd', offset: 0x2000, size: 8, fdIndex: 1, flags: 2, userData: 0xfedc_ba98_7654_3210n },
];
const SPEC =
  '60000000 00000000 02000000 02000000' +
  '0010000000000000 0400000000000000 00000000 00000000 01000000 00000000 5500000000000000' +
  '0020000000000000 0800000000000000 01000000 01000000 02000000 00000000 1032547698badcfe';

test('golden reply with entries of the specification', () => {
  expect(toHex(encodeRegionIoFdsReply({ index: 2, entries: SPEC_ENTRIES }, 96, 40))).toBe(plain(SPEC));
  expect(decodeRegionIoFdsReply(hex(SPEC), ASKED)).toEqual({
    argsz: 96,
    count: 2,
    complete: true,
    index: 2,
    entries: SPEC_ENTRIES,
  });
});

// libvfio-user, struct vfio_user_sub_region_ioeventfd: gpa_offset 8, size 8, fd_index 4, type 4, flags 4,
// shadow_mem_fd_index 4, shadow_offset 8, datamatch 8. Entry without descriptor: test_device_get_region_io_fds_invalid_fd.
const LIBVFIO_USER_ENTRIES: RegionIoFd[] = [
  {
    type: 'ioeventfdShadow',
    offset: 0x1000,
    size: 4,
    fdIndex: 0,
    flags: 0,
    datamatch: 0x55,
    shadowFdIndex: 1,
    shadowOffset: 0x40,
  },
  { type: 'ioeventfd', offset: 0x18, size: 8, fdIndex: null, flags: 0, datamatch: 0x66 },
  { type: 'ioregionfd', offset: 0x20, size: 0, fdIndex: 1, flags: 0, userData: 7 },
];
const LIBVFIO_USER =
  'a0000000 00000000 02000000 03000000' +
  '0010000000000000 0400000000000000 00000000 02000000 00000000 01000000 4000000000000000 5500000000000000' +
  '1800000000000000 0800000000000000 ffffffff 00000000 00000000 00000000 0000000000000000 6600000000000000' +
  '2000000000000000 0000000000000000 01000000 01000000 00000000 00000000 0700000000000000 0000000000000000';

test('golden reply with entries of libvfio-user', () => {
  const reply = { index: 2, entries: LIBVFIO_USER_ENTRIES };
  expect(toHex(encodeRegionIoFdsReply(reply, 4096, 48))).toBe(plain(LIBVFIO_USER));
  expect(decodeRegionIoFdsReply(hex(LIBVFIO_USER), ASKED)).toEqual({
    ...reply,
    argsz: 160,
    count: 3,
    complete: true,
  });
});

// libvfio-user's test_device_get_region_io_fds_fds_read_write_nothing: only the fixed part, argsz of 6 entries.
test('golden reply that was cut for want of room', () => {
  const text = '60000000 00000000 02000000 02000000';
  expect(toHex(encodeRegionIoFdsReply({ index: 2, entries: SPEC_ENTRIES }, 95, 40))).toBe(plain(text));
  expect(
    decodeRegionIoFdsReply(hex('30010000 00000000 02000000 06000000'), { index: 2, fdCount: 0 }),
  ).toEqual({
    argsz: 304,
    count: 6,
    complete: false,
    index: 2,
    entries: [],
  });
});

test('golden reply without entries', () => {
  const text = '10000000 00000000 01000000 00000000';
  expect(toHex(encodeRegionIoFdsReply({ index: 1, entries: [] }, 16, 40))).toBe(plain(text));
  expect(decodeRegionIoFdsReply(hex(text), { index: 1, fdCount: 0 })).toMatchObject({
    complete: true,
    entries: [],
  });
});

test('argsz by the formula of the specification, and longer entries', () => {
  const entry = '0010000000000000 0400000000000000 00000000 00000000 01000000 00000000 5500000000000000';
  const tail = '00'.repeat(16);
  const head = (argsz: string): string => `${argsz}000000 00000000 02000000 01000000`;
  expect(decodeRegionIoFdsReply(hex(head('48') + entry + tail), ASKED).entries).toEqual([SPEC_ENTRIES[0]]);
  expect(decodeRegionIoFdsReply(hex(head('60') + entry + tail.repeat(3)), ASKED).entries).toEqual([
    SPEC_ENTRIES[0],
  ]);
});

test.each([
  ['10000000', '4 bytes, at least 16'],
  ['10000000 00000000 01000000 00000000', 'index is 1, 2 was asked for'],
  ['10000000 00000000 02000000 01000000', 'argsz is 16, which does not fit 1 entries'],
  ['10000000 00000000 02000000 ffffffff', 'does not fit 4294967295 entries'],
  ['37000000 00000000 02000000 01000000' + '00'.repeat(64), 'argsz is 55'],
  [SPEC.replace('01000000 01000000 0200', '01000000 02000000 0200'), 'type 2 in an entry of 40 bytes'],
  [SPEC.replace('01000000 01000000 0200', '01000000 03000000 0200'), 'type 3'],
  [SPEC.replace('01000000 01000000 0200', '02000000 01000000 0200'), 'file descriptor 2 of 2'],
  [LIBVFIO_USER.replace('00000000 01000000 40', '00000000 02000000 40'), 'file descriptor 2 of 2'],
  [SPEC.replace('0010000000000000', '0000000000000080'), 'offset of an entry'],
  [SPEC.replace('0400000000000000', '0000000000002000'), 'size of an entry'],
  [SPEC.replace('0010000000000000', 'ffffffffffff1f00'), 'offset plus size'],
])('reply %# is refused: %s', (text, message) => {
  expectProtocolError(() => decodeRegionIoFdsReply(hex(text), ASKED), COMMAND, message);
});

test.each([
  ['10000000', '4 bytes, at least 16'],
  ['0f000000 00000000 02000000 00000000', 'argsz is 15'],
  ['10000000 01000000 02000000 00000000', 'flags and count'],
  ['10000000 00000000 02000000 01000000', 'flags and count'],
])('request %s is refused', (text, message) => {
  expectProtocolError(() => decodeRegionIoFdsRequest(hex(text)), COMMAND, message);
});

test('a shadow ioeventfd does not fit the entries of the specification', () => {
  expect(() => encodeRegionIoFdsReply({ index: 2, entries: LIBVFIO_USER_ENTRIES }, 4096, 40)).toThrow(
    TypeError,
  );
});

test('every reply comes back', () => {
  const common = { offset: anySafe, size: anyU32, fdIndex: fc.option(fc.nat({ max: 7 })), flags: anyU32 };
  const entry: fc.Arbitrary<RegionIoFd> = fc.oneof(
    fc.record({ type: fc.constant('ioeventfd' as const), ...common, datamatch: anyU64 }),
    fc.record({ type: fc.constant('ioregionfd' as const), ...common, userData: anyU64 }),
    fc.record({
      type: fc.constant('ioeventfdShadow' as const),
      ...common,
      datamatch: anyU64,
      shadowFdIndex: fc.nat({ max: 7 }),
      shadowOffset: anyU64,
    }),
  );
  fc.assert(
    fc.property(anyU32, fc.array(entry, { maxLength: 6 }), (index, entries) => {
      const reply = decodeRegionIoFdsReply(encodeRegionIoFdsReply({ index, entries }, 4096, 48), {
        index,
        fdCount: 8,
      });
      expect(reply).toEqual({
        index,
        entries,
        count: entries.length,
        argsz: 16 + 48 * entries.length,
        complete: true,
      });
    }),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeRegionIoFdsRequest);
  expectRobust((payload) => decodeRegionIoFdsReply(payload, ASKED));
});
