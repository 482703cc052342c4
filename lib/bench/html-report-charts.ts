// SPDX-License-Identifier: MIT
import type { Chart, ChartSeries } from './html-report-chart';
import { latencyAxis, latencyText, linearAxis, nines, ninesAxis, spaced } from './html-report-axes';
import { latencyBins } from './latency-bins';
import { bandwidth, iops, latencyOf, type DirectionResult } from './job-result';
import { formatBandwidth, formatCount } from './units';

/** What the charts compare: the directions of a run, or its endpoints. Each has at least one I/O. */
export interface NamedResult {
  readonly name: string;
  readonly result: DirectionResult;
}

const MARKED = [50, 90, 99, 99.9, 99.99] as const;
/** Most bars of a histogram, and most steps of a chart over time, that can be told apart on a screen. */
const MOST_BARS = 280;
const MOST_STEPS = 300;
/** Most steps whose value is marked, to be read with the mouse. */
const MOST_MARKS = 60;

/** Latency by percentile, which shows the tail. */
export function percentileChart(results: readonly NamedResult[]): Chart {
  const counts = results.map(({ result }) => result.ios);
  return {
    id: 'percentiles',
    title: 'Latency by percentile',
    description: results
      .map(({ name, result }) => {
        const latency = latencyOf(result);
        const at = (percent: number): string =>
          `${percent} % within ${latencyText(latency.percentile(percent))}`;
        return `${name}: ${[50, 99, 99.9].map(at).join(', ')}, the slowest ${latencyText(latency.max)}.`;
      })
      .join(' '),
    x: ninesAxis(Math.max(...counts)),
    y: latencyRange(results),
    series: results.map(percentileSeries),
  };
}

function percentileSeries({ name, result }: NamedResult): ChartSeries {
  const latency = latencyOf(result);
  const { count, min, max } = latency;
  let seen = 0;
  const points = Array.from(latency.buckets(), (bucket) => {
    seen += bucket.count;
    const value = Math.min(max, Math.max(min, bucket.value));
    // 100 % would be infinitely far away; the last sample is drawn where the resolution ends.
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
      label: `${name}, ${percent} %: ${latencyText(value)}`,
    };
  });
  return { name, shape: 'steps', points, marks };
}

/** How often each latency occurred. */
export function histogramChart(results: readonly NamedResult[]): Chart {
  const histograms = results.map(({ result }) => latencyOf(result));
  const bins = latencyBins(histograms, MOST_BARS);
  const log = (ns: number): number => Math.log10(Math.max(1, ns));
  const series = results.map(({ name, result }, index): ChartSeries => {
    const points = bins.map(({ from, to, counts }) => {
      const ios = counts[index] ?? 0;
      const share = (ios * 100) / result.ios;
      return {
        x: log(from),
        width: log(to) - log(from),
        y: share,
        label: `${name}, ${latencyText(from)} to ${latencyText(to)}: ${ios} I/Os, ${share.toPrecision(3)} %`,
      };
    });
    return { name, shape: 'bars', points };
  });
  const highest = Math.max(...series.flatMap(({ points }) => points.map(({ y }) => y)));
  return {
    id: 'histogram',
    title: 'Latency distribution',
    description: results
      .map(({ name, result }) => {
        const { count, min, max, mean } = latencyOf(result);
        return `${name}: ${count} I/Os from ${latencyText(min)} to ${latencyText(max)}, ${latencyText(mean)} on average.`;
      })
      .join(' '),
    x: latencyAxis(bins[0]?.from ?? 1, bins.at(-1)?.to ?? 10),
    y: linearAxis(highest, 'Share of I/Os', (value) => `${value}\u00a0%`),
    series,
  };
}

/** I/Os per second over time. */
export function iopsChart(results: readonly NamedResult[], sampleMs: number): Chart {
  return timeChart('iops', 'IOPS over time', results, sampleMs, 1000, {
    samples: ({ samples }) => samples.iops,
    mean: iops,
    text: (value) => formatCount(Math.round(value)),
  });
}

/** Bytes per second over time. */
export function bandwidthChart(results: readonly NamedResult[], sampleMs: number): Chart {
  return timeChart('bandwidth', 'Bandwidth over time', results, sampleMs, 1024, {
    samples: ({ samples }) => samples.bandwidth,
    mean: bandwidth,
    text: (value) => spaced(formatBandwidth(Math.round(value))),
  });
}

/** Mean latency over time. */
export function latencyChart(results: readonly NamedResult[], sampleMs: number): Chart {
  return timeChart('latency-time', 'Mean latency over time', results, sampleMs, 1000, {
    samples: ({ samples }) => samples.meanLatency,
    mean: (result) => latencyOf(result).mean,
    text: latencyText,
  });
}

interface Measure {
  readonly samples: (result: DirectionResult) => readonly number[];
  readonly mean: (result: DirectionResult) => number;
  readonly text: (value: number) => string;
}

function timeChart(
  id: string,
  title: string,
  results: readonly NamedResult[],
  sampleMs: number,
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
        x: (Math.min(all.length, (index + 1) * together) * sampleMs) / 1000,
        y: group.reduce((sum, each) => sum + each, 0) / group.length,
      };
    });
    const marks = points.map(({ x, y }) => ({ x, y, label: `${name}, up to ${x} s: ${text(y)}` }));
    return { name, shape: 'steps', points, marks: marks.length > MOST_MARKS ? [] : marks };
  });
  const highest = Math.max(...series.flatMap(({ points }) => points.map(({ y }) => y)));
  const seconds = (length * sampleMs) / 1000;
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
        return `${name}: ${text(mean(result))} on average, from ${text(low)} to ${text(high)} in intervals of ${sampleMs} ms.`;
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
    Math.min(...results.map(({ result }) => latencyOf(result).min)),
    Math.max(...results.map(({ result }) => latencyOf(result).max)),
  );
}
