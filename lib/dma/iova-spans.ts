// SPDX-License-Identifier: MIT
import type { IovaRange } from './table';

/** An interval of I/O virtual addresses, both ends in it. */
export interface IovaSpan {
  readonly first: bigint;
  readonly last: bigint;
}

/** All addresses of 64 bits. */
export const ALL_ADDRESSES: readonly IovaSpan[] = [{ first: 0n, last: (1n << 64n) - 1n }];

/** The addresses that are in both lists, each of which is sorted and without overlap. */
export function intersect(a: readonly IovaSpan[], b: readonly IovaSpan[]): IovaSpan[] {
  return a.flatMap((one) =>
    b
      .map((other) => ({
        first: one.first > other.first ? one.first : other.first,
        last: one.last < other.last ? one.last : other.last,
      }))
      .filter(({ first, last }) => first <= last),
  );
}

/** Whether all addresses of a range are in one span. */
export function contains(spans: readonly IovaSpan[], { iova, size }: IovaRange): boolean {
  return spans.some(({ first, last }) => iova >= first && iova + BigInt(size) - 1n <= last);
}

/** The spans in one line, for messages. */
export function formatSpans(spans: readonly IovaSpan[]): string {
  const shown = spans.slice(0, 8).map(({ first, last }) => `0x${first.toString(16)}-0x${last.toString(16)}`);
  return shown.join(', ') + (spans.length > shown.length ? ` and ${spans.length - shown.length} more` : '');
}
