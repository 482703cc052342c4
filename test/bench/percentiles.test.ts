// SPDX-License-Identifier: MIT
import { FIO_PERCENTILES, parsePercentiles } from '../../lib/bench/percentiles';

test.each<[string, number[]]>([
  ['50', [50]],
  ['50,99,99.9', [50, 99, 99.9]],
  [' 99 , 50 ', [50, 99]],
  ['99.9,50,99.90,050', [50, 99.9]],
  ['0,100', [0, 100]],
  ['99.999999', [99.999999]],
  // As in fio's job files.
  ['50:99:99.99', [50, 99, 99.99]],
])('%j', (text, list) => {
  expect(parsePercentiles(text)).toEqual(list);
});

test.each(['', ',', '50,', 'p99', '-1', '100.1', '1e1', '101', '99.9999999', 'NaN', '0x10', '99%', '50;99'])(
  '%j is refused',
  (text) => {
    expect(() => parsePercentiles(text)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_ARG_VALUE',
        message: `'${text}' is not a list of percentiles; write numbers from 0 to 100 with at most 6 decimals, such as 50,99,99.9`,
      }) as Error,
    );
  },
);

test('those of fio are a list by the same rules', () => {
  expect(parsePercentiles(FIO_PERCENTILES.join(':'))).toEqual(FIO_PERCENTILES);
});
