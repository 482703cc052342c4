// SPDX-License-Identifier: MIT

/** Slope of the line that fits values at equal distances best (least squares), in units of the values a step. */
export function slope(values: readonly number[]): number {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  let [products, squares] = [0, 0];
  for (const [index, value] of values.entries()) {
    products += (index - middle) * (value - mean);
    squares += (index - middle) ** 2;
  }
  return squares === 0 ? 0 : products / squares;
}

/** By how much the line that fits values best rises from the first to the last. */
export function growth(values: readonly number[]): number {
  return slope(values) * (values.length - 1);
}

/** The samples that count: without a warm-up of the first quarter, at least of one. */
export function afterWarmUp<T>(samples: readonly T[]): readonly T[] {
  return samples.slice(Math.max(1, Math.floor(samples.length / 4)));
}

/** By how much the times of the last third are longer than those of the first third, as a factor of their medians. */
export function slowing(times: readonly number[]): number {
  const third = Math.max(1, Math.floor(times.length / 3));
  return middle(times.slice(-third)) / middle(times.slice(0, third));
}

function middle(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}
