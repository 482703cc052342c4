// SPDX-License-Identifier: MIT
/** How a job ends before its time, with commands in flight that complete when the test says so. */
import { JOB_STATE_BYTES, JobState, type JobPlan } from '../../lib/bench/plan';
import { finish, world } from './fake-device';

/** A job that has sent `depth` commands, to a device that completes none by itself. */
function held(changes: Partial<JobPlan> = {}, ahead?: 'ahead' | 'each turn') {
  const one = world({ runtimeMs: Infinity, ioLimit: 1000, depth: 4, ...changes }, ahead);
  one.device.answer = () => undefined;
  expect(one.job.slice(1, 0)).toBe('quiet');
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
    mine.publish(2 ** 40, 3, 1.5);
    for (const phase of ['ramp', 'run', 'verify', 'done'] as const) {
      mine.phase = phase;
      expect(theirs.phase).toBe(phase);
    }
    expect([theirs.reads, theirs.writes, theirs.elapsedMs, theirs.wish]).toEqual([2 ** 40, 3, 1.5, 1]);
  });

  test('phases of a run that verifies', () => {
    const { job, device, state } = world({ workload: 'write', verify: true });
    const phases: string[] = [];
    device.answer = (io) => {
      phases.push(`${state.phase} ${io.write ? 'write' : 'read'}`);
      return 0;
    };
    finish(job);
    expect([...new Set(phases)]).toEqual(['run write', 'verify read']);
    expect(state.phase).toBe('done');
  });
});

describe('the wish to stop', () => {
  test('nothing more is sent, and all that is in flight is waited for', () => {
    const { job, device, state, cids } = held();
    state.stop();
    for (const cid of cids) {
      expect(job.slice(1, 0)).toBe('quiet');
      expect(state.phase).toBe('run');
      device.complete(cid);
    }
    expect(job.slice(1, 0)).toBe('done');
    expect(device.log).toHaveLength(4);
    expect([job.reads, state.reads, state.phase]).toEqual([4, 4, 'done']);
    expect(job.outcome).toMatchObject({ status: 0, stalled: false });
  });

  test('before the run has begun', () => {
    const { job, device, state } = world({ depth: 4 });
    state.stop();
    // What is sent before the job looks at its wishes is finished.
    expect(job.slice(0)).toBe('busy');
    expect(job.slice(0)).toBe('done');
    expect(device.log.length).toBeLessThanOrEqual(8);
    expect(job.reads).toBe(device.log.length);
  });

  test('then to abandon: the job waits no more', () => {
    const { job, state } = held();
    state.stop();
    expect(job.slice(1, 0)).toBe('quiet');
    state.abandon();
    expect(job.slice(1, 0)).toBe('done');
    state.stop();
    expect(state.wish).toBe(2);
    expect(job.reads).toBe(0);
  });
});

describe('a command that fails', () => {
  test('the others are waited for; the first failure is told, and no more is sent', () => {
    const { job, device, state, cids } = held({ workload: 'randread' });
    const [a, b, c, d] = cids as [number, number, number, number];
    device.complete(c, 0x0281);
    expect(job.slice(1, 0)).toBe('quiet');
    device.complete(a, 0x0004);
    device.complete(b);
    expect(job.slice(1, 0)).toBe('quiet');
    expect(state.phase).toBe('run');
    device.complete(d);
    expect(job.slice(1, 0)).toBe('done');
    expect(device.log).toHaveLength(4);
    expect(job.reads).toBe(2);
    expect(job.outcome).toMatchObject({
      status: 0x0281,
      failedOpcode: 2,
      failedLba: device.log.find((io) => io.cid === c)!.lba,
      stalled: false,
    });
  });

  test.each([
    // What completed before it in the batch is followed by another command.
    ['ahead', 5, 3],
    ['each turn', 4, 2],
  ] as const)('in one batch with others that succeed, %s', (ahead, sent, done) => {
    const { job, device, cids } = held({ workload: 'write' }, ahead);
    const [a, b, c, d] = cids as [number, number, number, number];
    device.complete(a);
    device.complete(b, 0x4080);
    device.complete(c);
    device.complete(d, 0x0281);
    device.answer = () => 0;
    finish(job);
    expect(device.log).toHaveLength(sent);
    expect(job.writes).toBe(done);
    expect(job.outcome).toMatchObject({ status: 0x4080, failedOpcode: 1, failedLba: 80 + 8 });
  });

  test('while blocks are read back', () => {
    const { job, device } = world({ workload: 'write', verify: true, depth: 2 });
    device.answer = (io) => (io.write ? 0 : 0x0281);
    finish(job);
    expect(job.outcome).toMatchObject({ status: 0x0281, failedOpcode: 2, stalled: false, mismatches: 0 });
    expect(device.log.filter((io) => !io.write).length).toBeLessThanOrEqual(4);
  });
});

describe('completions that make no sense', () => {
  test.each([0, 0x0281])('a command id twice, the second time with status %s', (status) => {
    const { job, device, cids } = held({ depth: 2, ioLimit: 2 });
    device.complete(cids[0]!);
    expect(job.slice(1, 0)).toBe('quiet');
    device.complete(cids[0]!, status);
    expect(job.slice(1, 0)).toBe('done');
    expect(job.reads).toBe(1);
    expect(job.outcome).toMatchObject({ stalled: true, status: 0 });
  });

  test.each([
    [2, 0],
    [2, 0x0281],
    [0xffff, 0],
    [0xffff, 0x7fff],
  ])('command id %s, which there is not, with status %s', (cid, status) => {
    const { job, device } = held({ depth: 2 });
    device.complete(cid, status);
    expect(job.slice(1, 0)).toBe('done');
    expect(job.outcome).toMatchObject({ stalled: true, status: 0 });
    expect(job.reads).toBe(0);
    expect(device.log).toHaveLength(2);
  });
});
