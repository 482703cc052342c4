// SPDX-License-Identifier: MIT

/** Up to this many bytes, a loop copies faster than a call. */
const SMALL = 64;

/** Copies `source[start … start + count)` to `target`, from `at` on. Bounds are the caller's. */
export function copyBytes(
  source: Uint8Array,
  start: number,
  count: number,
  target: Uint8Array,
  at: number,
): void {
  if (count > SMALL) target.set(source.subarray(start, start + count), at);
  else for (let i = 0; i < count; i++) target[at + i] = source[start + i] as number;
}
