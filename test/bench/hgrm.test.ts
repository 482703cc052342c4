// SPDX-License-Identifier: MIT
import { formatHgrm } from '../../lib/bench/hgrm';
import { LatencyHistogram } from '../../lib/latency-histogram';

function histogramOf(samples: readonly (readonly [ns: number, count: number])[]): LatencyHistogram {
  const histogram = new LatencyHistogram();
  for (const [ns, count] of samples) histogram.recordMany(ns, count);
  return histogram;
}

// Printed by hdr-histogram-js 3.0.1 for the same samples: outputPercentileDistribution(5, 1000) of a histogram with three
// significant digits. Below 128 ns our buckets are as exact as its own. The last line tells about the buckets; it is ours.
const GOLDEN = `       Value     Percentile TotalCount 1/(1-Percentile)

       0.020 0.000000000000       1000           1.00
       0.020 0.100000000000       1000           1.11
       0.020 0.200000000000       1000           1.25
       0.020 0.300000000000       1000           1.43
       0.020 0.400000000000       1000           1.67
       0.020 0.500000000000       1000           2.00
       0.021 0.550000000000       1700           2.22
       0.021 0.600000000000       1700           2.50
       0.021 0.650000000000       1700           2.86
       0.021 0.700000000000       1700           3.33
       0.021 0.750000000000       1700           4.00
       0.021 0.775000000000       1700           4.44
       0.021 0.800000000000       1700           5.00
       0.021 0.825000000000       1700           5.71
       0.021 0.850000000000       1700           6.67
       0.030 0.875000000000       1900           8.00
       0.030 0.887500000000       1900           8.89
       0.030 0.900000000000       1900          10.00
       0.030 0.912500000000       1900          11.43
       0.030 0.925000000000       1900          13.33
       0.030 0.937500000000       1900          16.00
       0.030 0.943750000000       1900          17.78
       0.030 0.950000000000       1900          20.00
       0.064 0.956250000000       1980          22.86
       0.064 0.962500000000       1980          26.67
       0.064 0.968750000000       1980          32.00
       0.064 0.971875000000       1980          35.56
       0.064 0.975000000000       1980          40.00
       0.064 0.978125000000       1980          45.71
       0.064 0.981250000000       1980          53.33
       0.064 0.984375000000       1980          64.00
       0.064 0.985937500000       1980          71.11
       0.064 0.987500000000       1980          80.00
       0.064 0.989062500000       1980          91.43
       0.100 0.990625000000       1995         106.67
       0.100 0.992187500000       1995         128.00
       0.100 0.992968750000       1995         142.22
       0.100 0.993750000000       1995         160.00
       0.100 0.994531250000       1995         182.86
       0.100 0.995312500000       1995         213.33
       0.100 0.996093750000       1995         256.00
       0.100 0.996484375000       1995         284.44
       0.100 0.996875000000       1995         320.00
       0.100 0.997265625000       1995         365.71
       0.127 0.997656250000       2000         426.67
       0.127 1.000000000000       2000
#[Mean    =        0.024, StdDeviation   =        0.012]
#[Max     =        0.127, Total count    =         2000]
#[Buckets =           29, SubBuckets     =           64]
`;

test('the text is that of HdrHistogram', () => {
  const histogram = histogramOf([
    [20, 1000],
    [21, 700],
    [30, 200],
    [64, 80],
    [100, 15],
    [127, 5],
  ]);
  expect(formatHgrm(histogram)).toBe(GOLDEN);
});

test('values are in microseconds, those of their buckets and never beyond the extremes', () => {
  // 5000 ns: group 7, width 64, 4992 … 5055, middle 5024. 2.99 ms is below the middle of its bucket, 2998272 ns.
  const text = formatHgrm(
    histogramOf([
      [5000, 99],
      [2_990_000, 1],
    ]),
  );
  const rows = text.split('\n').slice(2, -4);
  expect(rows[0]).toBe('       5.024 0.000000000000         99           1.00');
  expect(rows.slice(-2)).toEqual([
    '    2990.000 0.990625000000        100         106.67',
    '    2990.000 1.000000000000        100',
  ]);
  expect(text).toContain('\n#[Mean    =       34.850, ');
  expect(text).toContain('\n#[Max     =     2990.000, Total count    =          100]\n');
});

test('one sample', () => {
  expect(
    formatHgrm(histogramOf([[1234, 1]]))
      .split('\n')
      .slice(2, -3),
  ).toEqual([
    '       1.234 0.000000000000          1           1.00',
    '       1.234 1.000000000000          1',
    '#[Mean    =        1.234, StdDeviation   =        0.000]',
  ]);
});

test('no sample: a head and a foot', () => {
  expect(formatHgrm(new LatencyHistogram()).split('\n').slice(1)).toEqual([
    '',
    '#[Mean    =        0.000, StdDeviation   =        0.000]',
    '#[Max     =        0.000, Total count    =            0]',
    '#[Buckets =           29, SubBuckets     =           64]',
    '',
  ]);
});

test('the rows lead to the plotter of HdrHistogram', () => {
  // plotFiles.html takes the lines of four words that do not begin with #, and draws the first over the fourth.
  const rows = formatHgrm(
    histogramOf([
      [100, 10 ** 9],
      [1e9, 1],
    ]),
  )
    .split('\n')
    .map((line) => line.trim().split(/ +/))
    .filter((words) => words.length === 4 && !words[0]?.startsWith('#') && words[0] !== 'Value');
  const axis = rows.map((words) => Number(words[3]));
  // Five steps for each halving, up to the sample that is one of 10^9: between 2^29 and 2^30.
  expect(rows.length).toBeGreaterThan(145);
  expect(rows.length).toBeLessThan(155);
  expect(axis).toEqual([...axis].sort((a, b) => a - b));
  expect(Number(rows.at(-1)?.[0])).toBe(1e6);
});
