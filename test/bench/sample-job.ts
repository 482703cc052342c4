// SPDX-License-Identifier: MIT
import { LatencyHistogram } from '../../lib/bench/histogram';
import { emptyDirection } from '../../lib/bench/results';
import type { DirectionResult, JobResult } from '../../lib/bench/results';

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
    latency,
    iopsSamples,
    bandwidthSamples: iopsSamples.map((rate) => rate * 4096),
  };
}

/** A job that did nothing, with some of its fields replaced. */
export function sampleJob(fields: Partial<JobResult> = {}): JobResult {
  return {
    name: 'job',
    jobs: 1,
    read: emptyDirection(),
    write: emptyDirection(),
    runtimeMs: 0,
    errors: 0,
    cpu: { userMs: 0, systemMs: 0, contextSwitches: 0, majorFaults: 0, minorFaults: 0 },
    depthCounts: new Float64Array(7),
    submitCounts: new Float64Array(7),
    completeCounts: new Float64Array(7),
    ...fields,
  };
}
