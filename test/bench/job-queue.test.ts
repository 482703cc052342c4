// SPDX-License-Identifier: MIT
/** Jobs that the queue loop keeps full: they do what jobs do that go one turn at a time. */
import { closeSync } from 'node:fs';
import { WORKLOADS, trimsAndWrites, type Job } from '../../lib/bench/job';
import { MOST_PREPARED, queueEntries } from '../../lib/bench/job-entries';
import { latencyOf } from '../../lib/bench/job-result';
import { JobRun } from '../../lib/bench/job-run';
import { Mapping, createSharedMemory } from '../../lib/native';
import { MappedDoorbells } from '../../lib/nvme/host/doorbells';
import { NativeQueueLoop } from '../../lib/nvme/host/native-queue-loop';
import { FakeDevice, MEMORY_BYTES, failure, finish, queuePair, stray, world, PACE } from './fake-device';

const order = (device: FakeDevice): string[] =>
  device.log.map(({ write, lba, nsid, blocks }) => [write, lba, nsid, blocks].join());

test.each([
  [1, 256, 6],
  [8, 256, 17],
  [64, 256, 129],
  [100, 256, 165],
  [128, 1024, 193],
  [200, 256, 256],
  [255, 256, 256],
])('queues for a depth of %i, of a controller that takes %i entries, have %i', (depth, most, entries) => {
  expect(queueEntries(depth, most)).toBe(entries);
});

describe.each(WORKLOADS)('%s', (workload) => {
  test.each([1, 3, 32, 128])('at a depth of %i', (depth) => {
    const changes = { workload, depth, blockSize: 512, ioBlocks: 500, ioLimit: 1000 };
    const loop = world(changes);
    const each = world(changes, 'each turn');
    const [one, other] = [finish(loop.run), finish(each.run)];
    expect(order(loop.device)).toEqual(order(each.device));
    // A trim with the write after it counts as one.
    expect(loop.device.log).toHaveLength(trimsAndWrites(workload) ? 2000 : 1000);
    expect(Buffer.compare(loop.device.disk, each.device.disk)).toBe(0);
    expect([one.read.ios, one.write.ios]).toEqual([other.read.ios, other.write.ios]);
    expect([one.ended, one.errors]).toEqual([{ reason: 'finished', message: '' }, 0]);
    expect([other.ended, other.errors]).toEqual([one.ended, one.errors]);
    expect(loop.device.deepest).toBe(depth);
  });
});

test('batches are counted by their size', () => {
  const { run, device } = world({ depth: 8, ioLimit: 80 });
  device.hold = 8;
  finish(run);
  // Of 5 to 8 each; what is rung together completes together.
  expect([...run.result.batchCounts]).toEqual([0, 0, 10, 0, 0, 0, 0]);
  expect(run.result.read.ios).toBe(80);
});

test('a command that fails ends the run, whatever was prepared', () => {
  const { run, device } = world({ depth: 8, ioLimit: 1000, ioBlocks: 1000, blockSize: 512 });
  let count = 0;
  device.answer = () => (++count === 100 ? 0x0281 : 0);
  finish(run);
  const lba = device.log[99]!.lba;
  expect(run.result).toMatchObject({
    ...failure(`Read at LBA ${lba}: Unrecovered read error (02/81)`),
    errors: 1,
  });
  expect(device.log.length).toBeLessThanOrEqual(100 + 8);
  expect(run.result.read.ios).toBe(device.log.length - 1);
});

test.each([
  ['the same command twice in one batch', 1, 0],
  ['a command id that there is not', 9, 0],
  ['a command id that there is not, with a status', 9, 0x0281],
])('%s ends the run', (_, cid, status) => {
  const { run, device } = world({ depth: 4, ioLimit: 1000 });
  let count = 0;
  device.hold = 4;
  device.answer = () => {
    if (++count === 41) device.complete(cid, status);
    return 0;
  };
  finish(run);
  expect(run.result).toMatchObject({ ...stray(cid, 4), errors: 0 });
  expect(device.log.length).toBeLessThan(60);
});

test.each([
  ['a rate', { pace: { ...PACE, iops: 1e9 } }],
  ['a think time', { pace: { ...PACE, thinkMs: 0.001, thinkIos: 3 } }],
  ['verification', { verify: true }],
])('with %s the loop does not run, as each turn needs a look', (_, changes) => {
  const { device, job, queue } = world({ workload: 'write', depth: 4, ioBlocks: 64, ...changes });
  const runLoop = jest.fn(() => 0);
  const loop = {
    pointers: new Uint32Array(16),
    sets: new Uint32Array(queue.entries),
    cids: new Uint32Array(64),
    times: new Float64Array(64),
    run: runLoop,
  };
  const { read, write } = finish(new JobRun(job, device.memory, queuePair(job, queue, device, { loop })));
  expect(runLoop).not.toHaveBeenCalled();
  expect([read.ios, write.ios]).toEqual([0, 64]);
});

test.each([1, 7, 64])('the loop of the addon, at a depth of %i', (depth) => {
  const fds = [createSharedMemory(MEMORY_BYTES), createSharedMemory(4096)] as const;
  const memory = Mapping.map(fds[0], 0, MEMORY_BYTES);
  const doorbells = Mapping.map(fds[1], 0, 4096);
  for (const fd of fds) closeSync(fd);
  const changes: Partial<Job> = {
    workload: 'randrw',
    depth,
    blockSize: 512,
    ioBlocks: 500,
    ioLimit: 2000,
  };
  const { job, queue } = world(changes);
  const device = new FakeDevice(queue, memory.buffer);
  const words = new Uint32Array(doorbells.buffer);
  const mapped = new MappedDoorbells(words, 0);
  const [tailIndex, headIndex] = [mapped.tailIndex(1), mapped.headIndex(1)];
  const place = {
    memory,
    ...queue,
    doorbells,
    tailIndex,
    headIndex,
    depth,
    sets: 1,
    room: MOST_PREPARED,
  };
  const access = { doorbells: mapped, loop: new NativeQueueLoop(place) };
  const run = new JobRun(job, memory.buffer, queuePair(job, queue, device, access));
  const before = performance.now();
  // One look at the queue in each slice; then the device does what was rung.
  for (let slices = 0; run.slice(1, 0) !== 'done'; slices++) {
    if (slices > 5000) throw new Error('the job does not end');
    device.tail(1, words[tailIndex]!);
  }
  const reference = world(changes, 'each turn');
  const expected = finish(reference.run);
  const { read, write, runtimeMs, ended } = run.result;
  expect(order(device)).toEqual(order(reference.device));
  expect([read.ios, write.ios]).toEqual([expected.read.ios, expected.write.ios]);
  expect(ended).toEqual({ reason: 'finished', message: '' });
  expect(words[headIndex]).toBe(2000 % queue.entries);
  // The clocks of both forms are one.
  expect(latencyOf(read).min).toBeGreaterThanOrEqual(0);
  expect(latencyOf(read).max).toBeLessThan((performance.now() - before) * 1e6);
  expect(runtimeMs).toBeGreaterThan(0);
  expect(runtimeMs).toBeLessThan(performance.now() - before);
  doorbells.close();
  memory.close();
});
