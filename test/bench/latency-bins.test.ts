// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { latencyBins } from '../../lib/bench/latency-bins';
import { LatencyHistogram } from '../../lib/latency-histogram';

describe('bins for a reader', () => {
  function histogramOf(...samples: number[]): LatencyHistogram {
    const histogram = new LatencyHistogram();
    for (const ns of samples) histogram.record(ns);
    return histogram;
  }

  test('bins are as narrow as their number allows', () => {
    const histogram = histogramOf(1024, 2047);
    const widths = [16, 15, 8, 7, 4, 3, 2, 1].map((most) => latencyBins([histogram], most).length);
    expect(widths).toEqual([16, 8, 8, 4, 4, 2, 2, 1]);
    expect(latencyBins([histogram], 2)).toEqual([
      { from: 1024, to: 1536, counts: [1] },
      { from: 1536, to: 2048, counts: [1] },
    ]);
  });

  test('several histograms share the bins', () => {
    expect(latencyBins([histogramOf(300, 300), histogramOf(), histogramOf(600)], 2)).toEqual([
      { from: 256, to: 512, counts: [2, 0, 0] },
      { from: 512, to: 1024, counts: [0, 0, 1] },
    ]);
  });

  test('the whole range', () => {
    const bins = latencyBins([histogramOf(0, 17e9)], 35);
    expect(bins).toHaveLength(35);
    expect([bins[0], bins[34]]).toEqual([
      { from: 0, to: 1, counts: [1] },
      { from: 2 ** 33, to: 2 ** 34, counts: [1] },
    ]);
  });

  test('no samples, no bins', () => {
    expect(latencyBins([], 100)).toEqual([]);
    expect(latencyBins([histogramOf()], 100)).toEqual([]);
  });

  test('every sample is counted within the limits of its bin', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 2 ** 34 - 1 }), { minLength: 1, maxLength: 20 }),
        fc.integer({ min: 35, max: 200 }),
        (samples, most) => {
          const bins = latencyBins([histogramOf(...samples)], most);
          expect(bins.length).toBeLessThanOrEqual(most);
          expect(bins.reduce((sum, { counts }) => sum + (counts[0] ?? 0), 0)).toBe(samples.length);
          expect(bins.map(({ counts }) => counts[0])).toEqual(
            bins.map(({ from, to }) => samples.filter((ns) => ns >= from && ns < to).length),
          );
          bins.slice(1).forEach(({ from }, index) => {
            expect(from).toBe(bins[index]?.to);
          });
        },
      ),
    );
  });
});
