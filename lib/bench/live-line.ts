// SPDX-License-Identifier: MIT
import { DIRECTIONS, directionsOf, type CompletionMode, type Direction, type Workload } from './job';
import type { BenchmarkProgress } from './progress-watch';
import { isDoubtful } from './trust';
import { formatBandwidth, formatCount } from './units';

/** What the status line shows of a run beside its progress. */
export interface DisplayedRun {
  readonly groups: readonly DisplayedGroup[];
}

/** Jobs that do the same. */
export interface DisplayedGroup {
  readonly workload: Workload;
  /** Jobs at all endpoints together. */
  readonly jobs: number;
  /** Default `poll`. */
  readonly completion?: CompletionMode | undefined;
}

/** As in fio: capitals for sequential workloads, M and m for mixed ones, D and d for trims. */
const LETTERS: Readonly<Record<Workload, string>> = {
  read: 'R',
  write: 'W',
  trim: 'D',
  rw: 'M',
  trimwrite: 'M',
  randread: 'r',
  randwrite: 'w',
  randtrim: 'd',
  randrw: 'm',
  randtrimwrite: 'm',
};

const NAMES: Readonly<Record<Direction, string>> = { read: 'r', write: 'w', trim: 't' };

/**
 * One line in the style of fio: `Jobs: 1 (f=1): [r(1)][24.8%][r=20.5MiB/s][r=82 IOPS][eta 01m:31s]`. Directions that are not used
 * are left out. The letter is V while blocks are read back. When a job that polls lacks a processor, `[41% of a cpu]` comes before
 * the rates, and `[server away for 3s]` while jobs wait for a server that has gone.
 *
 * @internal Exported for its test.
 */
export function formatLiveLine(progress: BenchmarkProgress, { groups }: DisplayedRun): string {
  const { rates, part, secondsLeft, processorShare, awaySeconds, phase } = progress;
  const verifying = phase === 'verify';
  const used = verifying
    ? (['read'] as const)
    : DIRECTIONS.filter((direction) =>
        groups.some(({ workload }) => directionsOf(workload).includes(direction)),
      );
  const bandwidths = used.map(
    (direction) => `${NAMES[direction]}=${formatBandwidth(Math.round(rates[direction].bandwidth))}`,
  );
  const iops = used.map(
    (direction) => `${NAMES[direction]}=${formatCount(Math.round(rates[direction].iops))}`,
  );
  const letters = groups.map(({ workload, jobs }) => `${verifying ? 'V' : LETTERS[workload]}(${jobs})`);
  const jobs = groups.reduce((sum, group) => sum + group.jobs, 0);
  const percent = (Math.min(1, Math.max(0, part)) * 100).toFixed(1);
  const polls = groups.every(({ completion = 'poll' }) => completion === 'poll');
  const share = polls && isDoubtful(processorShare) ? `[${Math.round(processorShare * 100)}% of a cpu]` : '';
  const away = awaySeconds > 0 ? `[server away for ${Math.round(awaySeconds)}s]` : '';
  return `Jobs: ${jobs} (f=${jobs}): [${letters.join(',')}][${percent}%]${share}${away}[${bandwidths.join(',')}][${iops.join(',')} IOPS][eta ${formatEta(secondsLeft)}]`;
}

/** Time left: `01m:31s`, `02h:00m:05s`, `1d:02h:00m:05s`. */
function formatEta(seconds: number): string {
  const left = Math.max(0, Math.ceil(seconds));
  const two = (value: number): string => String(Math.floor(value)).padStart(2, '0');
  const days = Math.floor(left / 86_400);
  const hours = Math.floor((left % 86_400) / 3600);
  const minutes = `${two((left % 3600) / 60)}m:${two(left % 60)}s`;
  if (days > 0) return `${days}d:${two(hours)}h:${minutes}`;
  return hours > 0 ? `${two(hours)}h:${minutes}` : minutes;
}

/** Width of a terminal that does not know its own, and says 0. */
const DEFAULT_COLUMNS = 80;

/** The part of `process.stderr` that a {@link LiveLine} uses. */
export interface LiveStream {
  readonly isTTY?: boolean | undefined;
  /** Width of the terminal. */
  readonly columns?: number | undefined;
  write(text: string): unknown;
}

/** The status line of a run, written again and again on a terminal. Nothing is written to anything but a terminal. */
export class LiveLine {
  readonly #stream: LiveStream;
  readonly #run: DisplayedRun;
  #shown = false;

  constructor(stream: LiveStream, run: DisplayedRun) {
    this.#stream = stream;
    this.#run = run;
  }

  /** Shows the progress in place of the last line, cut to the width of the terminal so that it does not wrap. */
  update(progress: BenchmarkProgress): void {
    if (this.#stream.isTTY !== true) return;
    const { columns = 0 } = this.#stream;
    const width = (columns > 0 ? columns : DEFAULT_COLUMNS) - 1;
    const line = formatLiveLine(progress, this.#run);
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
