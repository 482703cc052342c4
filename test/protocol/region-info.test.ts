// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  decodeRegionInfoReply,
  decodeRegionInfoRequest,
  encodeRegionInfoReply,
  encodeRegionInfoRequest,
  type RegionCapability,
} from '../../lib/protocol';
import { anyU32, expectProtocolError, expectRobust, hex, plain, toHex } from './support';

const COMMAND = 'DEVICE_GET_REGION_INFO';

// vfio-user, VFIO_USER_DEVICE_GET_REGION_INFO: argsz 4, flags 4, index 4, cap_offset 4, size 8, offset 8.
test('golden request', () => {
  const text = '20000000 00000000 02000000 00000000 0000000000000000 0000000000000000';
  expect(toHex(encodeRegionInfoRequest({ index: 2 }))).toBe(plain(text));
  expect(toHex(encodeRegionInfoRequest({ index: 2, argsz: 80 }))).toBe(plain(text).replace(/^20/, '50'));
  expect(decodeRegionInfoRequest(hex(text))).toEqual({ argsz: 32, index: 2 });
  expect(decodeRegionInfoRequest(new Uint8Array([...hex(text), ...new Uint8Array(4000)]))).toEqual({
    argsz: 32,
    index: 2,
  });
});

// The values of libvfio-user's test/py/test_device_get_region_info.py, test_device_get_region_info_caps: BAR2 of 0x8000 bytes
// at offset 0x8000, capability at 32 (id 1, version 1, next 0, 2 areas): 0x2000 + 0x1000 and 0x4000 + 0x2000; argsz 80.
const SPARSE =
  '50000000 0f000000 02000000 20000000 0080000000000000 0080000000000000' +
  '0100 0100 00000000 02000000 00000000 0020000000000000 0010000000000000 0040000000000000 0020000000000000';
const SPARSE_INFO = {
  index: 2,
  flags: 0xf,
  size: 0x8000,
  offset: 0x8000,
  capabilities: [
    {
      kind: 'sparseMmap',
      areas: [
        { offset: 0x2000, size: 0x1000 },
        { offset: 0x4000, size: 0x2000 },
      ],
    },
  ],
} satisfies { capabilities: RegionCapability[]; [key: string]: unknown };
// The same test file, test_device_get_region_info_small_argsz_caps: argsz 80, capabilities and their flag left out.
const CUT = '50000000 07000000 02000000 00000000 0080000000000000 0080000000000000';

test('golden reply with sparse areas', () => {
  expect(toHex(encodeRegionInfoReply(SPARSE_INFO, 80))).toBe(plain(SPARSE));
  expect(decodeRegionInfoReply(hex(SPARSE), { index: 2 })).toEqual({
    ...SPARSE_INFO,
    argsz: 80,
    complete: true,
  });
});

test('golden reply that was cut for want of room', () => {
  expect(toHex(encodeRegionInfoReply(SPARSE_INFO, 79))).toBe(plain(CUT));
  expect(decodeRegionInfoReply(hex(CUT), { index: 2 })).toEqual({
    ...SPARSE_INFO,
    flags: 7,
    argsz: 80,
    complete: false,
    capabilities: [],
  });
});

test('golden reply without capabilities', () => {
  const text = '20000000 03000000 01000000 00000000 0010000000000000 0000000000000000';
  const info = { index: 1, flags: 3, size: 4096, offset: 0, capabilities: [] };
  expect(toHex(encodeRegionInfoReply(info, 32))).toBe(plain(text));
  expect(decodeRegionInfoReply(hex(text), { index: 1 })).toEqual({ ...info, argsz: 32, complete: true });
});

// linux/vfio.h: struct vfio_region_info_cap_type is the header, type 4, subtype 4.
test('golden reply with a type and a capability that is not known', () => {
  const text =
    '40000000 09000000 09000000 20000000 0010000000000000 0000000000000000' +
    '0200 0100 30000000 86800080 02000000' +
    '0300 0700 00000000 aabbccdd eeff0011';
  const info = {
    index: 9,
    flags: 9,
    size: 4096,
    offset: 0,
    capabilities: [
      { kind: 'type', type: 0x8000_8086, subtype: 2 },
      { kind: 'unknown', id: 3, version: 7, data: hex('aabbccddeeff0011') },
    ],
  } satisfies { capabilities: RegionCapability[]; [key: string]: unknown };
  expect(toHex(encodeRegionInfoReply(info, 64))).toBe(plain(text));
  expect(decodeRegionInfoReply(hex(text), { index: 9 })).toEqual({ ...info, argsz: 64, complete: true });
});

/** A reply for region 2 of 0x8000 bytes, with these capabilities behind it. */
const reply = (capOffset: string, capabilities: string): Uint8Array =>
  hex(`20000000 0f000000 02000000 ${capOffset} 0080000000000000 0000000000000000 ${capabilities}`);
const capabilitiesOf = (payload: Uint8Array): readonly RegionCapability[] =>
  decodeRegionInfoReply(payload, { index: 2 }).capabilities;

test('the number of capabilities is limited', () => {
  // Each is a header only, at 32, 40, 48, …; the last has no next.
  const list = (count: number): string =>
    Array.from({ length: count }, (_, i) => {
      const next = new Uint8Array(Uint32Array.of(i + 1 < count ? 40 + 8 * i : 0).buffer);
      return `0900 0100 ${toHex(next)}`;
    }).join('');
  expect(capabilitiesOf(reply('20000000', list(64)))).toHaveLength(64);
  expectProtocolError(
    () => capabilitiesOf(reply('20000000', list(65))),
    COMMAND,
    'more than 64 capabilities',
  );
});

test('a sparse capability of another version is kept raw', () => {
  expect(capabilitiesOf(reply('20000000', '0100 0200 00000000 11223344'))).toEqual([
    { kind: 'unknown', id: 1, version: 2, data: hex('11223344') },
  ]);
});

test('capabilities may come in any order of offsets', () => {
  expect(
    capabilitiesOf(reply('30000000', '0200 0100 00000000 01000000 02000000 0900 0100 20000000')),
  ).toEqual([
    { kind: 'unknown', id: 9, version: 1, data: new Uint8Array(0) },
    { kind: 'type', type: 1, subtype: 2 },
  ]);
});

test('the flag without an offset means no capabilities', () => {
  expect(capabilitiesOf(reply('00000000', ''))).toEqual([]);
});

test.each([
  ['a capability that points at itself', '20000000', '0900 0100 20000000', 'comes back to 32'],
  ['a longer loop', '20000000', '0900 0100 28000000 0900 0100 20000000', 'comes back to 32'],
  ['an offset in the fixed part', '1f000000', '0900 0100 00000000', 'capability at 31'],
  ['an offset behind the payload', '21000000', '0900 0100 00000000', 'capability at 33'],
  ['a huge offset', 'ffffffff', '0900 0100 00000000', 'capability at 4294967295'],
  ['a next behind the payload', '20000000', '0900 0100 28000000', 'capability at 40'],
  [
    'more areas than bytes',
    '20000000',
    '0100 0100 00000000 01000000 00000000 00000000',
    '52 bytes, at least 64',
  ],
  ['a huge number of areas', '20000000', '0100 0100 00000000 ffffffff 00000000', 'at least'],
  ['a sparse capability that is cut', '20000000', '0100 0100 00000000 01', '41 bytes, at least 48'],
  ['a type that is cut', '20000000', '0200 0100 00000000 01000000', '44 bytes, at least 48'],
  [
    'an area behind the region',
    '20000000',
    '0100 0100 00000000 01000000 00000000 0070000000000000 0110000000000000',
    'outside of the region',
  ],
  [
    'an area bigger than the region',
    '20000000',
    '0100 0100 00000000 01000000 00000000 0000000000000000 0180000000000000',
    'outside of the region',
  ],
  [
    'an area beyond reason',
    '20000000',
    '0100 0100 00000000 01000000 00000000 00000000000000ff 0010000000000000',
    'offset of a sparse area',
  ],
])('%s is refused', (_name, capOffset, capabilities, message) => {
  expectProtocolError(
    () => decodeRegionInfoReply(reply(capOffset, capabilities), { index: 2 }),
    COMMAND,
    message,
  );
});

test.each([
  ['20000000', '4 bytes, at least 32'],
  ['20000000 03000000 01000000 00000000 0010000000000000 0000000000000000', 'index is 1, 2 was asked for'],
  ['20000000 03000000 02000000 00000000 0000000000000080 0000000000000000', 'size is 0x8000000000000000'],
  ['20000000 03000000 02000000 00000000 0010000000000000 0000000000002000', 'offset is 0x20000000000000'],
  ['20000000 03000000 02000000 00000000 0010000000000000 ffffffffffff1f00', 'offset plus size'],
])('reply %s is refused', (text, message) => {
  expectProtocolError(() => decodeRegionInfoReply(hex(text), { index: 2 }), COMMAND, message);
});

test('short requests are refused', () => {
  expectProtocolError(
    () => decodeRegionInfoRequest(hex('20000000')),
    COMMAND,
    'request: 4 bytes, at least 32',
  );
  expectProtocolError(() => decodeRegionInfoRequest(new Uint8Array(32)), COMMAND, 'argsz is 0, at least 32');
});

test('values that do not fit cannot be encoded', () => {
  const capabilities: RegionCapability[] = [{ kind: 'unknown', id: 65536, version: 1, data: hex('') }];
  expect(() => encodeRegionInfoReply({ ...SPARSE_INFO, capabilities }, 4096)).toThrow(RangeError);
  expect(() => encodeRegionInfoReply({ ...SPARSE_INFO, size: -1 }, 4096)).toThrow(RangeError);
  expect(() => encodeRegionInfoRequest({ index: -1 })).toThrow(RangeError);
});

test('every reply comes back', () => {
  const size = 2 ** 40;
  const area = fc.record({
    offset: fc.integer({ min: 0, max: size / 2 }),
    size: fc.integer({ min: 0, max: size / 2 }),
  });
  const capability: fc.Arbitrary<RegionCapability> = fc.oneof(
    fc.record({ kind: fc.constant('sparseMmap' as const), areas: fc.array(area, { maxLength: 6 }) }),
    fc.record({ kind: fc.constant('type' as const), type: anyU32, subtype: anyU32 }),
    fc.record({
      kind: fc.constant('unknown' as const),
      id: fc.integer({ min: 3, max: 65535 }),
      version: fc.nat({ max: 65535 }),
      data: fc.integer({ min: 0, max: 4 }).map((words) => new Uint8Array(words * 8).fill(7)),
    }),
  );
  fc.assert(
    fc.property(
      anyU32,
      fc.nat({ max: 7 }),
      fc.array(capability, { maxLength: 5 }),
      (index, flags, capabilities) => {
        const info = { index, flags, size, offset: 4096, capabilities };
        expect(decodeRegionInfoReply(encodeRegionInfoReply(info, 65536), { index })).toMatchObject({
          ...info,
          flags: capabilities.length > 0 ? flags | 8 : flags,
          complete: true,
        });
      },
    ),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeRegionInfoRequest);
  expectRobust((payload) => decodeRegionInfoReply(payload, { index: 2 }));
  // Any bytes where the capabilities are.
  expectRobust((payload) => {
    if (payload.byteLength < 32) return undefined;
    const view = new DataView(payload.buffer, payload.byteOffset);
    [32, 15, 2, 32, 0x8000, 0, 0, 0].forEach((word, i) => {
      view.setUint32(4 * i, word, true);
    });
    return decodeRegionInfoReply(payload, { index: 2 });
  });
});
