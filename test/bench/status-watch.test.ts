// SPDX-License-Identifier: MIT
import { JOB_STATE_BYTES, JobState } from '../../lib/bench/job-state';
import type { PlannedJob } from '../../lib/bench/plan';
import { StatusWatch } from '../../lib/bench/status-watch';
import { sampleJob } from './sample-job';

beforeEach(() => jest.useFakeTimers());
afterEach(() => jest.useRealTimers());

function watched() {
  const jobs = [0, 1].map(
    () => ({ state: new JobState(new SharedArrayBuffer(JOB_STATE_BYTES)) }) as PlannedJob,
  );
  const told: number[][] = [];
  const watch = new StatusWatch([jobs], 1, (results) =>
    told.push(results.flat().map(({ errors }) => errors)),
  );
  return { watch, jobs, told };
}

test('is told when all that were asked have answered', () => {
  const { watch, jobs, told } = watched();
  jest.advanceTimersByTime(1000);
  expect(jobs.map(({ state }) => state.takeQuestion())).toEqual([true, true]);
  watch.take(jobs[0]!, sampleJob({ errors: 1 }));
  expect(told).toEqual([]);
  watch.take(jobs[1]!, sampleJob({ errors: 2 }));
  expect(told).toEqual([[1, 2]]);
  watch.stop();
});

test('jobs that pause have told what they have done, and are not asked', () => {
  const { watch, jobs, told } = watched();
  watch.take(jobs[0]!, sampleJob({ errors: 1 }));
  expect(told).toEqual([]);
  jobs[0]!.state.paused = true;
  jest.advanceTimersByTime(1000);
  expect(jobs.map(({ state }) => state.takeQuestion())).toEqual([false, true]);
  watch.take(jobs[1]!, sampleJob({ errors: 2 }));
  jobs[1]!.state.paused = true;
  jest.advanceTimersByTime(1000);
  expect(told).toEqual([
    [1, 2],
    [1, 2],
  ]);
  watch.stop();
});

test('a job that ends in place of its answer does not hold up the others', () => {
  const { watch, jobs, told } = watched();
  jest.advanceTimersByTime(1000);
  watch.take(jobs[0]!, sampleJob({ errors: 1 }));
  jobs[1]!.state.phase = 'done';
  watch.take(jobs[1]!, sampleJob({ errors: 3 }));
  expect(told).toEqual([[1, 3]]);
  watch.stop();
});
