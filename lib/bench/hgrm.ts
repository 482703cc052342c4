// SPDX-License-Identifier: MIT
import { HISTOGRAM_BUCKETS, type LatencyHistogram } from '../latency-histogram';

const TICKS_PER_HALF_DISTANCE = 5;
const GROUPS = 29;
const NS_PER_US = 1000;

/**
 * A percentile distribution in the text format of HdrHistogram (`.hgrm`, `AbstractHistogram.outputPercentileDistribution`), which
 * HdrHistogram's plotter and many others read. Values are in microseconds.
 *
 * There are five lines for each half of the distance to 100 %, which is HdrHistogram's default. A value is the middle of its
 * bucket (see {@link LatencyHistogram}), so that it agrees with the other reports. HdrHistogram's own writers give the upper
 * end.
 */
export function formatHgrm(histogram: LatencyHistogram): string {
  const { count } = histogram;
  const footer = (name: string, value: string, other: string, text: string): string =>
    `#[${name.padEnd(7)} = ${value.padStart(12)}, ${other.padEnd(14)} = ${text.padStart(12)}]`;
  return [
    `${'Value'.padStart(12)} ${'Percentile'.padStart(14)} ${'TotalCount'.padStart(10)} ${'1/(1-Percentile)'.padStart(14)}`,
    '',
    ...rows(histogram),
    footer('Mean', microseconds(histogram.mean), 'StdDeviation', microseconds(histogram.stddev)),
    footer('Max', microseconds(histogram.max), 'Total count', String(count)),
    footer('Buckets', String(GROUPS), 'SubBuckets', String(HISTOGRAM_BUCKETS / GROUPS)),
    '',
  ].join('\n');
}

function rows(histogram: LatencyHistogram): string[] {
  const { count, min, max } = histogram;
  const lines: string[] = [];
  let seen = 0;
  let tick = 0;
  for (const bucket of histogram.buckets()) {
    seen += bucket.count;
    const value = Math.min(max, Math.max(min, bucket.value));
    // Once all samples are counted, only the line of 100 % is left.
    do {
      const share = tickShare(tick);
      if (seen / count < share) break;
      lines.push(`${line(value, share, seen)} ${(1 / (1 - share)).toFixed(2).padStart(14)}`);
      tick++;
    } while (seen < count);
  }
  if (count > 0) lines.push(line(max, 1, count));
  return lines;
}

/** 0, 0.1 … 0.4, 0.5, 0.55 … 0.7, 0.75, 0.775 …: equal steps up to half of the distance to 1, then half as wide. */
function tickShare(tick: number): number {
  const distance = 2 ** -Math.floor(tick / TICKS_PER_HALF_DISTANCE);
  return 1 - distance * (1 - (tick % TICKS_PER_HALF_DISTANCE) / (2 * TICKS_PER_HALF_DISTANCE));
}

function line(ns: number, share: number, seen: number): string {
  return `${microseconds(ns).padStart(12)} ${share.toFixed(12)} ${String(seen).padStart(10)}`;
}

function microseconds(ns: number): string {
  return (ns / NS_PER_US).toFixed(3);
}
