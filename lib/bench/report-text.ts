// SPDX-License-Identifier: MIT
import { bandwidth, iops, mergeDirections } from './results';
import type { DirectionResult, JobOptions, JobResult } from './results';

const WIDTH = 110;
const LATENCY_COLUMNS = ['min us', 'avg us', 'p50 us', 'p99 us', 'p99.9 us', 'max us'] as const;
const LABEL_WIDTH = 5;
const IOPS_WIDTH = 12;
const BANDWIDTH_WIDTH = 12;
const LATENCY_WIDTH = 13;

/**
 * The final report for a terminal: what ran, a table with a row for each direction used and their total, the cost, the errors.
 * At most 110 columns wide; ends in a line feed. Latencies are in microseconds.
 *
 * @param target what was measured: a socket path and namespace
 */
export function formatReport(target: string, options: JobOptions, job: JobResult): string {
  const directions: [string, DirectionResult][] = [];
  if (job.read.ios > 0) directions.push(['read', job.read]);
  if (job.write.ios > 0) directions.push(['write', job.write]);
  if (directions.length !== 1) directions.push(['total', mergeDirections([job.read, job.write])]);
  const header = [
    ''.padEnd(LABEL_WIDTH),
    'IOPS'.padStart(IOPS_WIDTH),
    'MiB/s'.padStart(BANDWIDTH_WIDTH),
    ...LATENCY_COLUMNS.map((name) => name.padStart(LATENCY_WIDTH)),
  ].join('');
  return [
    `${job.name}: ${target}`,
    wrap(Object.entries(options).map(([name, value]) => `${name}=${value}`)),
    '',
    header,
    ...directions.map(([label, direction]) => row(label, direction)),
    '',
    costLine(job),
    errorLine(job),
  ]
    .flat()
    .map((line) => (line.length > WIDTH ? `${line.slice(0, WIDTH - 1)}…` : line))
    .join('\n')
    .concat('\n');
}

function row(label: string, direction: DirectionResult): string {
  const { latency } = direction;
  const columns = [
    latency.min,
    latency.mean,
    latency.percentile(50),
    latency.percentile(99),
    latency.percentile(99.9),
    latency.max,
  ];
  return [
    label.padEnd(LABEL_WIDTH),
    String(Math.round(iops(direction))).padStart(IOPS_WIDTH),
    (bandwidth(direction) / 2 ** 20).toFixed(2).padStart(BANDWIDTH_WIDTH),
    ...columns.map((ns) => (ns / 1000).toFixed(2).padStart(LATENCY_WIDTH)),
  ].join('');
}

function costLine(job: JobResult): string {
  const { userMs, systemMs } = job.cpu;
  const ios = job.read.ios + job.write.ios;
  const share = (ms: number): string => (job.runtimeMs > 0 ? ((ms * 100) / job.runtimeMs).toFixed(1) : '0.0');
  const perIo = ios > 0 ? `, ${(((userMs + systemMs) * 1000) / ios).toFixed(2)} us per I/O` : '';
  const seconds = (job.runtimeMs / 1000).toFixed(2);
  return `${String(ios)} I/Os in ${seconds} s; cpu usr ${share(userMs)} %, sys ${share(systemMs)} %${perIo}`;
}

function errorLine(job: JobResult): string {
  if (job.errors === 0) return 'errors: 0';
  return `errors: ${String(job.errors)}${job.firstError === undefined ? '' : `, the first: ${job.firstError}`}`;
}

function wrap(words: readonly string[]): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of words) {
    if (line !== '' && line.length + 2 + word.length > WIDTH - 1) {
      lines.push(`${line},`);
      line = word;
    } else {
      line = line === '' ? word : `${line}, ${word}`;
    }
  }
  return [...lines, line];
}
