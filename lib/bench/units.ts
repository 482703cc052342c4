// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';

const SIZE_EXPONENT: Readonly<Record<string, number>> = { '': 0, k: 1, m: 2, g: 3, t: 4, p: 5 };
const SECONDS: Readonly<Record<string, number>> = {
  us: 1e-6,
  ms: 1e-3,
  s: 1,
  m: 60,
  h: 3600,
  d: 86_400,
};

/**
 * A size in bytes: `512`, `4k`, `4KiB`, `1.5m`, `1g`, `1t`, in any case of letters.
 * k is 1024, as in fio's job files, whether or not `b` or `ib` follows.
 *
 * @returns an integer from 0 to 2^53 - 1
 * @throws ERR_INVALID_ARG_VALUE
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(?:b|([kmgtp])(?:i?b)?)?$/.exec(text.trim().toLowerCase());
  const bytes = match === null ? NaN : Number(match[1]) * 1024 ** (SIZE_EXPONENT[match[2] ?? ''] as number);
  if (!Number.isSafeInteger(bytes)) {
    throw invalidArgument(`'${text}' is not a size; write a number of bytes, or one such as 4k, 1m or 2g`);
  }
  return bytes;
}

/**
 * A count: `32`, `1k`, `2.5m`, `1g`. k is 1000, as in the IOPS that {@link formatCount} writes.
 *
 * @returns an integer from 0 to 2^53 - 1
 * @throws ERR_INVALID_ARG_VALUE
 */
export function parseCount(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmgt]?)$/.exec(text.trim().toLowerCase());
  const product = match === null ? NaN : Number(match[1]) * 1000 ** (SIZE_EXPONENT[match[2] ?? ''] as number);
  // 1.1k is 1100.0000000000002 in binary fractions.
  const count = Math.round(product);
  if (!Number.isSafeInteger(count) || Math.abs(product - count) > product * 1e-12) {
    throw invalidArgument(`'${text}' is not a count; write a whole number, or one such as 10k or 2m`);
  }
  return count;
}

/**
 * A duration: `5`, `5s`, `2m`, `500ms`, `100us`, `1h`, `1d`.
 *
 * @param bare unit of a number without one
 * @returns seconds, 0 or more, with fractions
 * @throws ERR_INVALID_ARG_VALUE
 */
export function parseDuration(text: string, bare: 'us' | 's' = 's'): number {
  const match = /^(\d+(?:\.\d+)?)(us|ms|s|m|h|d|)$/.exec(text.trim().toLowerCase());
  const seconds =
    match === null ? NaN : Number(match[1]) * (SECONDS[match[2] === '' ? bare : (match[2] ?? '')] as number);
  if (!Number.isFinite(seconds)) {
    throw invalidArgument(
      `'${text}' is not a duration; write a number, or one with a unit such as 500ms, 30s, 2m or 1h`,
    );
  }
  return seconds;
}

/** Percentiles that fio reports by default (fio: `percentile_list`). */
export const FIO_PERCENTILES: readonly number[] = [
  1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99,
];

/** Decimals of a percentile in fio's JSON. Two percentiles that differ beyond them would have the same key. */
const PERCENTILE_DECIMALS = 6;

/**
 * A list of percentiles: `50,99,99.9`, or with colons as in fio, `50:99:99.9`.
 *
 * @returns numbers from 0 to 100, ascending, each once
 * @throws ERR_INVALID_ARG_VALUE
 */
export function parsePercentiles(text: string): number[] {
  const values = text.split(/[,:]/).map((word) => {
    const value = /^\d{1,3}(\.\d+)?$/.test(word.trim()) ? Number(word) : NaN;
    if (!(value <= 100) || Number(value.toFixed(PERCENTILE_DECIMALS)) !== value) {
      throw invalidArgument(
        `'${text}' is not a list of percentiles; write numbers from 0 to 100 with at most ${PERCENTILE_DECIMALS} decimals, such as 50,99,99.9`,
      );
    }
    return value;
  });
  return [...new Set(values)].sort((a, b) => a - b);
}

/** A number to three digits with a decimal prefix: `82`, `45.6k`, `1.23M`. Used for IOPS. */
export function formatCount(value: number): string {
  return scaled(value, 1000, ['', 'k', 'M', 'G', 'T', 'P']);
}

/** A size to three digits with a binary prefix: `512B`, `4.00KiB`, `20.5MiB`. */
export function formatSize(bytes: number): string {
  return scaled(bytes, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']);
}

/** Bytes per second to three digits with a binary prefix: `20.5MiB/s`. */
export function formatBandwidth(bytesPerSecond: number): string {
  return `${formatSize(bytesPerSecond)}/s`;
}

/** A latency to three digits in the unit that suits it: `850ns`, `12.3us`, `4.56ms`, `1.20s`. */
export function formatLatency(ns: number): string {
  return scaled(ns, 1000, ['ns', 'us', 'ms', 's']);
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let rest = value;
  let unit = 0;
  // What would round up to the base is written in the next unit: 1.00k, not 1000.
  while (rest >= base - 0.5 && unit < units.length - 1) {
    rest /= base;
    unit++;
  }
  return `${threeDigits(rest, unit === 0)}${units[unit] ?? ''}`;
}

function threeDigits(value: number, bareInteger: boolean): string {
  if (bareInteger && Number.isInteger(value)) return String(value);
  if (value < 9.995) return value.toFixed(2);
  return value.toFixed(value < 99.95 ? 1 : 0);
}
