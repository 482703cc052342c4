// SPDX-License-Identifier: MIT
import type { Axis, Tick } from './html-report-chart';
import { formatLatency } from './units';

/** A latency with a space before its unit: `12.3 µs`. */
export function latencyText(ns: number): string {
  return spaced(formatLatency(ns).replace('us', 'µs'));
}

/** A number that has its unit at its end, with a space between that does not break: `20.5 MiB/s`. */
export function spaced(text: string): string {
  return text.replace(/^([\d.]+)(?=[^\d.])/, '$1\u00a0');
}

/** Where a share of the samples, 0 … 1, is on {@link ninesAxis}: 0 %, 90 %, 99 %, 99.9 % are equally far apart. */
export function nines(share: number): number {
  return -Math.log10(1 - share);
}

/** Percentiles up to the last one that differs from the maximum with `count` samples. */
export function ninesAxis(count: number): Axis {
  const to = Math.max(1, Math.log10(count));
  const ticks: Tick[] = [
    { at: 0, label: '0\u00a0%' },
    { at: nines(0.5), label: '50\u00a0%' },
    { at: 1, label: '90\u00a0%' },
  ];
  for (let at = 2; at <= to; at++)
    ticks.push({ at, label: `99${at > 2 ? `.${'9'.repeat(at - 2)}` : ''}\u00a0%` });
  return { from: 0, to, ticks, title: 'Percentile' };
}

/** Latencies on a logarithmic scale, at log10 of the nanoseconds, between limits of the form 1, 2 or 5 times a power of ten. */
export function latencyAxis(min: number, max: number): Axis {
  const steps = Array.from(
    { length: 36 },
    (_, index) => (([1, 2, 5] as const)[index % 3] ?? 1) * 10 ** Math.floor(index / 3),
  );
  const from = steps.findLast((step) => step <= min) ?? 1;
  const to = steps.find((step) => step >= max && step > from) ?? max;
  const decades = Math.log10(to / from) > 3;
  const ticks = steps
    .filter((step) => step >= from && step <= to && (!decades || String(step).startsWith('1')))
    .map((step) => ({ at: Math.log10(step), label: latencyText(step).replace(/\.0+(?=\D)/, '') }));
  return { from: Math.log10(from), to: Math.log10(to), ticks, title: 'Latency' };
}

/**
 * From 0 to `max` or a little more, with about five round numbers.
 *
 * @param base 1024 for numbers whose prefixes are binary, so that they are round in their unit
 */
export function linearAxis(
  max: number,
  title: string,
  label: (value: number) => string,
  base: 1000 | 1024 = 1000,
): Axis {
  const unit = max > 0 ? base ** Math.floor(Math.log(max) / Math.log(base)) : 1;
  const rough = max > 0 ? max / unit / 5 : 0.2;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5, 10].find((each) => each * power >= rough) ?? 10) * power;
  const count = Math.max(1, Math.ceil((max > 0 ? max / unit : 1) / step - 1e-9));
  const ticks = Array.from({ length: count + 1 }, (_, index) => {
    // Rounds off what binary fractions add, as in 3 * 0.1.
    const at = Number((index * step).toPrecision(12)) * unit;
    return { at, label: label(at) };
  });
  return { from: 0, to: ticks.at(-1)?.at ?? 1, ticks, title };
}
