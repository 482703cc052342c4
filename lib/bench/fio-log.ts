// SPDX-License-Identifier: MIT
import { DIRECTIONS, type Direction } from './job';
import type { JobResult } from './job-result';
import type { Samples } from './samples';

/** What a log holds over time. */
export type LogKind = 'bw' | 'iops' | 'lat';

/** A log of a job. */
export interface FioLog {
  /** What comes after the prefix of its name: `bw.1.log`. */
  readonly suffix: string;
  readonly text: string;
}

/** fio's numbers of directions (fio(1), "LOG FILE FORMATS"). */
const DIRECTION_NUMBERS: Readonly<Record<Direction, number>> = { read: 0, write: 1, trim: 2 };

/**
 * What is appended to the prefix for each kind. Latency counts from submission on, so that lat and clat are the same and slat is 0;
 * fio's tools stop where one of the three is missing.
 */
const NAMES: Readonly<Record<LogKind, readonly string[]>> = {
  bw: ['bw'],
  iops: ['iops'],
  lat: ['lat', 'slat', 'clat'],
};

/**
 * The logs of jobs in fio's format: a line `time (ms), value, direction, block size, priority` for each interval and direction.
 * The value is in KiB/s, I/Os per second, or ns. As in fio, block size and priority are 0 where it stands for an interval.
 *
 * @param largest whether a latency is the largest of its interval, in place of the average
 */
export function fioLogs(kind: LogKind, jobs: readonly JobResult[], largest: boolean): FioLog[] {
  return jobs.flatMap((job, index) => {
    const text = logText(kind, job, largest);
    return NAMES[kind].map((name) => ({
      suffix: `${name}.${index + 1}.log`,
      text: name === 'slat' ? text.replace(/^(\d+), \d+/gm, '$1, 0') : text,
    }));
  });
}

function logText(kind: LogKind, job: JobResult, largest: boolean): string {
  const used = DIRECTIONS.filter((direction) => job[direction].ios > 0);
  const length = Math.max(0, ...used.map((direction) => job[direction].samples.iops.length));
  const lines: string[] = [];
  for (let at = 0; at < length; at++) {
    const time = Math.round((at + 1) * job.sampleMs);
    for (const direction of used) {
      const { samples } = job[direction];
      // fio logs what has happened: an interval without an I/O has no latency.
      if (kind === 'lat' && (samples.iops[at] ?? 0) === 0) continue;
      const value = Math.round(valueOf(kind, samples, at, largest));
      lines.push(`${time}, ${value}, ${DIRECTION_NUMBERS[direction]}, 0, 0\n`);
    }
  }
  return lines.join('');
}

function valueOf(kind: LogKind, samples: Samples, at: number, largest: boolean): number {
  if (kind === 'bw') return (samples.bandwidth[at] ?? 0) / 1024;
  if (kind === 'iops') return samples.iops[at] ?? 0;
  return (largest ? samples.maxLatency : samples.meanLatency)[at] ?? 0;
}
