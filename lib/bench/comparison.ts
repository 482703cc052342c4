// SPDX-License-Identifier: MIT
import { invalidArgument } from '../errors';
import { DIRECTIONS, type Direction } from './job';

/** What a run has measured in one direction of a job, from fio's JSON. */
export interface MeasuredRow {
  readonly iops: number;
  /** Bytes per second. */
  readonly bandwidth: number;
  /** Standard deviation of the samples of the IOPS; 0 when there are fewer than two. */
  readonly iopsDeviation: number;
  /** Latency in ns: mean, and by percentile. */
  readonly mean: number;
  readonly percentiles: ReadonlyMap<number, number>;
}

/** A run to compare: a report in fio's JSON schema, of this tool or of fio. */
export interface ComparedRun {
  readonly name: string;
  /** By job and direction: `bench read`. */
  readonly rows: ReadonlyMap<string, MeasuredRow>;
  /** Why its figures are not those of the device, as it says itself. */
  readonly doubts: readonly string[];
  /** True when it was ended before its time. */
  readonly interrupted: boolean;
}

/** A number of a run, and how it compares to that of the first run. */
export interface ComparedValue {
  readonly value: number;
  /** Undefined for the first run, and where that has nothing to compare with. */
  readonly ratio: number | undefined;
  /** Standard deviation of the ratio, from the samples of both runs; undefined where there are none. */
  readonly spread: number | undefined;
}

/** What is compared of a job and a direction; a value for each run, undefined where it has none. */
export interface ComparedRow {
  readonly name: string;
  readonly iops: readonly (ComparedValue | undefined)[];
  readonly bandwidth: readonly (ComparedValue | undefined)[];
  readonly mean: readonly (ComparedValue | undefined)[];
  readonly p50: readonly (ComparedValue | undefined)[];
  readonly p99: readonly (ComparedValue | undefined)[];
  readonly p999: readonly (ComparedValue | undefined)[];
}

/** The keys of {@link ComparedRow} that are compared, in the order of reports. */
export const COMPARED = ['iops', 'bandwidth', 'mean', 'p50', 'p99', 'p999'] as const;

/**
 * Reads a report in fio's JSON schema.
 *
 * @param name of the run, for reports
 * @throws ERR_INVALID_ARG_VALUE for a text that is none
 */
export function readRun(name: string, text: string): ComparedRun {
  const report = parsed(name, text);
  const jobs = list(field(report, 'jobs'));
  if (jobs === undefined) throw invalidArgument(`${name} is no report in fio's JSON: it has no list of jobs`);
  const rows = new Map<string, MeasuredRow>();
  for (const job of jobs) {
    const jobName = field(job, 'jobname');
    for (const direction of DIRECTIONS) {
      const row = readRow(field(job, direction));
      if (row !== undefined)
        rows.set(rowName(typeof jobName === 'string' ? jobName : '', direction, rows), row);
    }
  }
  const own = (key: string): readonly unknown[] =>
    jobs.flatMap((job) => list(field(field(job, 'vfio-user'), key)) ?? []);
  const doubts = own('doubts').filter((doubt): doubt is string => typeof doubt === 'string');
  const gap = 'its server was away for a part of the run, which the figures have in them';
  return {
    name,
    rows,
    doubts: own('gaps').length > 0 ? [...doubts, gap] : doubts,
    interrupted: field(field(report, 'vfio-user'), 'interrupted') === true,
  };
}

/** Compares runs with the first of them. */
export function compareRuns(runs: readonly ComparedRun[]): ComparedRow[] {
  const names = [...new Set(runs.flatMap(({ rows }) => [...rows.keys()]))];
  return names.map((name) => {
    const rows = runs.map((run) => run.rows.get(name));
    const values = (
      pick: (row: MeasuredRow) => number | undefined,
      deviation: (row: MeasuredRow) => number = () => 0,
    ): (ComparedValue | undefined)[] =>
      rows.map((row, index) => compared(rows[0], row, index, pick, deviation));
    const relative = ({ iops, iopsDeviation }: MeasuredRow): number => (iops > 0 ? iopsDeviation / iops : 0);
    return {
      name,
      iops: values(({ iops }) => iops, relative),
      bandwidth: values(({ bandwidth }) => bandwidth, relative),
      mean: values(({ mean }) => mean),
      p50: values(({ percentiles }) => percentiles.get(50)),
      p99: values(({ percentiles }) => percentiles.get(99)),
      p999: values(({ percentiles }) => percentiles.get(99.9)),
    };
  });
}

function compared(
  first: MeasuredRow | undefined,
  row: MeasuredRow | undefined,
  index: number,
  pick: (row: MeasuredRow) => number | undefined,
  deviation: (row: MeasuredRow) => number,
): ComparedValue | undefined {
  const value = row && pick(row);
  if (row === undefined || value === undefined) return undefined;
  const base = first && pick(first);
  if (index === 0 || first === undefined || base === undefined || base === 0)
    return { value, ratio: undefined, spread: undefined };
  const ratio = value / base;
  // The relative deviations of a quotient add up as squares.
  const spread = Math.hypot(deviation(first), deviation(row)) * ratio;
  return { value, ratio, spread: spread > 0 ? spread : undefined };
}

function readRow(direction: unknown): MeasuredRow | undefined {
  const number = (from: unknown, name: string): number => {
    const value = field(from, name);
    return typeof value === 'number' && Number.isFinite(value) ? value : 0;
  };
  if (number(direction, 'total_ios') === 0) return undefined;
  // fio 3 has clat_ns and lat_ns; those of clat have the percentiles.
  const latency = field(direction, 'clat_ns');
  const percentiles = Object.entries((field(latency, 'percentile') as object | undefined) ?? {});
  return {
    iops: number(direction, 'iops'),
    bandwidth: number(direction, 'bw_bytes'),
    iopsDeviation: number(direction, 'iops_samples') > 1 ? number(direction, 'iops_stddev') : 0,
    mean: number(latency, 'mean'),
    percentiles: new Map(
      percentiles.flatMap(([percent, value]) =>
        typeof value === 'number' ? [[Number(percent), value] as const] : [],
      ),
    ),
  };
}

/** Jobs of the same name are told apart by their number. */
function rowName(job: string, direction: Direction, rows: ReadonlyMap<string, unknown>): string {
  const name = `${job} ${direction}`;
  for (let number = 2; ; number++) {
    const tried = number === 2 ? name : `${job} (${number - 1}) ${direction}`;
    if (!rows.has(tried)) return tried;
  }
}

function parsed(name: string, text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw invalidArgument(
      `${name} is no report in fio's JSON: ${(error as Error).message}; write one with --output-format json`,
    );
  }
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? (value as Readonly<Record<string, unknown>>)[name]
    : undefined;
}

function list(value: unknown): readonly unknown[] | undefined {
  return Array.isArray(value) ? value : undefined;
}
