// SPDX-License-Identifier: MIT
import type { Job } from '../../lib/bench/job';
import { SAMPLE_MILLISECONDS } from '../../lib/bench/job-result';
import { JOB_STATE_BYTES, JobState, type JobProgress } from '../../lib/bench/job-state';
import { ProgressWatch, type BenchmarkProgress } from '../../lib/bench/progress-watch';
import { world } from './fake-device';

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

/** A watch over jobs whose progress the test writes. */
function watched(jobs: number, ...changes: Partial<Job>[]) {
  const told: BenchmarkProgress[] = [];
  const states = Array.from({ length: jobs }, () => new JobState(new SharedArrayBuffer(JOB_STATE_BYTES)));
  const watch = new ProgressWatch(
    states.map((state, index) => {
      const job = { ...world().job, ioLimit: Infinity, ...(changes[index] ?? changes[0]) };
      return { state, job };
    }),
    (progress) => told.push(progress),
  );
  const tick = (): BenchmarkProgress => {
    jest.advanceTimersByTime(SAMPLE_MILLISECONDS);
    return told.at(-1)!;
  };
  return { watch, told, states, tick };
}

/** Reads and writes of 4 KiB, and milliseconds. */
function done(reads: number, writes: number, elapsedMs: number): JobProgress {
  const [readBytes, writtenBytes] = [reads * 4096, writes * 4096];
  return { reads, writes, trims: 0, readBytes, writtenBytes, trimmedBytes: 0, elapsedMs };
}

/** The I/Os of a progress, whose bandwidth must be theirs. */
function rates({
  rates: { read, write, trim },
  part,
  secondsLeft,
  processorShare,
  phase,
}: BenchmarkProgress) {
  expect([read.bandwidth, write.bandwidth, trim.iops]).toEqual([read.iops * 4096, write.iops * 4096, 0]);
  return { readIops: read.iops, writeIops: write.iops, part, secondsLeft, processorShare, phase };
}

test('rates since the last call, of all jobs together', () => {
  const { watch, states, tick } = watched(2, { runtimeMs: 2000 });
  const [one, other] = states as [JobState, JobState];
  for (const state of states) state.phase = 'run';
  one.publish(done(1000, 50, 500));
  other.publish(done(500, 0, 490));
  expect(rates(tick())).toEqual({
    processorShare: 1,
    readIops: 3000,
    writeIops: 100,
    part: 0.25,
    secondsLeft: 1.5,
    phase: 'run',
  });
  one.publish(done(1100, 50, 1000));
  expect(rates(tick())).toEqual({
    processorShare: 1,
    readIops: 200,
    writeIops: 0,
    part: 0.5,
    secondsLeft: 1,
    phase: 'run',
  });
  watch.stop();
});

test('the ramp is shown, and is no part of the run', () => {
  const { watch, states, tick } = watched(1, { runtimeMs: 2000, rampMs: 5000 });
  const [state] = states as [JobState];
  state.phase = 'ramp';
  state.publish(done(1000, 0, 500));
  expect(rates(tick())).toEqual({
    processorShare: 1,
    readIops: 2000,
    writeIops: 0,
    part: 0,
    secondsLeft: 6.5,
    phase: 'ramp',
  });
  state.phase = 'run';
  // What the ramp counted is gone.
  state.publish(done(200, 0, 500));
  expect(rates(tick())).toEqual({
    processorShare: 1,
    readIops: 400,
    writeIops: 0,
    part: 0.25,
    secondsLeft: 1.5,
    phase: 'run',
  });
  watch.stop();
});

test('a limit of I/Os tells the part where it comes first', () => {
  const { watch, states, tick } = watched(2, { runtimeMs: 100_000, ioLimit: 1000 });
  for (const state of states) state.phase = 'run';
  states[0]!.publish(done(500, 0, 500));
  states[1]!.publish(done(0, 250, 500));
  // 750 of 2000 are done, at 1500 a second.
  expect(rates(tick())).toEqual({
    processorShare: 1,
    readIops: 1000,
    writeIops: 500,
    part: 0.375,
    secondsLeft: 1250 / 1500,
    phase: 'run',
  });
  watch.stop();
});

test('a limit of bytes, for I/Os of several sizes', () => {
  const { watch, states, tick } = watched(2, { byteLimit: 8000 * 4096 });
  states[0]!.publish(done(1000, 1000, 500));
  states[1]!.publish(done(0, 2000, 500));
  // 4000 of 16,000 blocks are done, at 8000 a second.
  expect(tick()).toMatchObject({ part: 0.25, secondsLeft: 1.5 });
  watch.stop();
});

test('a trim with the write after it counts as one for a limit', () => {
  const { watch, states, tick } = watched(1, { workload: 'trimwrite', ioLimit: 1000 });
  states[0]!.publish({ ...done(0, 100, 500), trims: 100, trimmedBytes: 100 * 4096 });
  expect(tick()).toMatchObject({ part: 0.1, secondsLeft: 1800 / 400 });
  watch.stop();
});

test.each([
  ['the one by its limit', 100, { part: 0.1, secondsLeft: 4.5 }],
  ['the one by its time', 900, { part: 0.25, secondsLeft: 1.5 }],
])('of two jobs that end each in its way, that counts which is further behind: %s', (_, ios, remaining) => {
  const { watch, states, tick } = watched(2, { runtimeMs: 2000 }, { ioLimit: 1000 });
  for (const state of states) state.phase = 'run';
  states[0]!.publish(done(5000, 0, 500));
  states[1]!.publish(done(ios, 0, 500));
  expect(tick()).toMatchObject(remaining);
  watch.stop();
});

test('the share of a processor is that of the job with the least', () => {
  const { watch, states, tick } = watched(2, { runtimeMs: 2000 });
  states[1]!.processorShare = 0.25;
  expect(tick().processorShare).toBe(0.25);
  states[1]!.processorShare = 1;
  expect(tick().processorShare).toBe(1);
  watch.stop();
});

test('the phase is that of the job that is behind; no calls come after the end', () => {
  const { watch, states, told, tick } = watched(2, { runtimeMs: 1000 });
  const [one, other] = states as [JobState, JobState];
  one.phase = 'verify';
  other.phase = 'run';
  expect(tick().phase).toBe('run');
  other.phase = 'done';
  expect(tick().phase).toBe('verify');
  one.publish(done(0, 0, 5000));
  expect(tick().secondsLeft).toBe(0);
  watch.stop();
  const calls = told.length;
  jest.advanceTimersByTime(10 * SAMPLE_MILLISECONDS);
  expect(told).toHaveLength(calls);
});

test('how long jobs wait for a server that has gone', () => {
  const { watch, states, tick } = watched(2, { runtimeMs: 2000 });
  for (const state of states) state.phase = 'run';
  expect(tick().awaySeconds).toBe(0);
  states[1]!.paused = true;
  // It went at some time since the last look.
  expect(tick().awaySeconds).toBe(SAMPLE_MILLISECONDS / 1000);
  states[0]!.paused = true;
  states[1]!.paused = false;
  expect(tick().awaySeconds).toBe((2 * SAMPLE_MILLISECONDS) / 1000);
  states[0]!.phase = 'done';
  expect(tick().awaySeconds).toBe(0);
  watch.stop();
});
