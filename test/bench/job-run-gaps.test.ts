// SPDX-License-Identifier: MIT
/** Jobs whose controller goes away with commands in flight, and comes back with another queue pair. */
import { WORKLOADS, trimsAndWrites, type Job } from '../../lib/bench/job';
import { latencyOf } from '../../lib/bench/job-result';
import type { SliceEnd } from '../../lib/bench/job-run';
import { JobTally } from '../../lib/bench/job-tally';
import { Pacing } from '../../lib/bench/pacing';
import { RunSampler } from '../../lib/bench/run-sampler';
import { clock, useClock } from './clock';
import { FakeDevice, LBA, PACE, finish, queuePair, world, type Io } from './fake-device';

useClock();

/** Bytes of the queues of each connection; the next one has others. */
const QUEUE_BYTES = 0x4000;

/** A job whose device completes so many commands, and then goes away. */
function mortal(life: number, changes: Partial<Job> = {}, way?: 'loop' | 'each turn') {
  const one = world(changes, way);
  const acknowledged: Io[] = [];
  /** What was in flight when a device went. */
  const held: Io[][] = [];
  let device = one.device;
  let left = life;
  const answer = (io: Io): number | undefined => {
    if (left === 0) return undefined;
    left--;
    acknowledged.push(io);
    return 0;
  };
  device.answer = answer;
  const lose = (): void => {
    held.push(device.log.filter((io) => !acknowledged.includes(io)));
    one.state.paused = true;
    let end: SliceEnd = 'busy';
    while (end !== 'paused' && end !== 'done') end = one.run.slice(1, 0);
    expect(end).toBe('paused');
  };
  const restart = (): void => {
    const odd = held.length % 2;
    const queue = {
      ...one.queue,
      id: 1 + odd,
      submissionOffset: odd * QUEUE_BYTES,
      completionOffset: 0x8000 + odd * QUEUE_BYTES,
    };
    // As the arena gives it out.
    for (const offset of [queue.submissionOffset, queue.completionOffset])
      new Uint8Array(device.memory, offset, QUEUE_BYTES).fill(0);
    device = new FakeDevice(queue, device.memory, device.disk);
    device.answer = answer;
    left = life;
    one.state.paused = false;
    one.run.attach(queuePair(one.job, queue, device));
  };
  /** Runs until the device has gone with all that it completes. False when the job has ended before. */
  const live = (): boolean => {
    for (let end: SliceEnd = 'busy'; left > 0;) {
      if (end === 'done') return false;
      end = one.run.slice(1, 0);
    }
    return one.run.slice(1, 0) !== 'done';
  };
  const last = (): FakeDevice => device;
  return { ...one, acknowledged, held, lose, restart, live, last };
}

const text = ({ opcode, lba, blocks }: Pick<Io, 'opcode' | 'lba' | 'blocks'>): string =>
  [opcode, lba, blocks].join();

describe.each(['loop', 'each turn'] as const)('%s', (way) => {
  test.each(WORKLOADS)('%s: each I/O is done once, whatever was in flight', (workload) => {
    const changes = { workload, depth: 8, blockSize: 512, ioBlocks: 500, ioLimit: 400 };
    const reference = world(changes, way);
    const expected = finish(reference.run);
    const { run, acknowledged, held, lose, restart, live, last } = mortal(37, changes, way);
    while (live()) {
      lose();
      expect(run.heldCount).toBe(held.at(-1)!.length);
      restart();
      // With the same command ids and buffers, and before anything new.
      const sent = ({ cid, pointer, ...io }: Io): string => [cid, ...pointer, text(io)].join();
      expect(last().log.map(sent).sort()).toEqual(held.at(-1)!.map(sent).sort());
    }
    expect(held.length).toBeGreaterThanOrEqual(10);
    expect(acknowledged.map(text).sort()).toEqual(reference.device.log.map(text).sort());
    expect(acknowledged).toHaveLength(trimsAndWrites(workload) ? 800 : 400);
    const { read, write, trim, ended, errors } = run.result;
    expect([read.ios, write.ios, trim.ios]).toEqual([
      expected.read.ios,
      expected.write.ios,
      expected.trim.ios,
    ]);
    expect([ended.reason, errors]).toEqual(['finished', 0]);
  });
});

test('blocks of several sizes: bytes are counted once, and the limit of bytes holds', () => {
  const sizes = [
    { bytes: 512, share: 0.5 },
    { bytes: 1024, share: 0.5 },
  ];
  const split = { read: sizes, write: sizes, trim: sizes };
  const changes: Partial<Job> = { workload: 'randrw', blockSize: 1024, unit: 512, split, depth: 8 };
  const limits = { ioBlocks: 500, distribution: { kind: 'uniform' }, ioLimit: Infinity } as const;
  const all = { ...changes, ...limits, byteLimit: 200_000 };
  const expected = finish(world(all).run);
  const { run, lose, restart, live } = mortal(37, all);
  while (live()) {
    lose();
    restart();
  }
  expect([run.result.read.bytes, run.result.write.bytes]).toEqual([
    expected.read.bytes,
    expected.write.bytes,
  ]);
});

test('what was in flight is written again before it is compared', () => {
  const changes = { workload: 'randwrite', verify: true, depth: 8, ioBlocks: 128 } as const;
  const { run, held, lose, restart, live, last } = mortal(50, { ...changes, ioLimit: 128 });
  while (live()) {
    lose();
    // A write that was not acknowledged may have left anything.
    for (const { write, lba, blocks } of held.at(-1)!)
      if (write) last().disk.fill(0xa5, lba * LBA, (lba + blocks) * LBA);
    restart();
  }
  // Also in the middle of reading back.
  expect(held.some((ios) => ios.some(({ write }) => !write))).toBe(true);
  expect(run.result).toMatchObject({ verified: 128, mismatches: 0, ended: { reason: 'finished' } });
});

test('an acknowledged write that is lost is found', () => {
  const changes = { workload: 'write', verify: true, depth: 4, ioBlocks: 64 } as const;
  const { run, acknowledged, lose, restart, live, last } = mortal(40, changes);
  expect(live()).toBe(true);
  lose();
  const [{ lba }] = acknowledged as [Io];
  last().disk.fill(0, lba * LBA, (lba + 8) * LBA);
  restart();
  while (live()) {
    lose();
    restart();
  }
  expect(run.result).toMatchObject({ verified: 64, mismatches: 1, ended: { reason: 'mismatch' } });
});

test('completions that lie in the queue when the controller goes are taken', () => {
  const { run, device, state, queue, job } = world({ depth: 4, ioLimit: 4 });
  device.answer = () => undefined;
  expect(run.slice(1, 0)).toBe('quiet');
  device.complete(0);
  device.complete(2);
  state.paused = true;
  // The first of them starts the pause; nothing is sent for it.
  expect(run.slice(1, 0)).toBe('paused');
  expect([run.heldCount, run.result.read.ios]).toEqual([2, 2]);
  const next = new FakeDevice(queue, device.memory, device.disk);
  new Uint8Array(device.memory, 0, 0x10000).fill(0);
  state.paused = false;
  run.attach(queuePair(job, queue, next));
  expect(next.log.map(({ cid }) => cid).sort()).toEqual([1, 3]);
  expect(finish(run)).toMatchObject({ read: { ios: 4 }, ended: { reason: 'finished' } });
});

test('the latency of what is sent again counts from when it was sent first; the first I/O is told', () => {
  const { run, state, lose, restart, live } = mortal(40, { depth: 4, ioLimit: 100, ioBlocks: 100 });
  expect(live()).toBe(true);
  lose();
  expect(run.result.ended).toEqual({ reason: 'running', message: '' });
  const before = clock.now;
  clock.now += 20;
  expect(state.firstIoAt).toBe(0);
  restart();
  expect(live()).toBe(true);
  const latency = latencyOf(run.result.read);
  expect(latency.max).toBeGreaterThanOrEqual(20e6);
  // Those in flight, and no others.
  expect(latency.shareWithin(10e6)).toBeCloseTo(1 - 4 / latency.count, 5);
  expect(state.firstIoAt).toBeGreaterThan(before + 20);
  expect(state.firstIoAt).toBeLessThanOrEqual(clock.now);
  expect(state.measuredAt).toBeLessThan(before);
  expect(run.result.runtimeMs).toBeGreaterThan(20);
});

test('a run whose time ends in the gap ends with what was in flight', () => {
  const { run, lose, restart, live, acknowledged } = mortal(40, { depth: 4, runtimeMs: 30, ioBlocks: 1e4 });
  expect(live()).toBe(true);
  lose();
  clock.now += 40;
  restart();
  while (live()) {
    lose();
    restart();
  }
  expect(run.result.ended).toEqual({ reason: 'finished', message: '' });
  expect(run.result.read.ios).toBe(acknowledged.length);
  expect(acknowledged.length).toBe(44);
  expect(run.result.runtimeMs).toBeGreaterThan(40);
});

describe('in the gap', () => {
  test.each([
    ['stop', 'stopped', true],
    ['giveUp', 'stopped', true],
    ['abandon', 'lost', false],
  ] as const)('%s ends the job with what it has measured: %s', (wish, reason, counts) => {
    const { run, state, lose, live } = mortal(40, { depth: 4, ioLimit: 100, ioBlocks: 100 });
    expect(live()).toBe(true);
    lose();
    clock.now += 10;
    state[wish]();
    run.endPaused();
    expect(state.phase).toBe('done');
    expect(run.result).toMatchObject({ read: { ios: 40 }, errors: 0, ended: { reason } });
    // The time of the gap belongs to a run that was ended, and not to one that ended with its server.
    expect(run.result.runtimeMs >= 10).toBe(counts);
  });

  test('a job that was to end anyway does so without the controller, if that does not come back', () => {
    const { run, state, lose, live } = mortal(40, { depth: 4, ioLimit: 100, ioBlocks: 100 });
    expect(live()).toBe(true);
    state.stop();
    lose();
    run.endPaused();
    expect(run.result).toMatchObject({ read: { ios: 40 }, ended: { reason: 'stopped' } });
  });
});

test('samples: what was done before the gap stays in its interval', () => {
  const { job } = world();
  const tally = new JobTally(job);
  const sampler = new RunSampler(100);
  sampler.begin(1000);
  tally.read.recordAll(Float64Array.of(1, 1, 1), 3);
  sampler.take(1100, tally);
  tally.read.recordAll(Float64Array.of(1, 1), 2);
  // Lost at 1130, back at 1480.
  sampler.takeAfterGap(1480, tally);
  expect(sampler.samples('read').iops).toEqual([30, 20, 0, 0]);
  expect(sampler.samples('read').maxLatency.slice(2)).toEqual([0, 0]);
  tally.read.recordAll(Float64Array.of(1), 1);
  // The whole interval counts, not the part of it after the gap.
  expect(sampler.take(1500, tally)).toBe(true);
  expect(sampler.samples('read').iops).toEqual([30, 20, 0, 0, 10]);
  // A gap within an interval is seen in its rate alone.
  sampler.takeAfterGap(1550, tally);
  expect(sampler.samples('read').iops).toHaveLength(5);
});

test('a rate is not made up for after a gap', () => {
  const pacing = new Pacing({ ...PACE, iops: 1000 });
  pacing.started = 100;
  for (let count = 0; count < 10; count++) pacing.sent(512);
  expect(pacing.due).toBe(110);
  pacing.pass(5000);
  expect(pacing.due).toBe(5110);
});
