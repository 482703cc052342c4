// SPDX-License-Identifier: MIT
import { formatLatency } from './units';

/** A time in which the server of an endpoint was away. */
export interface Gap {
  /**
   * When the connection was lost, in milliseconds from the beginning of the measured run on; negative in the ramp. Reading back
   * comes after the measured run.
   */
  readonly atMs: number;
  /** Whether there was another connection before the end of the run. */
  readonly back: boolean;
  /** Milliseconds without a connection, as this side has seen it: until the next one, or the end of the run. */
  readonly awayMs: number;
  /**
   * Milliseconds from the next connection to the first I/O that was completed over it; null when there was none before the next
   * gap, or the end of the run.
   */
  readonly firstIoMs: number | null;
  /** I/Os that were in flight, and were sent again, or would have been. */
  readonly resubmitted: number;
}

/** More gaps than these are not listed one by one in a text. */
const LISTED = 5;

/** What a reader is to know of gaps: each of a few, and what several come to together. */
export function gapTexts(gaps: readonly Gap[]): string[] {
  const each = gaps.length > LISTED ? [] : gaps.map(gapText);
  return gaps.length > 1 ? [...each, summaryText(gaps)] : each;
}

/** When a gap began. */
export function gapTime({ atMs }: Gap): string {
  return atMs < 0 ? `${timeText(-atMs)} before the measured run` : `at ${timeText(atMs)}`;
}

/** A time in milliseconds, as latencies are written. */
function timeText(milliseconds: number): string {
  return formatLatency(milliseconds * 1e6);
}

function gapText(gap: Gap): string {
  const { back, awayMs, firstIoMs, resubmitted } = gap;
  const away = timeText(awayMs);
  if (!back)
    return `${gapTime(gap)} the server went away, and was not back ${away} later, with ${ios(resubmitted)} in flight`;
  const first =
    firstIoMs === null
      ? 'no I/O was completed when it was back'
      : `first I/O ${timeText(firstIoMs)} after it was back`;
  return `${gapTime(gap)} the server was away for ${away}; ${first}; ${ios(resubmitted)} sent again`;
}

function summaryText(gaps: readonly Gap[]): string {
  const total = (pick: (gap: Gap) => number): number => gaps.reduce((sum, gap) => sum + pick(gap), 0);
  const longest = gaps.reduce((most, { awayMs }) => Math.max(most, awayMs), 0);
  const firstIos = gaps.flatMap(({ firstIoMs }) => firstIoMs ?? []).sort((a, b) => a - b);
  const [median, last] = [firstIos[Math.floor(firstIos.length / 2)], firstIos.at(-1)];
  const first =
    median === undefined || last === undefined
      ? ''
      : `; first I/O ${timeText(median)} after its return (median), ${timeText(last)} at most`;
  return (
    `the server was away ${gaps.length} times, for ${timeText(total(({ awayMs }) => awayMs))} in all, ` +
    `${timeText(longest)} at most${first}; ${ios(total(({ resubmitted }) => resubmitted))} sent again`
  );
}

function ios(count: number): string {
  return count === 1 ? '1 I/O' : `${count} I/Os`;
}
