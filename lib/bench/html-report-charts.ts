// SPDX-License-Identifier: MIT
import type { Chart, ChartSeries } from './html-report-chart';
import { latencyAxis, latencyText, linearAxis, nines, ninesAxis, spaced } from './html-report-axes';
import { latencyBins } from './latency-bins';
import { bandwidth, iops, type DirectionResult } from './results';
import { formatBandwidth, formatCount } from './units';

/** What the charts compare: the directions of a run, or its endpoints. Each with at least one I/O. */
export interface NamedResult {
  readonly name: string;
  readonly result: DirectionResult;
}

const MARKED = [50, 90, 99, 99.9, 99.99] as const;
/** Bars of a histogram, and steps of a course over time, that can be told apart on a screen. */
const MOST_BARS = 280;
const MOST_STEPS = 300;

/** Latency by percentile: what shows the tail. */
export function percentileChart(results: readonly NamedResult[]): Chart {
  const counts = results.map(({ result }) => result.latency.count);
  return {
    id: 'percentiles',
    title: 'Latency by percentile',
    description: results
      .map(({ name, result: { latency } }) => {
        const at = (percent: number): string =>
          `${String(percent)} % within ${latencyText(latency.percentile(percent))}`;
        return `${name}: ${[50, 99, 99.9].map(at).join(', ')}, the slowest ${latencyText(latency.max)}.`;
      })
      .join(' '),
    x: ninesAxis(Math.max(...counts)),
    y: latencyRange(results),
    series: results.map(percentileSeries),
  };
}

function percentileSeries({ name, result: { latency } }: NamedResult): ChartSeries {
  const { count, min, max } = latency;
  let seen = 0;
  const points = Array.from(latency.buckets(), (bucket) => {
    seen += bucket.count;
    const value = Math.min(max, Math.max(min, bucket.value));
    // All samples would be infinitely far away; the last of them ends where the resolution does.
    return {
      x: Math.min(nines(seen / count), Math.max(1, Math.log10(count))),
      y: Math.log10(Math.max(1, value)),
    };
  });
  const marks = MARKED.filter((percent) => nines(percent / 100) <= Math.log10(count)).map((percent) => {
    const value = latency.percentile(percent);
    return {
      x: nines(percent / 100),
      y: Math.log10(Math.max(1, value)),
      label: `${name}, ${String(percent)} %: ${latencyText(value)}`,
    };
  });
  return { name, shape: 'steps', points, marks };
}

/** How often which latency was. */
export function histogramChart(results: readonly NamedResult[]): Chart {
  const histograms = results.map(({ result }) => result.latency);
  const bins = latencyBins(histograms, MOST_BARS);
  const log = (ns: number): number => Math.log10(Math.max(1, ns));
  const series = results.map(({ name, result: { latency } }, index): ChartSeries => {
    const points = bins.map(({ from, to, counts }) => {
      const ios = counts[index] ?? 0;
      const share = (ios * 100) / latency.count;
      return {
        x: log(from),
        width: log(to) - log(from),
        y: share,
        label: `${name}, ${latencyText(from)} to ${latencyText(to)}: ${String(ios)} I/Os, ${share.toPrecision(3)} %`,
      };
    });
    return { name, shape: 'bars', points };
  });
  const highest = Math.max(...series.flatMap(({ points }) => points.map(({ y }) => y)));
  return {
    id: 'histogram',
    title: 'Latency distribution',
    description: results
      .map(
        ({ name, result: { latency } }) =>
          `${name}: ${String(latency.count)} I/Os from ${latencyText(latency.min)} to ${latencyText(latency.max)}, ${latencyText(latency.mean)} on average.`,
      )
      .join(' '),
    x: latencyAxis(bins[0]?.from ?? 1, bins.at(-1)?.to ?? 10),
    y: linearAxis(highest, 'Share of I/Os', (value) => `${String(value)}\u00a0%`),
    series,
  };
}

/** I/Os per second in the course of the run. */
export function iopsChart(results: readonly NamedResult[], intervalMs: number): Chart {
  return courseChart('iops', 'IOPS over time', results, intervalMs, 1000, {
    samples: ({ iopsSamples }) => iopsSamples,
    mean: iops,
    text: (value) => formatCount(Math.round(value)),
  });
}

/** Bytes per second in the course of the run. */
export function bandwidthChart(results: readonly NamedResult[], intervalMs: number): Chart {
  return courseChart('bandwidth', 'Bandwidth over time', results, intervalMs, 1024, {
    samples: ({ bandwidthSamples }) => bandwidthSamples,
    mean: bandwidth,
    text: (value) => spaced(formatBandwidth(Math.round(value))),
  });
}

interface Measure {
  readonly samples: (result: DirectionResult) => readonly number[];
  readonly mean: (result: DirectionResult) => number;
  readonly text: (value: number) => string;
}

function courseChart(
  id: string,
  title: string,
  results: readonly NamedResult[],
  intervalMs: number,
  base: 1000 | 1024,
  { samples, mean, text }: Measure,
): Chart {
  const length = Math.max(...results.map(({ result }) => samples(result).length));
  const together = Math.ceil(length / MOST_STEPS);
  const series = results.map(({ name, result }): ChartSeries => {
    const all = samples(result);
    const points = Array.from({ length: Math.ceil(all.length / together) }, (_, index) => {
      const group = all.slice(index * together, (index + 1) * together);
      return {
        x: (Math.min(all.length, (index + 1) * together) * intervalMs) / 1000,
        y: group.reduce((sum, each) => sum + each, 0) / group.length,
      };
    });
    return { name, shape: 'steps', points };
  });
  const highest = Math.max(...series.flatMap(({ points }) => points.map(({ y }) => y)));
  const seconds = (length * intervalMs) / 1000;
  const time = linearAxis(seconds, 'Seconds', String);
  return {
    id,
    title,
    description: results
      .map(({ name, result }) => {
        const all = samples(result);
        const [low, high] = [
          all.reduce((a, b) => Math.min(a, b), Infinity),
          all.reduce((a, b) => Math.max(a, b), 0),
        ];
        return `${name}: ${text(mean(result))} on average, from ${text(low)} to ${text(high)} in intervals of ${String(intervalMs)} ms.`;
      })
      .join(' '),
    x: { ...time, to: seconds, ticks: time.ticks.filter(({ at }) => at <= seconds) },
    y: linearAxis(highest, title, (value) => tickText(text(value)), base),
    series,
  };
}

/** Round numbers need no decimals: `1.50M`, `200 MiB/s`. */
function tickText(text: string): string {
  return text.replace(/(\.\d*?)0+(?=\D|$)/, '$1').replace(/\.(?=\D|$)/, '');
}

function latencyRange(results: readonly NamedResult[]): Chart['y'] {
  return latencyAxis(
    Math.min(...results.map(({ result }) => result.latency.min)),
    Math.max(...results.map(({ result }) => result.latency.max)),
  );
}
