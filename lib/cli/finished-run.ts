// SPDX-License-Identifier: MIT
import type { BenchmarkResult } from '../bench/benchmark';
import { mergeResults, type JobResult, type ReportPart } from '../bench/job-result';
import type { BenchmarkTarget } from '../bench/part-result';
import type { BenchJob } from './bench-plan';
import { fioOptions } from './bench-workload';
import { printable } from './output';

/** Jobs that were measured at an endpoint: their results, and who it is. */
export interface MeasuredPart extends ReportPart {
  readonly device: BenchmarkTarget;
  /** The jobs one by one. */
  readonly jobs: readonly JobResult[];
  /** The rate that was asked for, of all jobs together; undefined without a limit. */
  readonly wanted: { readonly unit: 'iops' | 'bandwidth'; readonly rate: number } | undefined;
}

/** A run that is over, or a look at one that goes on. */
export interface FinishedRun extends Pick<BenchmarkResult, 'interrupted' | 'failure' | 'steady'> {
  readonly started: Date;
  readonly ended: Date;
  readonly parts: readonly MeasuredPart[];
}

/** What was to be measured, and where. */
export interface MeasuredRun {
  readonly jobs: readonly BenchJob[];
  readonly endpoints: readonly string[];
  /** What to call the endpoint instead of its path. */
  readonly alias: string | undefined;
  /** What the options of the output add to fio's options of a job. */
  readonly fioOptions: { readonly percentile_list?: string };
  readonly started: Date;
}

/** Names what was measured, so that it can be reported. */
export function finishedRun(
  { jobs, endpoints, alias, fioOptions: more, started }: MeasuredRun,
  result: Pick<BenchmarkResult, 'parts' | 'interrupted' | 'failure' | 'steady'>,
): FinishedRun {
  return {
    ...result,
    started,
    ended: new Date(),
    parts: result.parts.map((part) => {
      const job = jobs[part.workload];
      if (job === undefined) throw new Error('unreachable: a part is of a job');
      const name = alias ?? endpoints[part.endpoint] ?? '';
      return {
        name: jobName(job, jobs, endpoints.length, part.endpoint),
        target: printable(`${name}, namespace ${part.target.nsid}`),
        options: { ...fioOptions(job.values, job.options, job.given, name), ...more },
        result: mergeResults(part.jobs),
        jobs: part.jobs,
        doubts: part.doubts,
        gaps: part.gaps,
        device: part.target,
        wanted: wantedRate(job),
      };
    }),
  };
}

/** The name of a job, with the number of its endpoint where there are several. */
function jobName(job: BenchJob, jobs: readonly BenchJob[], endpoints: number, endpoint: number): string {
  const several = (job.options.endpoints?.length ?? endpoints) > 1 && (endpoints > 1 || jobs.length > 1);
  return several ? `${job.name}${endpoint}` : job.name;
}

function wantedRate({ options: { rate, rateIops, jobs } }: BenchJob): MeasuredPart['wanted'] {
  if (rateIops !== undefined) return { unit: 'iops', rate: rateIops * jobs };
  return rate === undefined ? undefined : { unit: 'bandwidth', rate: rate * jobs };
}
