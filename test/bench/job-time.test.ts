// SPDX-License-Identifier: MIT
/** What a job does by the clock: the clock is the test's, so that no machine is too slow or too fast. */
import { performance } from 'node:perf_hooks';
import type { JobPhase, JobPlan } from '../../lib/bench/plan';
import { finish, world as anyWorld } from './fake-device';

/** The clock is read once per batch, at every batch. */
const world = (changes: Partial<JobPlan>) => anyWorld(changes, 'each turn');

/** Milliseconds that pass whenever the time is asked for. */
const TICK = 0.01;
let now = 0;
let tick = TICK;
beforeEach(() => {
  now = 5000;
  tick = TICK;
  jest.spyOn(performance, 'now').mockImplementation(() => (now += tick));
});
afterEach(() => {
  jest.restoreAllMocks();
});

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);

describe('ramp time', () => {
  test.each(['read', 'write'] as const)('%s: what was measured in it is forgotten', (workload) => {
    const { job, device, state } = world({ workload, depth: 1, rampMs: 100, runtimeMs: 50 });
    const phases: JobPhase[] = [];
    device.answer = () => {
      phases.push(state.phase);
      now += state.phase === 'ramp' ? 5 : 1;
      return 0;
    };
    finish(job);
    // 20 of 5 ms each, then 50 of 1 ms; the clock itself takes a little.
    expect(phases.filter((phase) => phase === 'ramp')).toHaveLength(20);
    expect(phases.lastIndexOf('ramp')).toBe(19);
    const measured = workload === 'read' ? job.readLatency : job.writeLatency;
    // The one that was in flight when the ramp ended completed in the run.
    expect(measured.count).toBe(phases.length - 20 + 1);
    expect([job.reads + job.writes, state.reads + state.writes]).toEqual([measured.count, measured.count]);
    expect(measured.max).toBeLessThan(2e6);
    expect(measured.min).toBeGreaterThan(0);
    expect(sum(job.batchCounts)).toBe(measured.count);
    expect(job.elapsedMs).toBeGreaterThanOrEqual(50);
    expect(job.elapsedMs).toBeLessThan(52);
    expect(state.phase).toBe('done');
  });

  test('without one the run begins at once, and lasts its time and not more', () => {
    const { job, device, state } = world({ depth: 1, runtimeMs: 50 });
    const phases = new Set<JobPhase>();
    device.answer = () => {
      phases.add(state.phase);
      now += 1;
      return 0;
    };
    const before = now;
    finish(job);
    expect([...phases]).toEqual(['run']);
    expect(now - before).toBeGreaterThanOrEqual(50);
    expect(now - before).toBeLessThan(53);
    expect(job.reads).toBe(device.log.length);
  });

  test.each<[string, Partial<JobPlan>]>([
    ['the limit of I/Os is reached', { ioLimit: 7 }],
    ['it is stopped', {}],
  ])('a run that ends in it, since %s, has measured nothing', (_, changes) => {
    const { job, device, state } = world({ rampMs: 1000, runtimeMs: 1000, depth: 2, ...changes });
    let count = 0;
    device.answer = () => {
      now += 1;
      if (++count === 7 && changes.ioLimit === undefined) state.stop();
      return 0;
    };
    finish(job);
    expect(device.log.length).toBeGreaterThanOrEqual(7);
    expect(device.log.length).toBeLessThan(10);
    expect([job.reads, job.writes, job.elapsedMs, sum(job.batchCounts)]).toEqual([0, 0, 0, 0]);
    expect([state.reads, state.elapsedMs, state.phase]).toEqual([0, 0, 'done']);
  });
});

describe('limit of I/Os', () => {
  test.each([
    [1, 1],
    [1, 32],
    [7, 4],
    [31, 32],
    [100, 3],
    [1000, 32],
  ])('%s I/Os with a depth of %s', (ioLimit, depth) => {
    const { job, device } = world({
      workload: 'randread',
      distribution: { kind: 'uniform' },
      ioLimit,
      depth,
    });
    finish(job);
    expect(device.log).toHaveLength(ioLimit);
    expect(job.reads).toBe(ioLimit);
  });

  test('goes round where the region is smaller', () => {
    const { job, device } = world({ ioBlocks: 5, ioLimit: 12, depth: 2 });
    finish(job);
    expect(device.log.map((io) => (io.lba - 80) / 8)).toEqual([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
  });

  test('and a time: the first of the two ends the run', () => {
    const run = (ioLimit: number): { ios: number; elapsed: number } => {
      const { job, device } = world({ runtimeMs: 20, ioLimit, depth: 1 });
      device.answer = () => {
        now += 1;
        return 0;
      };
      finish(job);
      expect(job.reads).toBe(device.log.length);
      return { ios: job.reads, elapsed: job.elapsedMs };
    };
    expect(run(5).ios).toBe(5);
    expect(run(5).elapsed).toBeLessThan(20);
    const byTime = run(1000);
    expect(byTime.ios).toBeGreaterThan(15);
    expect(byTime.ios).toBeLessThanOrEqual(21);
    expect(byTime.elapsed).toBeGreaterThanOrEqual(20);
  });

  test('with verification all of it is written, then read back', () => {
    const { job, device } = world({ workload: 'write', verify: true, ioLimit: 10, depth: 4 });
    finish(job);
    expect(device.log.map((io) => io.write)).toEqual([...Array(10).fill(true), ...Array(10).fill(false)]);
    expect(job.outcome).toMatchObject({ verified: 10, mismatches: 0 });
    expect([job.reads, job.writes]).toEqual([0, 10]);
  });
});

describe('rate', () => {
  test.each([1, 4, 32])(
    'with a depth of %s no more I/Os than the time that passed allows, and no fewer',
    (depth) => {
      tick = 0.3;
      const { job, device } = world({ runtimeMs: 2000, rate: 100, depth });
      const start = now;
      let ahead = 0;
      device.answer = () => {
        // One at once, then one every 10 ms.
        ahead = Math.max(ahead, device.log.length - (1 + ((now - start) * 100) / 1000));
        return 0;
      };
      finish(job);
      expect(ahead).toBeLessThanOrEqual(0);
      expect(device.log.length).toBeGreaterThanOrEqual(199);
      expect(device.log.length).toBeLessThanOrEqual(201);
      expect(job.outcome.stalled).toBe(false);
    },
  );

  test('what a slow device could not take is made up for, up to the depth', () => {
    const { job, device } = world({ runtimeMs: 1000, rate: 1000, depth: 4 });
    let count = 0;
    device.answer = () => {
      // Half of the time nothing moves.
      if (++count === 10) now += 500;
      return 0;
    };
    finish(job);
    expect(device.deepest).toBe(4);
    expect(device.log.length).toBeGreaterThanOrEqual(998);
    expect(device.log.length).toBeLessThanOrEqual(1001);
  });

  test('is an average over the ramp and the run', () => {
    const { job, device } = world({ rampMs: 500, runtimeMs: 500, rate: 100 });
    finish(job);
    expect(device.log.length).toBeGreaterThanOrEqual(99);
    expect(device.log.length).toBeLessThanOrEqual(101);
    expect(job.reads).toBeGreaterThanOrEqual(49);
    expect(job.reads).toBeLessThanOrEqual(51);
  });

  test('tells when the next I/O is due', () => {
    tick = 0;
    const { job, device } = world({ runtimeMs: 10_000, rate: 50, depth: 2 });
    expect(job.slice(1, 0)).toBe('quiet');
    expect(device.log).toHaveLength(1);
    expect(job.nextSubmission).toBe(20);
    now += 15;
    expect(job.nextSubmission).toBe(5);
    expect(job.slice(1, 0)).toBe('quiet');
    expect(device.log).toHaveLength(1);
    now += 5;
    expect(job.nextSubmission).toBe(0);
    expect(job.slice(1, 0)).toBe('quiet');
    expect(device.log).toHaveLength(2);
    expect(job.nextSubmission).toBe(20);
  });

  test('nothing is due without a rate, with all in flight, or at the end', () => {
    tick = 0;
    expect(world({ runtimeMs: 1000 }).job.nextSubmission).toBe(Infinity);
    const { job, device, state } = world({ runtimeMs: 1000, rate: 50, depth: 1 });
    device.answer = () => undefined;
    expect(job.slice(1, 0)).toBe('quiet');
    expect(job.nextSubmission).toBe(Infinity);
    device.complete(device.log[0]!.cid);
    expect(job.slice(1, 0)).toBe('quiet');
    expect(job.nextSubmission).toBe(20);
    state.stop();
    expect(job.slice(1, 0)).toBe('done');
    expect(job.nextSubmission).toBe(Infinity);
  });

  test('a wait for the rate is no stall, and ends when it is told to stop', () => {
    tick = 500;
    const { job, state, device } = world({ runtimeMs: Infinity, rate: 0.001, depth: 4, ioLimit: 3 });
    for (let slices = 0; slices < 10; slices++) expect(job.slice(20_000)).toBe('busy');
    expect(device.log).toHaveLength(1);
    state.stop();
    expect(job.slice(20_000)).toBe('done');
    expect(job.outcome.stalled).toBe(false);
  });

  test('blocks are read back without a limit', () => {
    tick = 0.3;
    const { job, device } = world({ workload: 'write', verify: true, rate: 10, ioLimit: 8, depth: 2 });
    let written = 0;
    device.answer = (io) => {
      if (io.write) written = now;
      return 0;
    };
    finish(job);
    expect(job.outcome.verified).toBe(8);
    expect(written - 5000).toBeGreaterThanOrEqual(700);
    expect(now - written).toBeLessThan(100);
  });
});

describe('a device that completes nothing', () => {
  test('has failed after 30 s', () => {
    tick = 100;
    const { job, device } = world({ runtimeMs: Infinity, ioLimit: 10 });
    device.answer = () => undefined;
    expect(job.slice(20_000)).toBe('busy');
    expect(job.slice(20_000)).toBe('done');
    expect(job.outcome).toMatchObject({ stalled: true, status: 0 });
  });

  test('has failed after the time of the run too', () => {
    tick = 100;
    const { job, device, state } = world({ runtimeMs: 1000 });
    device.answer = () => undefined;
    expect(job.slice(20_000)).toBe('busy');
    expect(job.slice(20_000)).toBe('done');
    expect(job.outcome.stalled).toBe(true);
    expect(state.phase).toBe('done');
  });

  test('makes a slice quiet after the patience given', () => {
    const { job, device } = world({ runtimeMs: 10_000, depth: 1 });
    device.answer = () => undefined;
    const before = now;
    expect(job.slice(1000, 10)).toBe('quiet');
    expect(now - before).toBeGreaterThanOrEqual(10);
    expect(now - before).toBeLessThan(12);
    expect(job.slice(5, 1000)).toBe('busy');
    device.complete(device.log[0]!.cid);
    expect(job.slice(1, 0)).toBe('quiet');
    expect(job.reads).toBe(1);
  });
});
