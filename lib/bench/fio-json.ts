// SPDX-License-Identifier: MIT
import { LatencyHistogram } from '../latency-histogram';
import { DIRECTIONS, type Direction } from './job';
import {
  bandwidth,
  iops,
  latencyOf,
  summarize,
  type DirectionResult,
  type FioOptions,
  type JobEnd,
  type ReportPart,
} from './job-result';
import type { SteadyOutcome } from './steady-state';
import { jobTimes, processorShare } from './trust';
import { FIO_PERCENTILES } from './units';

/** Statistics of a latency in ns. `percentile` and `bins` are only there when `N` is above 0. */
export interface FioLatency {
  min: number;
  max: number;
  mean: number;
  stddev: number;
  N: number;
  /** By percentile, written with six decimals. */
  percentile?: Record<string, number>;
  /** Samples by bucket (format json+). */
  bins?: Record<string, number>;
}

/** One direction of a job. `bw`, `bw_min` and so on are in KiB/s, `runtime` is in ms. */
export interface FioDirection {
  io_bytes: number;
  io_kbytes: number;
  bw_bytes: number;
  bw: number;
  iops: number;
  runtime: number;
  total_ios: number;
  short_ios: number;
  drop_ios: number;
  slat_ns: FioLatency;
  clat_ns: FioLatency;
  lat_ns: FioLatency;
  bw_min: number;
  bw_max: number;
  bw_agg: number;
  bw_mean: number;
  bw_dev: number;
  bw_samples: number;
  iops_min: number;
  iops_max: number;
  iops_mean: number;
  iops_stddev: number;
  iops_samples: number;
}

/** A time in which the server was away, as `Gap`, in ms. */
export interface FioGap {
  at: number;
  back: boolean;
  away: number;
  first_io: number | null;
  resubmitted: number;
}

/** One job, or several reported as one. */
export interface FioJob {
  jobname: string;
  groupid: number;
  /** Milliseconds since the epoch. */
  job_start: number;
  /** 0, or an errno: EIO when a command failed or data differ, else by why the job ended. */
  error: number;
  eta: number;
  /** Seconds. */
  elapsed: number;
  'job options': FioOptions;
  read: FioDirection;
  write: FioDirection;
  trim: FioDirection;
  sync: { total_ios: number; lat_ns: FioLatency };
  /** Sum over the jobs, in ms. */
  job_runtime: number;
  usr_cpu: number;
  sys_cpu: number;
  ctx: number;
  majf: number;
  minf: number;
  iodepth_level: Record<string, number>;
  iodepth_submit: Record<string, number>;
  iodepth_complete: Record<string, number>;
  latency_ns: Record<string, number>;
  latency_us: Record<string, number>;
  latency_ms: Record<string, number>;
  /** What fio has no key for. */
  'vfio-user': {
    ended: JobEnd;
    /** Blocks that were read back and compared, and how many of them differ. */
    verified: number;
    mismatches: number;
    /** The numbers in flight that keep a latency target, by job; empty without one. */
    found_depths: readonly { depth: number; met: boolean }[];
    /** Share of a processor that the jobs got while they wanted one, 0 to 1. */
    processor_share: number;
    /** Why the figures are not those of the device; empty when there is no doubt. */
    doubts: readonly string[];
    /** When the server was away; empty when it was not. */
    gaps: readonly FioGap[];
  };
  total_err?: number;
  first_error?: number;
}

/** A report in the schema of `fio --output-format=json`. */
export interface FioReport {
  'fio version': string;
  /** Seconds since the epoch. */
  timestamp: number;
  timestamp_ms: number;
  time: string;
  'global options': Record<string, string>;
  /** What fio has no key for. */
  'vfio-user': {
    /** True when the run was ended before its time; what is here was measured until then. */
    interrupted: boolean;
    /** Whether a steady state that was wished for was attained, and the last value that was judged. */
    steady_state?: { attained: boolean; value: number | null };
  };
  jobs: FioJob[];
}

/** What {@link fioReport} is made of. */
export interface FioReportInput {
  /** Version of this package; the report names its tool `vfio-user-<version>`. */
  readonly version: string;
  /** When the run started and when it ended. */
  readonly started: Date;
  readonly ended: Date;
  /** Whether the run was ended before its time. */
  readonly interrupted?: boolean;
  /** What has become of a wish for a steady state. */
  readonly steady?: SteadyOutcome | undefined;
  /** Each becomes an entry of `jobs`. */
  readonly parts: readonly ReportPart[];
  /** What to put into `percentile`, 0 … 100. Default: {@link FIO_PERCENTILES}. */
  readonly percentiles?: readonly number[];
  /** Adds the buckets of the histograms, as `--output-format=json+` does. */
  readonly bins?: boolean;
}

const EIO = 5;
/** The errno of each way in which a job can end. */
const ERRNO: Readonly<Record<JobEnd['reason'], number>> = {
  running: 0,
  finished: 0,
  stopped: 0,
  failed: EIO,
  mismatch: EIO,
  stray: 71, // EPROTO
  stalled: 110, // ETIMEDOUT
  lost: 104, // ECONNRESET
  replaced: 116, // ESTALE
  broken: EIO,
};
const DEPTH_KEYS = ['1', '2', '4', '8', '16', '32', '>=64'] as const;
const BATCH_KEYS = ['0', '4', '8', '16', '32', '64', '>=64'] as const;
const LATENCY_LIMITS = [2, 4, 10, 20, 50, 100, 250, 500, 750, 1000] as const;

/**
 * The results in fio's JSON schema (fio 3.x, `stat.c`), for the tools that read it: fio-plot, fio_jsonplus_clat2csv.
 *
 * It differs from fio in two ways. An I/O is timed from submission to completion, so `lat_ns` equals `clat_ns` and `slat_ns` is
 * empty. And `latency_ns`, `latency_us`, `latency_ms` are counted from the histogram, where a limit inside a bucket is met within
 * 0.8 %.
 */
export function fioReport(input: FioReportInput): FioReport {
  const milliseconds = input.ended.getTime();
  return {
    'fio version': `vfio-user-${input.version}`,
    timestamp: Math.floor(milliseconds / 1000),
    timestamp_ms: milliseconds,
    time: input.ended.toString().replace(/ \(.*\)$/, ''),
    'global options': {},
    'vfio-user': {
      interrupted: input.interrupted === true,
      ...(input.steady === undefined
        ? {}
        : { steady_state: { attained: input.steady.attained, value: input.steady.value ?? null } }),
    },
    jobs: input.parts.map((part) => fioJob(part, input)),
  };
}

function fioJob(
  { name, options, result: job, doubts = [], gaps = [] }: ReportPart,
  input: FioReportInput,
): FioJob {
  const latency: LatencyContents = {
    percentiles: input.percentiles ?? FIO_PERCENTILES,
    bins: input.bins === true,
  };
  const jobTime = job.runtimeMs * job.jobs;
  const percent = (ms: number): number => (jobTime > 0 ? (ms * 100) / jobTime : 0);
  const limits = latencyMaps(DIRECTIONS.map((direction) => latencyOf(job[direction])));
  const groupMean = (direction: Direction): number =>
    input.parts.reduce((sum, { result }) => sum + summarize(result[direction].samples.bandwidth).mean, 0);
  const error = job.errors > 0 ? EIO : ERRNO[job.ended.reason];
  const batches = shares(BATCH_KEYS, job.batchCounts);
  return {
    jobname: name,
    groupid: 0,
    job_start: input.started.getTime(),
    error,
    eta: 0,
    elapsed: Math.ceil((input.ended.getTime() - input.started.getTime()) / 1000),
    'job options': options,
    read: fioDirection(job.read, groupMean('read'), latency),
    write: fioDirection(job.write, groupMean('write'), latency),
    trim: fioDirection(job.trim, groupMean('trim'), latency),
    sync: { total_ios: 0, lat_ns: fioLatency(new LatencyHistogram(), latency) },
    job_runtime: Math.round(jobTime),
    usr_cpu: percent(job.cpu.userMs),
    sys_cpu: percent(job.cpu.systemMs),
    ctx: job.cpu.contextSwitches,
    majf: job.cpu.majorFaults,
    minf: job.cpu.minorFaults,
    iodepth_level: shares(DEPTH_KEYS, job.depthCounts),
    iodepth_submit: batches,
    iodepth_complete: batches,
    ...limits,
    'vfio-user': {
      ended: job.ended,
      verified: job.verified,
      mismatches: job.mismatches,
      found_depths: job.foundDepths,
      processor_share: processorShare(jobTimes(job)),
      doubts,
      gaps: gaps.map(({ atMs, back, awayMs, firstIoMs, resubmitted }) => ({
        at: atMs,
        back,
        away: awayMs,
        first_io: firstIoMs,
        resubmitted,
      })),
    },
    ...(job.errors > 0 ? { total_err: job.errors, first_error: EIO } : {}),
  };
}

/** What is written of a latency beyond its statistics. */
interface LatencyContents {
  readonly percentiles: readonly number[];
  readonly bins: boolean;
}

function fioDirection(
  direction: DirectionResult,
  groupBandwidth: number,
  contents: LatencyContents,
): FioDirection {
  const bytesPerSecond = Math.floor(bandwidth(direction));
  const bw = summarize(direction.samples.bandwidth);
  const rate = summarize(direction.samples.iops);
  return {
    io_bytes: direction.bytes,
    io_kbytes: Math.floor(direction.bytes / 1024),
    bw_bytes: bytesPerSecond,
    bw: Math.floor(bytesPerSecond / 1024),
    iops: iops(direction),
    runtime: Math.round(direction.runtimeMs),
    total_ios: direction.ios,
    short_ios: 0,
    drop_ios: 0,
    slat_ns: fioLatency(new LatencyHistogram(), contents),
    clat_ns: fioLatency(latencyOf(direction), contents),
    lat_ns: fioLatency(latencyOf(direction), contents),
    bw_min: Math.round(bw.min / 1024),
    bw_max: Math.round(bw.max / 1024),
    // Share of the group's mean bandwidth, in percent.
    bw_agg: groupBandwidth > 0 ? Math.min(100, (bw.mean * 100) / groupBandwidth) : 0,
    bw_mean: bw.mean / 1024,
    bw_dev: bw.stddev / 1024,
    bw_samples: bw.count,
    iops_min: Math.round(rate.min),
    iops_max: Math.round(rate.max),
    iops_mean: rate.mean,
    iops_stddev: rate.stddev,
    iops_samples: rate.count,
  };
}

function fioLatency(histogram: LatencyHistogram, { percentiles, bins }: LatencyContents): FioLatency {
  const latency: FioLatency = {
    min: Math.floor(histogram.min),
    max: Math.floor(histogram.max),
    mean: histogram.mean,
    stddev: histogram.stddev,
    N: histogram.count,
  };
  if (histogram.count === 0) return latency;
  latency.percentile = Object.fromEntries(
    percentiles.map((percent) => [percent.toFixed(6), Math.floor(histogram.percentile(percent))]),
  );
  if (bins) {
    latency.bins = Object.fromEntries(
      Array.from(histogram.buckets(), ({ value, count }) => [String(value), count]),
    );
  }
  return latency;
}

/** Percent of the I/Os whose latency is below each limit and not below the one before. */
function latencyMaps(
  histograms: readonly LatencyHistogram[],
): Pick<FioJob, 'latency_ns' | 'latency_us' | 'latency_ms'> {
  const empty = (): Record<string, number> =>
    Object.fromEntries(LATENCY_LIMITS.map((limit) => [String(limit), 0]));
  const maps = {
    latency_ns: empty(),
    latency_us: empty(),
    latency_ms: { ...empty(), '2000': 0, '>=2000': 0 } as Record<string, number>,
  };
  const count = histograms.reduce((sum, histogram) => sum + histogram.count, 0);
  const add = (map: Record<string, number>, key: string, samples: number): void => {
    map[key] = (map[key] ?? 0) + (samples * 100) / count;
  };
  const below = (value: number): string => String(LATENCY_LIMITS.find((limit) => value < limit) ?? 2000);
  for (const histogram of histograms) {
    for (const { value, count: samples } of histogram.buckets()) {
      if (value < 1e3) add(maps.latency_ns, below(value), samples);
      else if (value < 1e6) add(maps.latency_us, below(value / 1e3), samples);
      else add(maps.latency_ms, value < 2e9 ? below(value / 1e6) : '>=2000', samples);
    }
  }
  return maps;
}

function shares(keys: readonly string[], counts: Float64Array): Record<string, number> {
  const total = counts.reduce((sum, count) => sum + count, 0);
  return Object.fromEntries(
    keys.map((key, slot) => [key, total > 0 ? ((counts[slot] ?? 0) * 100) / total : 0]),
  );
}
