// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { decodeStatus, nvmOpcodeName, statusText } from '../nvme/spec';
import type { BenchmarkOptions } from './benchmark-types';
import { LatencyHistogram } from './histogram';
import type { JobReport } from './job-runner';
import { DEPTH_SLOTS, depthSlot, type DirectionResult, type JobResult } from './results';

/** The report of a job as a result. */
export function jobResult(
  report: JobReport,
  options: BenchmarkOptions,
  samples: { reads: number[]; writes: number[] },
  index: number,
): JobResult {
  const direction = (ios: number, latency: ArrayBufferLike, rates: number[]): DirectionResult => ({
    ios,
    bytes: ios * options.blockSize,
    runtimeMs: ios > 0 ? report.elapsedMs : 0,
    latency: new LatencyHistogram(latency),
    iopsSamples: rates,
    bandwidthSamples: rates.map((rate) => rate * options.blockSize),
  });
  const depthCounts = new Float64Array(DEPTH_SLOTS);
  depthCounts[depthSlot(options.depth)] = report.reads + report.writes;
  return {
    name: `job${String(index)}`,
    jobs: 1,
    read: direction(report.reads, report.readLatency, samples.reads),
    write: direction(report.writes, report.writeLatency, samples.writes),
    runtimeMs: report.elapsedMs,
    errors: report.outcome.mismatches + (report.outcome.status === 0 ? 0 : 1),
    firstError: report.outcome.firstMismatch ?? statusOf(report),
    cpu: report.cpu,
    depthCounts,
    submitCounts: report.batchCounts,
    completeCounts: report.batchCounts,
  };
}

function statusOf({ outcome }: JobReport): string | undefined {
  if (outcome.status === 0) return undefined;
  const { sct, sc } = decodeStatus(outcome.status);
  return `${nvmOpcodeName(outcome.failedOpcode)} at LBA ${String(outcome.failedLba)}: ${statusText(sct, sc)}`;
}

/** Why a job failed; undefined when it did not. */
export function failureOf(report: JobReport, name: string): VfioUserError | undefined {
  const status = statusOf(report);
  if (status !== undefined) return new VfioUserError('ERR_VFIO_USER_NVME_STATUS', `${name} failed ${status}`);
  const { mismatches, verified, firstMismatch, stalled } = report.outcome;
  if (mismatches > 0) {
    return new VfioUserError(
      'ERR_VFIO_USER_VERIFY',
      `${String(mismatches)} of ${String(verified)} blocks read back differ from what was written; the first: ${firstMismatch ?? ''}`,
    );
  }
  if (stalled) {
    return new VfioUserError(
      'ERR_VFIO_USER_TIMEOUT',
      `${name} stopped completing commands; look at the log of its server`,
    );
  }
  return undefined;
}
