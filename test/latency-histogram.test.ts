// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import {
  bucketIndex,
  bucketValue,
  HISTOGRAM_BUCKETS,
  HISTOGRAM_SLOTS,
  LatencyHistogram,
} from '../lib/latency-histogram';

/** Group g > 0 holds 64 buckets of width 2^(g-1) and begins at 2^(g+5). Worked out by hand from fio's description of the layout. */
const LAYOUT = [
  { ns: 0, index: 0, value: 0 },
  { ns: 1.9, index: 1, value: 1 },
  { ns: 63, index: 63, value: 63 },
  { ns: 64, index: 64, value: 64 },
  { ns: 127, index: 127, value: 127 },
  // Group 2: width 2 from 128; bucket 128 holds 128 and 129.
  { ns: 128, index: 128, value: 129 },
  { ns: 129, index: 128, value: 129 },
  { ns: 130, index: 129, value: 131 },
  { ns: 255, index: 191, value: 255 },
  // Group 3: width 4 from 256.
  { ns: 256, index: 192, value: 258 },
  // Group 4: width 8 from 512; (1000 - 512) / 8 = 61, and 4 * 64 + 61 = 317.
  { ns: 1000, index: 317, value: 1004 },
  // Group 14: width 8192 from 524288; (1000000 - 524288) / 8192 = 58.07, and 14 * 64 + 58 = 954.
  { ns: 1_000_000, index: 954, value: 1_003_520 },
  // Group 25: width 2^24 from 2^30, up to 2^31; group 26: width 2^25 from there.
  { ns: 2 ** 31 - 2 ** 24 - 1, index: 1662, value: 2 ** 31 - 1.5 * 2 ** 24 },
  { ns: 2 ** 31 - 1, index: 1663, value: 2 ** 31 - 2 ** 23 },
  { ns: 2 ** 31 - 0.25, index: 1663, value: 2 ** 31 - 2 ** 23 },
  { ns: 2 ** 31, index: 1664, value: 2 ** 31 + 2 ** 24 },
  { ns: 2 ** 31 + 2 ** 25 - 0.25, index: 1664, value: 2 ** 31 + 2 ** 24 },
  { ns: 2 ** 31 + 2 ** 25, index: 1665, value: 2 ** 31 + 1.5 * 2 ** 25 },
  { ns: 2 ** 32 - 1, index: 1727, value: 2 ** 32 - 2 ** 24 },
  // Group 27: width 2^26 from 2^32; (5e9 - 2^32) / 2^26 = 10.5.
  { ns: 2 ** 32, index: 1728, value: 2 ** 32 + 2 ** 25 },
  { ns: 5e9, index: 1738, value: 2 ** 32 + 10.5 * 2 ** 26 },
  // Group 28, the last: width 2^27 from 2^33.
  { ns: 2 ** 33, index: 1792, value: 2 ** 33 + 2 ** 26 },
  { ns: 2 ** 33 - 0.5, index: 1791, value: 2 ** 33 - 2 ** 25 },
  { ns: 2 ** 34 - 1, index: 1855, value: 17_112_760_320 },
  { ns: 2 ** 34 - 0.5, index: 1855, value: 17_112_760_320 },
  { ns: 2 ** 34, index: 1855, value: 17_112_760_320 },
  { ns: 1e15, index: 1855, value: 17_112_760_320 },
  { ns: Infinity, index: 1855, value: 17_112_760_320 },
];

test.each(LAYOUT)('$ns ns is counted in bucket $index', ({ ns, index, value }) => {
  expect(bucketIndex(ns)).toBe(index);
  expect(bucketValue(index)).toBe(value);
});

test('a bucket is at most 1/64 of its values wide', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 34 - 1 }), (ns) => {
      const index = bucketIndex(ns);
      expect(index).toBeLessThan(HISTOGRAM_BUCKETS);
      expect(Math.abs(bucketValue(index) - ns)).toBeLessThanOrEqual(ns / 128);
      expect(bucketIndex(bucketValue(index))).toBe(index);
    }),
  );
});

test('an empty histogram has no statistics', () => {
  const histogram = new LatencyHistogram();
  expect([
    histogram.count,
    histogram.sum,
    histogram.min,
    histogram.max,
    histogram.mean,
    histogram.stddev,
  ]).toEqual([0, 0, 0, 0, 0, 0]);
  expect(histogram.percentile(50)).toBe(0);
  expect([...histogram.buckets()]).toEqual([]);
});

test('statistics are exact, not taken from the buckets', () => {
  const histogram = new LatencyHistogram();
  for (const ns of [2000, 4000, 4000, 4000, 5000, 5000, 7000, 9000]) histogram.record(ns);
  expect(histogram.count).toBe(8);
  expect(histogram.min).toBe(2000);
  expect(histogram.max).toBe(9000);
  expect(histogram.mean).toBe(5000);
  // Squared differences add up to 32e6; divided by 7.
  expect(histogram.stddev).toBeCloseTo(Math.sqrt(32e6 / 7), 6);
});

test('one sample has no deviation', () => {
  const histogram = new LatencyHistogram();
  histogram.record(777);
  expect(histogram.stddev).toBe(0);
  expect(histogram.percentile(0)).toBe(777);
  expect(histogram.percentile(100)).toBe(777);
});

test('a negative latency and NaN count as 0', () => {
  const histogram = new LatencyHistogram();
  histogram.record(-5);
  histogram.record(NaN);
  expect([...histogram.buckets()]).toEqual([{ value: 0, count: 2 }]);
  expect(histogram.sum).toBe(0);
});

test('counts above 2^32 do not wrap', () => {
  const histogram = new LatencyHistogram();
  histogram.recordMany(100, 2 ** 33);
  histogram.record(100);
  expect(histogram.count).toBe(2 ** 33 + 1);
  expect([...histogram.buckets()]).toEqual([{ value: 100, count: 2 ** 33 + 1 }]);
});

test('percentiles are those of the sorted samples, to half a bucket', () => {
  const percents = [0, 1, 25, 50, 90, 99, 99.9, 100];
  const latency = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 2 ** 34 - 1 }));
  fc.assert(
    fc.property(fc.array(latency, { minLength: 1, maxLength: 2000 }), (samples) => {
      const histogram = new LatencyHistogram();
      for (const ns of samples) histogram.record(ns);
      const sorted = [...samples].sort((a, b) => a - b);
      for (const percent of percents) {
        // In thousandths, so that the rank is computed in integers.
        const rank = Math.max(1, Math.ceil((Math.round(percent * 1000) * sorted.length) / 100_000));
        const exact = sorted[rank - 1] as number;
        expect(Math.abs(histogram.percentile(percent) - exact)).toBeLessThanOrEqual(exact / 128);
      }
    }),
  );
});

test('99.9 % of 1000 samples is the 999th', () => {
  const histogram = new LatencyHistogram();
  histogram.recordMany(10, 999);
  histogram.record(100);
  expect(histogram.percentile(99.9)).toBe(10);
  expect(histogram.percentile(99.91)).toBe(100);
});

test('a percentile outside 0 … 100 is refused', () => {
  const histogram = new LatencyHistogram();
  for (const percent of [-1, 100.1, NaN]) {
    expect(() => histogram.percentile(percent)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }),
    );
  }
});

test('merging equals recording into one', () => {
  const samples = fc.array(fc.integer({ min: 0, max: 1e9 }), { maxLength: 50 });
  fc.assert(
    fc.property(samples, samples, (first, second) => {
      const [a, b, both] = [new LatencyHistogram(), new LatencyHistogram(), new LatencyHistogram()];
      for (const ns of first) a.record(ns);
      for (const ns of second) b.record(ns);
      for (const ns of [...first, ...second]) both.record(ns);
      a.merge(b);
      expect([...a.buckets()]).toEqual([...both.buckets()]);
      expect([a.count, a.sum, a.min, a.max]).toEqual([both.count, both.sum, both.min, both.max]);
      expect(a.stddev).toBeCloseTo(both.stddev, 3);
    }),
  );
});

test('its data carries a histogram to another owner', () => {
  const data = new Float64Array(new SharedArrayBuffer(HISTOGRAM_SLOTS * 8 + 16), 16, HISTOGRAM_SLOTS);
  const worker = new LatencyHistogram(data);
  worker.record(1000);
  worker.record(3000);
  const main = new LatencyHistogram(data);
  expect(main.data).toBe(data);
  expect([main.count, main.min, main.max, main.mean]).toEqual([2, 1000, 3000, 2000]);
  const copy = new LatencyHistogram(structuredClone(new LatencyHistogram(data.slice()).data));
  main.reset();
  expect(worker.count).toBe(0);
  worker.record(5000);
  expect(worker.min).toBe(5000);
  expect([copy.count, copy.min, copy.max, copy.percentile(0)]).toEqual([2, 1000, 3000, 1004]);
});

test('data that is not that of a histogram is refused', () => {
  for (const length of [0, HISTOGRAM_SLOTS - 1, HISTOGRAM_SLOTS + 1])
    expect(() => new LatencyHistogram(new Float64Array(length))).toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }) as Error,
    );
});

test('latencies of an array are counted as if one by one, up to the count', () => {
  const latencies = Float64Array.of(700, 1, -5, 2 ** 33, 99);
  const one = new LatencyHistogram();
  for (const latency of latencies.subarray(0, 4)) one.record(latency);
  const all = new LatencyHistogram();
  all.recordAll(latencies, 4);
  expect(all.data).toEqual(one.data);
  all.recordAll(latencies, 0);
  expect(all.count).toBe(4);
});

test('the samples within limits, as a cumulative histogram has them', () => {
  const histogram = new LatencyHistogram();
  for (const ns of [0, 100, 100, 5000, 2 ** 40]) histogram.record(ns);
  expect(histogram.countsWithin([0, 99, 100, 4000, 6000, 2 ** 33])).toEqual([1, 1, 3, 3, 4, 4]);
  expect(histogram.countsWithin([])).toEqual([]);
  expect(new LatencyHistogram().countsWithin([1, 2])).toEqual([0, 0]);
});
