// SPDX-License-Identifier: MIT
/** What a job does by the clock: the clock is the test's, so that no machine is too slow or too fast. */
import type { Job } from '../../lib/bench/job';
import { latencyOf } from '../../lib/bench/job-result';
import type { JobPhase } from '../../lib/bench/job-state';
import { clock, useClock } from './clock';
import { finish, world as anyWorld, PACE } from './fake-device';

/** The clock is read once per batch, at every batch. */
const world = (changes: Partial<Job>) => anyWorld(changes, 'each turn');

useClock();

const stalled = (seconds: string) => ({
  reason: 'stalled',
  message: `stopped completing commands: none in ${seconds} s, with 4 in flight; look at its server, or wait longer with --timeout`,
});

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);

describe('ramp time', () => {
  test.each(['read', 'write'] as const)('%s: what was measured in it is forgotten', (workload) => {
    const { run, device, state } = world({ workload, depth: 1, rampMs: 100, runtimeMs: 50 });
    const phases: JobPhase[] = [];
    device.answer = () => {
      phases.push(state.phase);
      clock.now += state.phase === 'ramp' ? 5 : 1;
      return 0;
    };
    finish(run);
    // 20 of 5 ms each, then 50 of 1 ms; the clock itself takes a little.
    expect(phases.filter((phase) => phase === 'ramp')).toHaveLength(20);
    expect(phases.lastIndexOf('ramp')).toBe(19);
    const measured = workload === 'read' ? latencyOf(run.result.read) : latencyOf(run.result.write);
    // The one that was in flight when the ramp ended completed in the run.
    expect(measured.count).toBe(phases.length - 20 + 1);
    expect([
      run.result.read.ios + run.result.write.ios,
      state.progress.reads + state.progress.writes,
    ]).toEqual([measured.count, measured.count]);
    expect(measured.max).toBeLessThan(2e6);
    expect(measured.min).toBeGreaterThan(0);
    expect(sum(run.result.batchCounts)).toBe(measured.count);
    expect(run.result.runtimeMs).toBeGreaterThanOrEqual(50);
    expect(run.result.runtimeMs).toBeLessThan(52);
    expect(state.phase).toBe('done');
  });

  test.each([
    ['each turn', 53],
    // The loop runs on while entries are prepared.
    ['loop', 57],
  ] as const)('without one the run begins at once, and lasts its time and not more (%s)', (way, most) => {
    const { run, device, state } = anyWorld({ depth: 1, runtimeMs: 50 }, way);
    const phases = new Set<JobPhase>();
    device.answer = () => {
      phases.add(state.phase);
      clock.now += 1;
      return 0;
    };
    const before = clock.now;
    finish(run);
    expect([...phases]).toEqual(['run']);
    expect(clock.now - before).toBeGreaterThanOrEqual(50);
    expect(clock.now - before).toBeLessThan(most);
    expect(run.result.read.ios).toBe(device.log.length);
  });

  test.each<[string, Partial<Job>]>([
    ['the limit of I/Os is reached', { ioLimit: 7 }],
    ['it is stopped', {}],
  ])('a run that ends in it, since %s, has measured nothing', (_, changes) => {
    const { run, device, state } = world({ rampMs: 1000, runtimeMs: 1000, depth: 2, ...changes });
    let count = 0;
    device.answer = () => {
      clock.now += 1;
      if (++count === 7 && changes.ioLimit === undefined) state.stop();
      return 0;
    };
    finish(run);
    expect(device.log.length).toBeGreaterThanOrEqual(7);
    expect(device.log.length).toBeLessThan(10);
    expect([
      run.result.read.ios,
      run.result.write.ios,
      run.result.runtimeMs,
      sum(run.result.batchCounts),
    ]).toEqual([0, 0, 0, 0]);
    expect([state.progress.reads, state.progress.elapsedMs, state.phase]).toEqual([0, 0, 'done']);
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
    const { run, device } = world({
      workload: 'randread',
      distribution: { kind: 'uniform' },
      ioLimit,
      depth,
    });
    finish(run);
    expect(device.log).toHaveLength(ioLimit);
    expect(run.result.read.ios).toBe(ioLimit);
  });

  test('goes round where the region is smaller', () => {
    const { run, device } = world({ ioBlocks: 5, ioLimit: 12, depth: 2 });
    finish(run);
    expect(device.log.map((io) => (io.lba - 80) / 8)).toEqual([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
  });

  test('and a time: the first of the two ends the run', () => {
    const run = (ioLimit: number): { ios: number; elapsed: number } => {
      const { run, device } = world({ runtimeMs: 20, ioLimit, depth: 1 });
      device.answer = () => {
        clock.now += 1;
        return 0;
      };
      finish(run);
      expect(run.result.read.ios).toBe(device.log.length);
      return { ios: run.result.read.ios, elapsed: run.result.runtimeMs };
    };
    expect(run(5).ios).toBe(5);
    expect(run(5).elapsed).toBeLessThan(20);
    const byTime = run(1000);
    expect(byTime.ios).toBeGreaterThan(15);
    expect(byTime.ios).toBeLessThanOrEqual(21);
    expect(byTime.elapsed).toBeGreaterThanOrEqual(20);
  });

  test('with verification all of it is written, then read back', () => {
    const { run, device } = world({ workload: 'write', verify: true, ioLimit: 10, depth: 4 });
    finish(run);
    expect(device.log.map((io) => io.write)).toEqual([...Array(10).fill(true), ...Array(10).fill(false)]);
    expect(run.result).toMatchObject({ verified: 10, mismatches: 0 });
    expect([run.result.read.ios, run.result.write.ios]).toEqual([0, 10]);
  });
});

describe('rate', () => {
  test.each([1, 4, 32])(
    'with a depth of %s no more I/Os than the time that passed allows, and no fewer',
    (depth) => {
      clock.tick = 0.3;
      const { run, device } = world({ runtimeMs: 2000, pace: { ...PACE, iops: 100 }, depth });
      const start = clock.now;
      let ahead = 0;
      device.answer = () => {
        // One at once, then one every 10 ms.
        ahead = Math.max(ahead, device.log.length - (1 + ((clock.now - start) * 100) / 1000));
        return 0;
      };
      finish(run);
      expect(ahead).toBeLessThanOrEqual(0);
      expect(device.log.length).toBeGreaterThanOrEqual(199);
      expect(device.log.length).toBeLessThanOrEqual(201);
      expect(run.result.ended.reason).not.toBe('stalled');
    },
  );

  test('what a slow device could not take is made up for, up to the depth', () => {
    const { run, device } = world({ runtimeMs: 1000, pace: { ...PACE, iops: 1000 }, depth: 4 });
    let count = 0;
    device.answer = () => {
      // Half of the time nothing moves.
      if (++count === 10) clock.now += 500;
      return 0;
    };
    finish(run);
    expect(device.deepest).toBe(4);
    expect(device.log.length).toBeGreaterThanOrEqual(998);
    expect(device.log.length).toBeLessThanOrEqual(1001);
  });

  test('is an average over the ramp and the run', () => {
    const { run, device } = world({ rampMs: 500, runtimeMs: 500, pace: { ...PACE, iops: 100 } });
    finish(run);
    expect(device.log.length).toBeGreaterThanOrEqual(99);
    expect(device.log.length).toBeLessThanOrEqual(101);
    expect(run.result.read.ios).toBeGreaterThanOrEqual(49);
    expect(run.result.read.ios).toBeLessThanOrEqual(51);
  });

  test('tells when the next I/O is due', () => {
    clock.tick = 0;
    const { run, device } = world({ runtimeMs: 10_000, pace: { ...PACE, iops: 50 }, depth: 2 });
    expect(run.slice(1, 0)).toBe('quiet');
    expect(device.log).toHaveLength(1);
    expect(run.nextSubmission).toBe(20);
    clock.now += 15;
    expect(run.nextSubmission).toBe(5);
    expect(run.slice(1, 0)).toBe('quiet');
    expect(device.log).toHaveLength(1);
    clock.now += 5;
    expect(run.nextSubmission).toBe(0);
    expect(run.slice(1, 0)).toBe('quiet');
    expect(device.log).toHaveLength(2);
    expect(run.nextSubmission).toBe(20);
  });

  test('nothing is due without a rate, with all in flight, or at the end', () => {
    clock.tick = 0;
    expect(world({ runtimeMs: 1000 }).run.nextSubmission).toBe(Infinity);
    const { run, device, state } = world({ runtimeMs: 1000, pace: { ...PACE, iops: 50 }, depth: 1 });
    device.answer = () => undefined;
    expect(run.slice(1, 0)).toBe('quiet');
    expect(run.nextSubmission).toBe(Infinity);
    device.complete(device.log[0]!.cid);
    expect(run.slice(1, 0)).toBe('quiet');
    expect(run.nextSubmission).toBe(20);
    state.stop();
    expect(run.slice(1, 0)).toBe('done');
    expect(run.nextSubmission).toBe(Infinity);
  });

  test('a wait for the rate is no stall, and ends when it is told to stop', () => {
    clock.tick = 500;
    const { run, state, device } = world({
      runtimeMs: Infinity,
      pace: { ...PACE, iops: 0.001 },
      depth: 4,
      ioLimit: 3,
    });
    for (let slices = 0; slices < 10; slices++) expect(run.slice(20_000)).toBe('busy');
    expect(device.log).toHaveLength(1);
    state.stop();
    expect(run.slice(20_000)).toBe('done');
    expect(run.result.ended.reason).not.toBe('stalled');
  });

  test('blocks are read back without a limit', () => {
    clock.tick = 0.3;
    const { run, device } = world({
      workload: 'write',
      verify: true,
      pace: { ...PACE, iops: 10 },
      ioLimit: 8,
      depth: 2,
    });
    let written = 0;
    device.answer = (io) => {
      if (io.write) written = clock.now;
      return 0;
    };
    finish(run);
    expect(run.result.verified).toBe(8);
    expect(written - 5000).toBeGreaterThanOrEqual(700);
    expect(clock.now - written).toBeLessThan(100);
  });
});

describe('a device that completes nothing', () => {
  test('has failed after 30 s', () => {
    clock.tick = 100;
    const { run, device } = world({ runtimeMs: Infinity, ioLimit: 10 });
    device.answer = () => undefined;
    expect(run.slice(20_000)).toBe('busy');
    expect(run.slice(20_000)).toBe('done');
    expect(run.result).toMatchObject({ ended: stalled('30.0'), errors: 0 });
  });

  test('has failed when the time-out after the run is over', () => {
    clock.tick = 100;
    const { run, device, state } = world({ runtimeMs: 1000, drainMs: 2000 });
    device.answer = () => undefined;
    expect(run.slice(2500)).toBe('busy');
    expect(run.slice(20_000)).toBe('done');
    expect(clock.now - 5000).toBeLessThan(4000);
    expect(run.result.ended).toEqual(stalled('3.0'));
    expect(run.result.runtimeMs).toBeGreaterThanOrEqual(1000);
    expect(run.result.runtimeMs).toBeLessThan(1500);
    expect(state.waitedMs).toBeGreaterThanOrEqual(2000);
    expect(state.waitedMs).toBeLessThan(2500);
    expect(state.phase).toBe('done');
  });

  test('has failed when the time-out after the wish to stop is over', () => {
    clock.tick = 100;
    const { run, device, state } = world({ runtimeMs: 600_000, drainMs: 2000 });
    device.answer = () => undefined;
    expect(run.slice(1000)).toBe('busy');
    state.stop();
    expect(run.slice(20_000)).toBe('done');
    expect(run.result.ended.reason).toBe('stalled');
    expect(clock.now - 5000).toBeLessThan(4000);
  });

  test('or completes too little: the time-out is one for all that is in flight', () => {
    clock.tick = 100;
    const { run, device } = world({ runtimeMs: 1000, drainMs: 2000, depth: 4 });
    device.answer = () => undefined;
    expect(run.slice(2500)).toBe('busy');
    device.complete(device.log[0]!.cid);
    expect(run.slice(20_000)).toBe('done');
    expect(run.result.ended).toEqual({
      reason: 'stalled',
      message:
        'had 3 commands in flight when the run was given up; look at its server, or wait longer with --timeout',
    });
    expect(run.result.read.ios).toBe(1);
  });

  test('makes a slice quiet after the patience given', () => {
    const { run, device } = world({ runtimeMs: 10_000, depth: 1 });
    device.answer = () => undefined;
    const before = clock.now;
    expect(run.slice(1000, 10)).toBe('quiet');
    expect(clock.now - before).toBeGreaterThanOrEqual(10);
    expect(clock.now - before).toBeLessThan(12);
    expect(run.slice(5, 1000)).toBe('busy');
    device.complete(device.log[0]!.cid);
    expect(run.slice(1, 0)).toBe('quiet');
    expect(run.result.read.ios).toBe(1);
  });
});

describe('samples of the rates', () => {
  test('one for each half of a second of the run, none of the ramp', () => {
    const { run, device, state } = world({ workload: 'write', depth: 1, rampMs: 1200, runtimeMs: 1600 });
    device.answer = () => {
      // In the second half of a second of the run each I/O takes twice as long.
      clock.now +=
        state.phase === 'run' && state.progress.elapsedMs >= 500 && state.progress.elapsedMs < 1000 ? 2 : 1;
      return 0;
    };
    const { read, write } = finish(run);
    expect(read.samples.iops).toEqual([0, 0, 0]);
    expect(write.samples.iops).toHaveLength(3);
    const near = [1000, 500, 1000].map((rate) => expect.closeTo(rate, -1.9) as number);
    expect(write.samples.iops).toEqual(near);
    expect(write.samples.bandwidth).toEqual(
      write.samples.iops.map((rate) => expect.closeTo(rate * 4096, 3) as number),
    );
  });

  test('a device that stands still has samples too, which keep to the clock', () => {
    const { run, device } = world({ depth: 1, runtimeMs: 2600 });
    let count = 0;
    device.answer = () => {
      clock.now += ++count === 700 ? 1000 : 1;
      return 0;
    };
    const { read } = finish(run);
    expect(read.samples.iops).toHaveLength(5);
    expect(read.samples.iops[1]).toBe(read.samples.iops[2]);
    expect(read.samples.iops[1]).toBeLessThan(300);
    expect(read.samples.iops[4]).toBeGreaterThan(900);
  });

  test('a run that is shorter has none, and reading back adds none', () => {
    const { run, device } = world({
      workload: 'write',
      verify: true,
      ioLimit: 400,
      ioBlocks: 400,
      depth: 1,
      blockSize: 512,
    });
    device.answer = (io) => {
      clock.now += io.write ? 1 : 5;
      return 0;
    };
    const { read, write, verified } = finish(run);
    expect(verified).toBe(400);
    expect([read.samples.iops, write.samples.iops]).toEqual([[], []]);
  });
});
