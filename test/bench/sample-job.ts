// SPDX-License-Identifier: MIT
import { LatencyHistogram } from '../../lib/latency-histogram';
import type { Samples } from '../../lib/bench/samples';
import { emptyDirection, type DirectionResult, type JobResult } from '../../lib/bench/job-result';

/** A direction with the given latencies in ns, 4096 bytes per I/O. */
export function sampleDirection(
  latencies: readonly number[],
  runtimeMs: number,
  iopsSamples: readonly number[] = [],
): DirectionResult {
  const latency = new LatencyHistogram();
  for (const ns of latencies) latency.record(ns);
  return {
    ios: latencies.length,
    bytes: latencies.length * 4096,
    runtimeMs,
    latency: latency.data,
    samples: sampleSeries(iopsSamples),
  };
}

/** Samples with the given rates, 4096 bytes per I/O, 1000 ns on average and 2000 ns at most. */
export function sampleSeries(iops: readonly number[]): Samples {
  return {
    iops,
    bandwidth: iops.map((rate) => rate * 4096),
    meanLatency: iops.map((rate) => (rate > 0 ? 1000 : 0)),
    maxLatency: iops.map((rate) => (rate > 0 ? 2000 : 0)),
  };
}

/** A job that did nothing, with some of its fields replaced. */
export function sampleJob(fields: Partial<JobResult> = {}): JobResult {
  return {
    jobs: 1,
    read: emptyDirection(),
    write: emptyDirection(),
    trim: emptyDirection(),
    sampleMs: 500,
    foundDepths: [],
    runtimeMs: 0,
    errors: 0,
    verified: 0,
    mismatches: 0,
    ended: { reason: 'finished', message: '' },
    cpu: { userMs: 0, systemMs: 0, waitedMs: 0, contextSwitches: 0, majorFaults: 0, minorFaults: 0 },
    depthCounts: new Float64Array(7),
    batchCounts: new Float64Array(7),
    ...fields,
  };
}
