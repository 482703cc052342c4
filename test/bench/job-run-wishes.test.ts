// SPDX-License-Identifier: MIT
/** How a job ends before its time, with commands in flight that complete when the test says so. */
import type { Job } from '../../lib/bench/job';
import { JOB_STATE_BYTES, JobState } from '../../lib/bench/job-state';
import { failure, finish, stray, world } from './fake-device';

/** A job that has sent `depth` commands, to a device that completes none by itself. */
function held(changes: Partial<Job> = {}, way?: 'loop' | 'each turn') {
  const one = world({ runtimeMs: Infinity, ioLimit: 1000, depth: 4, ...changes }, way);
  one.device.answer = () => undefined;
  expect(one.run.slice(1, 0)).toBe('quiet');
  return { ...one, cids: one.device.log.map((io) => io.cid) };
}

describe('the state that is shared', () => {
  test('wishes: to abandon is not taken back by the wish to stop', () => {
    const memory = new SharedArrayBuffer(JOB_STATE_BYTES);
    const [mine, theirs] = [new JobState(memory), new JobState(memory)];
    expect(theirs.wish).toBe(0);
    mine.stop();
    mine.stop();
    expect(theirs.wish).toBe(1);
    mine.abandon();
    expect(theirs.wish).toBe(2);
    mine.stop();
    expect(theirs.wish).toBe(2);
  });

  test('progress and phase', () => {
    const memory = new SharedArrayBuffer(JOB_STATE_BYTES);
    const [mine, theirs] = [new JobState(memory), new JobState(memory)];
    mine.stop();
    const progress = {
      reads: 2 ** 40,
      writes: 3,
      trims: 4,
      readBytes: 2 ** 52,
      writtenBytes: 5,
      trimmedBytes: 6,
      elapsedMs: 1.5,
    };
    mine.publish(progress);
    mine.processorShare = 0.25;
    for (const phase of ['ramp', 'run', 'verify', 'done'] as const) {
      mine.phase = phase;
      expect(theirs.phase).toBe(phase);
    }
    expect(theirs.progress).toEqual(progress);
    expect([theirs.processorShare, theirs.wish]).toEqual([0.25, 1]);
  });

  test('phases of a run that verifies', () => {
    const { run, device, state } = world({ workload: 'write', verify: true });
    const phases: string[] = [];
    device.answer = (io) => {
      phases.push(`${state.phase} ${io.write ? 'write' : 'read'}`);
      return 0;
    };
    finish(run);
    expect([...new Set(phases)]).toEqual(['run write', 'verify read']);
    expect(state.phase).toBe('done');
  });
});

describe('the wish to stop', () => {
  test('nothing more is sent, and all that is in flight is waited for', () => {
    const { run, device, state, cids } = held();
    state.stop();
    for (const cid of cids) {
      expect(run.slice(1, 0)).toBe('quiet');
      expect(state.phase).toBe('run');
      device.complete(cid);
    }
    expect(run.slice(1, 0)).toBe('done');
    expect(device.log).toHaveLength(4);
    expect([run.result.read.ios, state.progress.reads, state.phase]).toEqual([4, 4, 'done']);
    expect(run.result).toMatchObject({ ended: { reason: 'stopped', message: '' }, errors: 0 });
  });

  test('before the run has begun', () => {
    const { run, device, state } = world({ depth: 4 });
    state.stop();
    // What is sent before the job looks at its wishes is finished.
    expect(run.slice(0)).toBe('busy');
    expect(run.slice(0)).toBe('done');
    expect(device.log.length).toBeLessThanOrEqual(8);
    expect(run.result.read.ios).toBe(device.log.length);
  });

  test('then to abandon: the job waits no more', () => {
    const { run, state } = held();
    state.stop();
    expect(run.slice(1, 0)).toBe('quiet');
    state.abandon();
    expect(run.slice(1, 0)).toBe('done');
    state.stop();
    expect(state.wish).toBe(2);
    expect(run.result.read.ios).toBe(0);
  });
});

describe('the wish to give up', () => {
  test('the job ends at once, and tells what was in flight', () => {
    const { run, state, device, cids } = held();
    device.complete(cids[0]!);
    device.answer = () => undefined;
    expect(run.slice(1, 0)).toBe('quiet');
    state.stop();
    state.giveUp();
    state.stop();
    expect(run.slice(1, 0)).toBe('done');
    expect(run.result.read.ios).toBe(1);
    expect(run.result.ended).toEqual({
      reason: 'stalled',
      message:
        'had 4 commands in flight when the run was given up; look at its server, or wait longer with --timeout',
    });
  });

  test('does not take it back that the device is gone', () => {
    const { run, state } = held();
    state.abandon();
    state.giveUp();
    expect(run.slice(1, 0)).toBe('done');
    expect(run.result.ended.reason).toBe('lost');
  });
});

describe('a command that fails', () => {
  test('the others are waited for; the first failure is told, and no more is sent', () => {
    const { run, device, state, cids } = held({ workload: 'randread' });
    const [a, b, c, d] = cids as [number, number, number, number];
    device.complete(c, 0x0281);
    expect(run.slice(1, 0)).toBe('quiet');
    device.complete(a, 0x0004);
    device.complete(b);
    expect(run.slice(1, 0)).toBe('quiet');
    expect(state.phase).toBe('run');
    device.complete(d);
    expect(run.slice(1, 0)).toBe('done');
    expect(device.log).toHaveLength(4);
    expect(run.result.read.ios).toBe(2);
    const { lba } = device.log.find((io) => io.cid === c)!;
    expect(run.result).toMatchObject(failure(`Read at LBA ${lba}: Unrecovered read error (02/81)`));
  });

  test.each([
    // What completed before it in the batch is followed by another command.
    ['loop', 5, 3],
    ['each turn', 4, 2],
  ] as const)('in one batch with others that succeed, %s', (way, sent, done) => {
    const { run, device, cids } = held({ workload: 'write' }, way);
    const [a, b, c, d] = cids as [number, number, number, number];
    device.complete(a);
    device.complete(b, 0x4080);
    device.complete(c);
    device.complete(d, 0x0281);
    device.answer = () => 0;
    finish(run);
    expect(device.log).toHaveLength(sent);
    expect(run.result.write.ios).toBe(done);
    expect(run.result).toMatchObject(failure('Write at LBA 88: LBA out of range (00/80)'));
  });

  test('while blocks are read back', () => {
    const { run, device } = world({ workload: 'write', verify: true, depth: 2 });
    device.answer = (io) => (io.write ? 0 : 0x0281);
    finish(run);
    expect(run.result).toMatchObject({
      ...failure('Read at LBA 80: Unrecovered read error (02/81)'),
      mismatches: 0,
    });
    expect(device.log.filter((io) => !io.write).length).toBeLessThanOrEqual(4);
  });
});

describe('completions that make no sense', () => {
  test.each([0, 0x0281])('a command id twice, the second time with status %s', (status) => {
    const { run, device, cids } = held({ depth: 2, ioLimit: 2 });
    device.complete(cids[0]!);
    expect(run.slice(1, 0)).toBe('quiet');
    device.complete(cids[0]!, status);
    expect(run.slice(1, 0)).toBe('done');
    expect(run.result.read.ios).toBe(1);
    expect(run.result).toMatchObject({ ...stray(cids[0]!, 2), errors: 0 });
  });

  test.each([
    [2, 0],
    [2, 0x0281],
    [0xffff, 0],
    [0xffff, 0x7fff],
  ])('command id %s, which there is not, with status %s', (cid, status) => {
    const { run, device } = held({ depth: 2 });
    device.complete(cid, status);
    expect(run.slice(1, 0)).toBe('done');
    expect(run.result).toMatchObject({ ...stray(cid, 2), errors: 0 });
    expect(run.result.read.ios).toBe(0);
    expect(device.log).toHaveLength(2);
  });
});
