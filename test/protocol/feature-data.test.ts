// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  MigrationState,
  decodeDmaLoggingControl,
  decodeDmaLoggingQuery,
  decodeDmaLoggingReport,
  decodeMigrationFeature,
  decodeMigrationState,
  dirtyBitmapSize,
  encodeDmaLoggingControl,
  encodeDmaLoggingQuery,
  encodeDmaLoggingReport,
  encodeMigrationFeature,
  encodeMigrationState,
  fitsU64,
} from '../../lib/protocol';
import { anyU64, expectProtocolError, expectRobust, hex, plain, toHex } from './support';

// vfio-user, VFIO_DEVICE_FEATURE_MIGRATION: flags 8.
test('MIGRATION', () => {
  expect(toHex(encodeMigrationFeature(5))).toBe('0500000000000000');
  expect(decodeMigrationFeature(hex('0500000000000000'))).toBe(5);
  expectProtocolError(() => decodeMigrationFeature(hex('05')), 'DEVICE_FEATURE', '1 bytes, at least 8');
  expectProtocolError(() => decodeMigrationFeature(hex('0000000000000080')), 'DEVICE_FEATURE', 'flags');
});

// vfio-user, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: device_state 4, data_fd 4.
test('MIG_DEVICE_STATE', () => {
  expect(toHex(encodeMigrationState(MigrationState.stopCopy))).toBe('0300000000000000');
  expect(
    [0, 1, 2, 3, 4, 5, 6, 7].map((state) => decodeMigrationState(hex(`0${state}000000 ffffffff`))),
  ).toEqual(Object.values(MigrationState));
  expectProtocolError(
    () => decodeMigrationState(hex('0800000000000000')),
    'DEVICE_FEATURE',
    'device state 8 does not exist',
  );
  expectProtocolError(() => decodeMigrationState(hex('03000000')), 'DEVICE_FEATURE', '4 bytes, at least 8');
});

// vfio-user, VFIO_DEVICE_FEATURE_DMA_LOGGING_START: page_size 8, num_ranges 4, reserved 4, then iova 8, length 8 each.
const CONTROL =
  '0010000000000000 02000000 00000000 0000000001000000 0000200000000000 00f0ffffffffffff 0010000000000000';

test('DMA_LOGGING_START', () => {
  const control = {
    pageSize: 4096,
    ranges: [
      { iova: 0x1_0000_0000, length: 0x20_0000 },
      { iova: 0xffff_ffff_ffff_f000n, length: 4096 },
    ],
  };
  expect(toHex(encodeDmaLoggingControl(control))).toBe(plain(CONTROL));
  expect(decodeDmaLoggingControl(hex(CONTROL))).toEqual(control);
});

test.each([
  ['0010000000000000', '8 bytes, at least 16'],
  ['0010000000000000 01000000 00000000 00000000', '20 bytes, at least 32'],
  ['0010000000000000 ffffffff 00000000', 'at least'],
  ['0000000000000080 00000000 00000000', 'page size'],
  ['0010000000000000 01000000 00000000 00f0ffffffffffff 0110000000000000', 'above 2^64'],
])('DMA_LOGGING_START data %s is refused', (text, message) => {
  expectProtocolError(() => decodeDmaLoggingControl(hex(text)), 'DEVICE_FEATURE', message);
});

// vfio-user, VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: iova 8, length 8, page_size 8, bitmap.
const QUERY = '0000000001000000 0000200000000000 0000010000000000';
const ASKED = { iova: 0x1_0000_0000, length: 0x20_0000, pageSize: 0x1_0000 };

test('DMA_LOGGING_REPORT', () => {
  expect(toHex(encodeDmaLoggingQuery(ASKED))).toBe(plain(QUERY));
  expect(decodeDmaLoggingQuery(hex(QUERY))).toEqual(ASKED);
  const report = `${QUERY} 0100008000000000`;
  expect(toHex(encodeDmaLoggingReport(ASKED, hex('0100008000000000')))).toBe(plain(report));
  expect(decodeDmaLoggingReport(hex(`${report} ffff`), ASKED)).toEqual(hex('0100008000000000'));
});

test('DMA_LOGGING_REPORT data that is wrong is refused', () => {
  const query = (text: string) => () => decodeDmaLoggingQuery(hex(text));
  const report = (text: string) => () => decodeDmaLoggingReport(hex(text), ASKED);
  expectProtocolError(query('00'), 'DEVICE_FEATURE', '1 bytes, at least 24');
  expectProtocolError(
    query('0000000001000000 0000200000000000 0000000000000000'),
    'DEVICE_FEATURE',
    'page size is 0',
  );
  expectProtocolError(
    query('0000000001000000 0000200000000000 0030000000000000'),
    'DEVICE_FEATURE',
    'page size is 12288',
  );
  expectProtocolError(
    query('00f0ffffffffffff 0110000000000000 0010000000000000'),
    'DEVICE_FEATURE',
    'above 2^64',
  );
  expectProtocolError(report(QUERY), 'DEVICE_FEATURE', '24 bytes, at least 32');
  expectProtocolError(
    report('0000000001000000 0000200000000000 0010000000000000'),
    'DEVICE_FEATURE',
    'repeat',
  );
  expectProtocolError(
    report('0000000002000000 0000200000000000 0000010000000000'),
    'DEVICE_FEATURE',
    'repeat',
  );
});

test('the bitmap has whole 64-bit words', () => {
  expect([0, 1, 64 * 4096, 64 * 4096 + 1].map((length) => dirtyBitmapSize(length, 4096))).toEqual([
    0, 8, 8, 16,
  ]);
  expect(dirtyBitmapSize(1n << 63n, 2 ** 50)).toBe(1024);
  expect(() => dirtyBitmapSize(1, 3)).toThrow(TypeError);
  expect(() => encodeDmaLoggingQuery({ ...ASKED, pageSize: 0 })).toThrow(TypeError);
  expect(() => encodeDmaLoggingReport(ASKED, new Uint8Array(7))).toThrow(TypeError);
});

test('everything comes back', () => {
  const range = fc
    .record({ iova: anyU64, length: anyU64 })
    .filter(({ iova, length }) => fitsU64(iova, length));
  fc.assert(
    fc.property(fc.array(range, { maxLength: 5 }), range, fc.nat({ max: 52 }), (ranges, one, shift) => {
      const control = { pageSize: 2 ** shift, ranges };
      expect(decodeDmaLoggingControl(encodeDmaLoggingControl(control))).toEqual(control);
      const query = { ...one, pageSize: 2 ** shift };
      expect(decodeDmaLoggingQuery(encodeDmaLoggingQuery(query))).toEqual(query);
    }),
  );
});

test('any bytes are survived', () => {
  expectRobust(decodeMigrationFeature);
  expectRobust(decodeMigrationState);
  expectRobust(decodeDmaLoggingControl);
  expectRobust(decodeDmaLoggingQuery);
  expectRobust((data) => decodeDmaLoggingReport(data, { iova: 0, length: 64, pageSize: 1 }));
});
