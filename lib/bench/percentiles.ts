// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';

/** Percentiles that fio reports unless told otherwise (fio, `percentile_list`). */
export const FIO_PERCENTILES: readonly number[] = [
  1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99,
];

/** As many as fio writes; two percentiles that differ beyond would have the same key in JSON. */
const DECIMALS = 6;

/**
 * A list of percentiles: `50,99,99.9`, or with fio's colons, `50:99:99.9`.
 *
 * @returns numbers from 0 to 100, ascending, each once
 * @throws ERR_INVALID_ARG_VALUE
 */
export function parsePercentiles(text: string): number[] {
  const values = text.split(/[,:]/).map((word) => {
    const value = /^\d{1,3}(\.\d+)?$/.test(word.trim()) ? Number(word) : NaN;
    if (!(value <= 100) || Number(value.toFixed(DECIMALS)) !== value) {
      throw invalidArgument(
        `'${text}' is not a list of percentiles; write numbers from 0 to 100 with at most ${String(DECIMALS)} decimals, such as 50,99,99.9`,
      );
    }
    return value;
  });
  return [...new Set(values)].sort((a, b) => a - b);
}
