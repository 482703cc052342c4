// SPDX-License-Identifier: MIT
import {
  bandwidth,
  batchSlot,
  allDirections,
  depthSlot,
  emptyDirection,
  iops,
  latencyOf,
  mergeResults,
  summarize,
  type JobResult,
} from '../../lib/bench/job-result';
import { sampleDirection, sampleJob } from './sample-job';

test.each([
  [1, 0],
  [2, 1],
  [3, 1],
  [4, 2],
  [7, 2],
  [8, 3],
  [15, 3],
  [16, 4],
  [31, 4],
  [32, 5],
  [63, 5],
  [64, 6],
  [100_000, 6],
])('a depth of %d falls into slot %d', (depth, slot) => {
  expect(depthSlot(depth)).toBe(slot);
});

test.each([
  [0, 0],
  [1, 1],
  [4, 1],
  [5, 2],
  [8, 2],
  [9, 3],
  [16, 3],
  [17, 4],
  [32, 4],
  [33, 5],
  [64, 5],
  [65, 6],
  [1000, 6],
])('a batch of %d falls into slot %d', (size, slot) => {
  expect(batchSlot(size)).toBe(slot);
});

test('rates are per second of run time, and 0 when nothing ran', () => {
  const direction = sampleDirection([1, 2, 3, 4], 2000);
  expect(iops(direction)).toBe(2);
  expect(bandwidth(direction)).toBe(8192);
  expect(iops(emptyDirection())).toBe(0);
  expect(bandwidth(emptyDirection())).toBe(0);
});

test('summaries of series', () => {
  // Squared differences from 5 add up to 32; divided by 7.
  expect(summarize([2, 4, 4, 4, 5, 5, 7, 9])).toEqual({
    count: 8,
    min: 2,
    max: 9,
    mean: 5,
    stddev: Math.sqrt(32 / 7),
  });
  expect(summarize([3])).toEqual({ count: 1, min: 3, max: 3, mean: 3, stddev: 0 });
  expect(summarize([])).toEqual({ count: 0, min: 0, max: 0, mean: 0, stddev: 0 });
});

test('directions that ran at the same time add up interval by interval', () => {
  const merged = allDirections({
    read: sampleDirection([1000, 2000], 1000, [10, 20, 30]),
    write: sampleDirection([6000], 1500, [1, 2]),
    trim: emptyDirection(),
  });
  expect(merged).toMatchObject({
    ios: 3,
    bytes: 12_288,
    runtimeMs: 1500,
    samples: {
      iops: [11, 22, 30],
      bandwidth: [11 * 4096, 22 * 4096, 30 * 4096],
      meanLatency: [1000, 1000, 1000],
      maxLatency: [2000, 2000, 2000],
    },
  });
  const { count, min, max, mean } = latencyOf(merged);
  expect([count, min, max, mean]).toEqual([3, 1000, 6000, 3000]);
});

test('merging leaves the parts as they were', () => {
  const part = sampleDirection([1000], 1000, [1]);
  allDirections({ read: part, write: part, trim: part });
  expect(latencyOf(part).count).toBe(1);
  expect(part.samples.iops).toEqual([1]);
});

test('jobs merge into one', () => {
  const cpu = { userMs: 10, systemMs: 1, waitedMs: 0, contextSwitches: 2, majorFaults: 3, minorFaults: 4 };
  const merged = mergeResults([
    sampleJob({
      runtimeMs: 100,
      read: sampleDirection([5], 100),
      cpu,
      depthCounts: Float64Array.of(1, 0, 0, 0, 0, 0, 2),
    }),
    sampleJob({
      runtimeMs: 90,
      errors: 2,
      firstError: 'first',
      cpu,
      depthCounts: Float64Array.of(1, 1, 0, 0, 0, 0, 0),
      batchCounts: Float64Array.of(9, 7, 0, 0, 0, 0, 0),
      verified: 7,
      mismatches: 2,
      ended: { reason: 'mismatch', message: 'did not keep what was written' },
    }),
    sampleJob({ errors: 1, firstError: 'second', verified: 3, write: sampleDirection([5, 6], 80) }),
  ]);
  expect(merged).toMatchObject({
    jobs: 3,
    runtimeMs: 100,
    errors: 3,
    firstError: 'first',
    verified: 10,
    mismatches: 2,
    ended: { reason: 'mismatch', message: 'did not keep what was written' },
    cpu: { userMs: 20, systemMs: 2, waitedMs: 0, contextSwitches: 4, majorFaults: 6, minorFaults: 8 },
  });
  expect([merged.read.ios, merged.write.ios]).toEqual([1, 2]);
  expect([...merged.depthCounts]).toEqual([2, 1, 0, 0, 0, 0, 2]);
  expect([...merged.batchCounts]).toEqual([9, 7, 0, 0, 0, 0, 0]);
});

test('jobs that failed tell how all of them ended, then those that were stopped', () => {
  const ends = (['finished', 'stopped', 'stalled', 'lost'] as const).map((reason) => ({
    reason,
    message: `it is ${reason}`,
  }));
  const [finished, stopped, stalled, lost] = ends.map((ended) => sampleJob({ ended }));
  const endOf = (...results: (JobResult | undefined)[]): string =>
    mergeResults(results.map((result) => result!)).ended.reason;
  expect(endOf(finished, finished)).toBe('finished');
  expect(endOf(finished, stopped)).toBe('stopped');
  expect(endOf(finished, stopped, stalled, lost)).toBe('stalled');
  expect(endOf(lost, stalled)).toBe('lost');
  expect(endOf()).toBe('finished');
});
