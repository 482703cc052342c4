// SPDX-License-Identifier: MIT
import type { LatencyHistogram } from '../latency-histogram';

/** Latencies from `from` up to but not including `to`, in ns. */
export interface LatencyBin {
  readonly from: number;
  readonly to: number;
  /** Number of samples of each histogram, in the order in which they were given. */
  readonly counts: readonly number[];
}

/**
 * Numbers of bins of equal width into which a power of two is divided. Each bin is a union of buckets, so that every sample
 * is on the right side of its limits.
 */
const DIVISIONS = [16, 8, 4, 2, 1] as const;

/**
 * Gathers the buckets of histograms into bins for a reader, as narrow as their number allows. Limits are parts of powers of two.
 *
 * @param most largest number of bins; 35 always suffice
 * @returns bins without gaps, from the smallest sample to the largest; none without samples
 */
export function latencyBins(histograms: readonly LatencyHistogram[], most: number): LatencyBin[] {
  const choices = DIVISIONS.map((division) => gather(histograms, division));
  return choices.find((bins) => bins.length <= most) ?? choices.at(-1) ?? [];
}

function gather(histograms: readonly LatencyHistogram[], division: number): LatencyBin[] {
  const counts = histograms.map((histogram) => binCounts(histogram, division));
  const used = counts.flatMap((each) => [...each.keys()]);
  if (used.length === 0) return [];
  const first = Math.min(...used);
  return Array.from({ length: Math.max(...used) - first + 1 }, (_, index) => ({
    from: binStart(first + index, division),
    to: binStart(first + index + 1, division),
    counts: counts.map((each) => each.get(first + index) ?? 0),
  }));
}

/** Samples by number of bin. Bin 0 holds latencies below 1 ns; after it each power of two has `division` bins. */
function binCounts(histogram: LatencyHistogram, division: number): Map<number, number> {
  const counts = new Map<number, number>();
  for (const { value, count } of histogram.buckets()) {
    const exponent = Math.floor(Math.log2(value));
    const index =
      value < 1 ? 0 : 1 + exponent * division + Math.floor((value / 2 ** exponent - 1) * division);
    counts.set(index, (counts.get(index) ?? 0) + count);
  }
  return counts;
}

function binStart(index: number, division: number): number {
  if (index === 0) return 0;
  const exponent = Math.floor((index - 1) / division);
  return 2 ** exponent * (1 + ((index - 1) % division) / division);
}
