// SPDX-License-Identifier: MIT

/** Whether a number is a power of two, from 1 on. `Math.log2` alone does not tell: it rounds, so that 2^52 - 1 has a whole one. */
export function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(value) && value > 0 && 2 ** Math.round(Math.log2(value)) === value;
}
