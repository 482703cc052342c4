// SPDX-License-Identifier: MIT
import { latencyBins } from './latency-bins';
import { DIRECTIONS } from './job';
import {
  allDirections,
  bandwidth,
  iops,
  latencyOf,
  mergeResults,
  type DirectionResult,
  type JobResult,
  type ReportPart,
} from './job-result';
import { formatLatency } from './units';

const DEFAULT_COLUMNS = 110;
const HEADS = ['IOPS', 'MiB/s', 'min us', 'avg us', 'p50 us', 'p99 us', 'p99.9 us', 'max us'] as const;
/** Width of each column where there is room. */
const WIDE = [12, 12, 13, 13, 13, 13, 13, 13] as const;
/** Space between columns where there is little room. */
const NARROW_GAP = 2;
const LABEL_WIDTH = 5;
const LATENCY_WIDTH = 13;
const PERCENTILE_WIDTH = 12;
/** Most lines of a histogram. */
const HISTOGRAM_LINES = 40;
const BAR_WIDTH = 50;

/** What {@link formatReport} shows beyond its table. */
export interface ReportContents {
  /** Adds a table of these percentiles, 0 … 100. */
  readonly percentiles?: readonly number[] | undefined;
  /** Adds a histogram of the latencies. */
  readonly histogram?: boolean;
  /** Width of the report. Default 110. */
  readonly columns?: number;
}

type Rows = readonly (readonly [label: string, direction: DirectionResult])[];

/**
 * The final report for a terminal. For each part, and for several parts together, it says what ran, has a table with a row for
 * each direction used and their total, and tells the cost and the errors. Latencies are in microseconds. No line is longer than
 * `columns`; the text ends in a line feed.
 */
export function formatReport(parts: readonly ReportPart[], contents: ReportContents = {}): string {
  const { columns = DEFAULT_COLUMNS } = contents;
  const blocks = parts.map(({ name, target, options, result }) => [
    `${name}: ${target}`,
    ...wrap(
      Object.entries(options).map(([name, value]) => `${name}=${value}`),
      columns,
    ),
    '',
    ...resultLines(result, contents),
  ]);
  if (parts.length > 1) {
    const all = mergeResults(parts.map(({ result }) => result));
    blocks.push([`all: ${parts.length} together`, '', ...resultLines(all, contents)]);
  }
  return blocks
    .map((lines) => lines.map((line) => (line.length > columns ? `${line.slice(0, columns - 1)}…` : line)))
    .map((lines) => `${lines.join('\n')}\n`)
    .join('\n');
}

function resultLines(
  job: JobResult,
  { percentiles, histogram, columns = DEFAULT_COLUMNS }: ReportContents,
): string[] {
  const rows = DIRECTIONS.flatMap((direction): [string, DirectionResult][] =>
    job[direction].ios > 0 ? [[direction, job[direction]]] : [],
  );
  if (rows.length !== 1) rows.push(['total', allDirections(job)]);
  return [
    ...numberTable(rows, columns),
    '',
    ...(percentiles === undefined ? [] : [...percentileTable(rows, percentiles), '']),
    ...(histogram === true ? [...histogramTable(job), ''] : []),
    costLine(job),
    errorLine(job),
  ];
}

function percentileTable(rows: Rows, percentiles: readonly number[]): string[] {
  return [
    `${'percentile'.padStart(PERCENTILE_WIDTH)}${rows.map(([label]) => `${label} us`.padStart(LATENCY_WIDTH)).join('')}`,
    ...percentiles.map((percent) =>
      [
        String(percent).padStart(PERCENTILE_WIDTH),
        ...rows.map(([, direction]) => microseconds(latencyOf(direction).percentile(percent))),
      ].join(''),
    ),
  ];
}

/** All directions in one histogram: a line for each interval, its share, what lies below its end, and a bar. */
function histogramTable(job: JobResult): string[] {
  const count = allDirections(job).ios;
  const bins = latencyBins(
    DIRECTIONS.map((direction) => latencyOf(job[direction])),
    HISTOGRAM_LINES,
  ).map(({ from, to, counts }) => ({
    range: `${formatLatency(from).padStart(8)} - ${formatLatency(to).padEnd(8)}`,
    ios: counts.reduce((sum, each) => sum + each, 0),
  }));
  const longest = bins.reduce((most, { ios }) => Math.max(most, ios), 0);
  let below = 0;
  return [
    `${'latency'.padStart(13)}${'I/Os'.padStart(20)}${'share %'.padStart(11)}${'below %'.padStart(11)}`,
    ...bins.map(({ range, ios }) => {
      below += ios;
      const share = (part: number): string => ((part * 100) / count).toFixed(3).padStart(11);
      // The smallest bar is a dot, so that one outlier among millions of I/Os is seen.
      const bar = '#'.repeat(Math.round((ios * BAR_WIDTH) / longest)) || (ios > 0 ? '.' : '');
      return `${range}${String(ios).padStart(14)}${share(ios)}${share(below)}  ${bar}`.trimEnd();
    }),
  ];
}

/** The table of rates and latencies. Where it is too wide, columns are as narrow as their numbers; then it is cut in two. */
function numberTable(rows: Rows, columns: number): string[] {
  const table = [['', ...HEADS], ...rows.map(([label, direction]) => [label, ...cells(direction)])];
  const wide = [LABEL_WIDTH, ...WIDE];
  if (sum(wide) <= columns) return aligned(table, wide);
  const narrow = table[0]?.map(
    (_, column) =>
      Math.max(...table.map((cellsOfRow) => (cellsOfRow[column] ?? '').length)) +
      (column === 0 ? 0 : NARROW_GAP),
  );
  if (narrow === undefined) return [];
  if (sum(narrow) <= columns) return aligned(table, narrow);
  // Rates above, latencies below.
  const part = (from: number, to: number): string[] =>
    aligned(
      table.map(([label = '', ...rest]) => [label, ...rest.slice(from, to)]),
      [narrow[0] ?? 0, ...narrow.slice(1 + from, 1 + to)],
    );
  return [...part(0, 2), ...part(2, HEADS.length)];
}

function aligned(table: readonly (readonly string[])[], widths: readonly number[]): string[] {
  return table.map(([label = '', ...cellsOfRow]) =>
    [label.padEnd(widths[0] ?? 0), ...cellsOfRow.map((cell, at) => cell.padStart(widths[at + 1] ?? 0))].join(
      '',
    ),
  );
}

function sum(widths: readonly number[]): number {
  return widths.reduce((all, width) => all + width, 0);
}

function cells(direction: DirectionResult): string[] {
  const latency = latencyOf(direction);
  const times = [
    latency.min,
    latency.mean,
    latency.percentile(50),
    latency.percentile(99),
    latency.percentile(99.9),
    latency.max,
  ];
  return [
    String(Math.round(iops(direction))),
    (bandwidth(direction) / 2 ** 20).toFixed(2),
    ...times.map((ns) => (ns / 1000).toFixed(2)),
  ];
}

function microseconds(ns: number): string {
  return (ns / 1000).toFixed(2).padStart(LATENCY_WIDTH);
}

function costLine(job: JobResult): string {
  const { userMs, systemMs } = job.cpu;
  const { ios } = allDirections(job);
  const share = (ms: number): string => (job.runtimeMs > 0 ? ((ms * 100) / job.runtimeMs).toFixed(1) : '0.0');
  const perIo = ios > 0 ? `, ${(((userMs + systemMs) * 1000) / ios).toFixed(2)} us per I/O` : '';
  const seconds = (job.runtimeMs / 1000).toFixed(2);
  return `${ios} I/Os in ${seconds} s; cpu usr ${share(userMs)} %, sys ${share(systemMs)} %${perIo}`;
}

function errorLine(job: JobResult): string {
  if (job.errors === 0) return 'errors: 0';
  return `errors: ${job.errors}${job.firstError === undefined ? '' : `, the first: ${job.firstError}`}`;
}

function wrap(words: readonly string[], columns: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of words) {
    if (line !== '' && line.length + 2 + word.length > columns - 1) {
      lines.push(`${line},`);
      line = word;
    } else {
      line = line === '' ? word : `${line}, ${word}`;
    }
  }
  return [...lines, line];
}
