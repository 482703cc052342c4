// SPDX-License-Identifier: MIT
import {
  FIO_PERCENTILES,
  formatBandwidth,
  formatCount,
  formatLatency,
  formatSize,
  parseCount,
  parseDuration,
  parsePercentiles,
  parseSize,
} from '../../lib/bench/units';

const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' });

test.each([
  ['0', 0],
  ['512', 512],
  ['512b', 512],
  ['4k', 4096],
  ['4K', 4096],
  ['4kb', 4096],
  ['4KiB', 4096],
  ['1.5k', 1536],
  [' 1m ', 1_048_576],
  ['1g', 1_073_741_824],
  ['1t', 1_099_511_627_776],
  ['1p', 2 ** 50],
  ['9007199254740991', 2 ** 53 - 1],
])('parseSize(%j) is %d bytes', (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test.each([
  '',
  'k',
  '4x',
  '-4k',
  '4 k',
  '4kk',
  '1.5',
  '0.3k',
  '8p8',
  '0x10',
  '1e3',
  '9p',
  '9007199254740992',
  '4ib',
])('parseSize(%j) is refused', (text) => {
  expect(() => parseSize(text)).toThrow(invalid);
  expect(() => parseSize(text)).toThrow(`'${text}' is not a size`);
});

test.each([
  ['0', 0],
  ['32', 32],
  ['1k', 1000],
  ['1.1k', 1100],
  ['2.5M', 2_500_000],
  ['1g', 1e9],
])('parseCount(%j) is %d', (text, count) => {
  expect(parseCount(text)).toBe(count);
});

test.each(['', 'k', '1.5', '1.0005k', '-1', '1ki', '1e3', '10000t'])('parseCount(%j) is refused', (text) => {
  expect(() => parseCount(text)).toThrow(invalid);
  expect(() => parseCount(text)).toThrow(/is not a count; write a whole number/);
});

test.each([
  ['5', 5],
  ['5s', 5],
  ['0.5', 0.5],
  ['2m', 120],
  ['500ms', 0.5],
  ['1h', 3600],
  ['1d', 86_400],
])('parseDuration(%j) is %d s', (text, seconds) => {
  expect(parseDuration(text)).toBe(seconds);
});

test('parseDuration knows microseconds', () => {
  expect(parseDuration('100us')).toBeCloseTo(1e-4, 12);
});

test.each(['', 's', '5x', '-5', '1m30s', '5 s', '9'.repeat(400)])('parseDuration(%j) is refused', (text) => {
  expect(() => parseDuration(text)).toThrow(invalid);
  expect(() => parseDuration(text)).toThrow(/is not a duration; write a number/);
});

test.each([
  [0, '0'],
  [82, '82'],
  [0.5, '0.50'],
  [999, '999'],
  [999.6, '1.00k'],
  [1000, '1.00k'],
  [45_600, '45.6k'],
  [99_960, '100k'],
  [999_499, '999k'],
  [999_500, '1.00M'],
  [1_230_000, '1.23M'],
  [2e19, '20000P'],
])('formatCount(%d) is %j', (value, text) => {
  expect(formatCount(value)).toBe(text);
});

test.each([
  [512, '512B'],
  [1023, '1023B'],
  [4096, '4.00KiB'],
  [21_495_808, '20.5MiB'],
  [1_048_575, '1.00MiB'],
  [2 ** 40, '1.00TiB'],
])('formatSize(%d) is %j', (value, text) => {
  expect(formatSize(value)).toBe(text);
});

test('formatBandwidth adds the second', () => {
  expect(formatBandwidth(21_495_808)).toBe('20.5MiB/s');
});

test.each([
  [850, '850ns'],
  [999.9, '1.00us'],
  [12_345, '12.3us'],
  [4_560_000, '4.56ms'],
  [1.2e9, '1.20s'],
  [5e12, '5000s'],
])('formatLatency(%d) is %j', (value, text) => {
  expect(formatLatency(value)).toBe(text);
});

test.each<[string, number[]]>([
  ['50', [50]],
  ['50,99,99.9', [50, 99, 99.9]],
  [' 99 , 50 ', [50, 99]],
  ['99.9,50,99.90,050', [50, 99.9]],
  ['0,100', [0, 100]],
  ['99.999999', [99.999999]],
  // As in fio's job files.
  ['50:99:99.99', [50, 99, 99.99]],
])('parsePercentiles(%j)', (text, list) => {
  expect(parsePercentiles(text)).toEqual(list);
});

test.each(['', ',', '50,', 'p99', '-1', '100.1', '1e1', '101', '99.9999999', 'NaN', '0x10', '99%', '50;99'])(
  'parsePercentiles(%j) is refused',
  (text) => {
    expect(() => parsePercentiles(text)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_ARG_VALUE',
        message: `'${text}' is not a list of percentiles; write numbers from 0 to 100 with at most 6 decimals, such as 50,99,99.9`,
      }) as Error,
    );
  },
);

test("fio's percentiles are a list by the same rules", () => {
  expect(parsePercentiles(FIO_PERCENTILES.join(':'))).toEqual(FIO_PERCENTILES);
});
