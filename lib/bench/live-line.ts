// SPDX-License-Identifier: MIT
import { formatBandwidth, formatCount } from './units';

/** The rates of one direction since the last line. */
export interface LiveRate {
  readonly bytesPerSecond: number;
  readonly iops: number;
}

/** What the status line of a running benchmark shows. */
export interface LiveStatus {
  /** Jobs that still run. */
  readonly jobs: number;
  /** What they do, as one of fio's letters; see {@link statusLetter}. */
  readonly letter: string;
  /** Part of the run that is over, 0 … 1. */
  readonly progress: number;
  /** Left out when the workload does not read. */
  readonly read?: LiveRate | undefined;
  /** Left out when the workload does not write. */
  readonly write?: LiveRate | undefined;
  /** Time left, in seconds. */
  readonly etaSeconds: number;
}

const LETTERS: Readonly<Record<string, string>> = {
  read: 'R',
  write: 'W',
  rw: 'M',
  readwrite: 'M',
  randread: 'r',
  randwrite: 'w',
  randrw: 'm',
};

/** The letter by which fio's status line tells a workload: R, W, M in order, r, w, m at random. */
export function statusLetter(workload: string): string {
  return LETTERS[workload] ?? '?';
}

/** One line in the style of fio: `Jobs: 1 (f=1): [r(1)][24.8%][r=20.5MiB/s][r=82 IOPS][eta 01m:31s]`. */
export function formatLiveLine(status: LiveStatus): string {
  const directions = [
    { name: 'r', rate: status.read },
    { name: 'w', rate: status.write },
  ].flatMap(({ name, rate }) => (rate === undefined ? [] : [{ name, rate }]));
  const bandwidth = directions.map(
    ({ name, rate }) => `${name}=${formatBandwidth(Math.round(rate.bytesPerSecond))}`,
  );
  const iops = directions.map(({ name, rate }) => `${name}=${formatCount(Math.round(rate.iops))}`);
  const jobs = String(status.jobs);
  const rates = directions.length === 0 ? '' : `[${bandwidth.join(',')}][${iops.join(',')} IOPS]`;
  const percent = (Math.min(1, Math.max(0, status.progress)) * 100).toFixed(1);
  return `Jobs: ${jobs} (f=${jobs}): [${status.letter}(${jobs})][${percent}%]${rates}[eta ${formatEta(status.etaSeconds)}]`;
}

/** Time left: `01m:31s`, `02h:00m:05s`, `1d:02h:00m:05s`. */
function formatEta(seconds: number): string {
  const left = Math.max(0, Math.ceil(seconds));
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');
  const days = Math.floor(left / 86_400);
  const hours = Math.floor((left % 86_400) / 3600);
  const minutes = `${two((left % 3600) / 60)}m:${two(left % 60)}s`;
  if (days > 0) return `${String(days)}d:${two(hours)}h:${minutes}`;
  return hours > 0 ? `${two(hours)}h:${minutes}` : minutes;
}

/** A terminal that does not know its width says 0. */
const DEFAULT_COLUMNS = 80;

/** The part of `process.stderr` that a {@link LiveLine} uses. */
export interface LiveStream {
  readonly isTTY?: boolean | undefined;
  /** Width of the terminal. */
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

/** A line that is written over and over on a terminal. Writes nothing at all to anything but a terminal. */
export class LiveLine {
  readonly #stream: LiveStream;
  #shown = false;

  constructor(stream: LiveStream) {
    this.#stream = stream;
  }

  /** Shows a line in place of the last one, cut to the width of the terminal so that it does not wrap. */
  update(line: string): void {
    if (this.#stream.isTTY !== true) return;
    const { columns = 0 } = this.#stream;
    const width = (columns > 0 ? columns : DEFAULT_COLUMNS) - 1;
    this.#shown = true;
    this.#stream.write(`\r${line.slice(0, Math.max(0, width))}\x1b[K`);
  }

  /** Takes the line away, before anything else is printed. Idempotent. */
  clear(): void {
    if (!this.#shown) return;
    this.#shown = false;
    this.#stream.write('\r\x1b[K');
  }
}
