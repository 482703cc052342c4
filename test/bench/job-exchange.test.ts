// SPDX-License-Identifier: MIT
/** Jobs with entries written ahead: they do what jobs do that look around after each batch. */
import { closeSync } from 'node:fs';
import { MOST_AHEAD, queueEntries } from '../../lib/bench/entries-ahead';
import { Job } from '../../lib/bench/job';
import { WORKLOADS, type JobPlan } from '../../lib/bench/plan';
import { Mapping, createSharedMemory } from '../../lib/native';
import { MappedDoorbells } from '../../lib/nvme/host';
import { NativeQueueLoop } from '../../lib/nvme/host/native-queue-loop';
import { FakeDevice, MEMORY_BYTES, finish, world } from './fake-device';

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
    const ahead = world(changes);
    const each = world(changes, 'each turn');
    for (const { job } of [ahead, each]) finish(job);
    expect(order(ahead.device)).toEqual(order(each.device));
    expect(ahead.device.log).toHaveLength(1000);
    expect(Buffer.compare(ahead.device.disk, each.device.disk)).toBe(0);
    expect([ahead.job.reads, ahead.job.writes]).toEqual([each.job.reads, each.job.writes]);
    expect(ahead.job.outcome).toEqual(each.job.outcome);
    expect(ahead.device.deepest).toBe(depth);
  });
});

test('batches are counted by their size', () => {
  const { job, device } = world({ depth: 8, ioLimit: 80 });
  device.hold = 8;
  finish(job);
  // Of 5 to 8 each; what is rung together completes together.
  expect([...job.batchCounts]).toEqual([0, 0, 10, 0, 0, 0, 0]);
  expect(job.reads).toBe(80);
});

test('a command that fails ends the run, whatever was written ahead', () => {
  const { job, device } = world({ depth: 8, ioLimit: 1000, ioBlocks: 1000, blockSize: 512 });
  let count = 0;
  device.answer = () => (++count === 100 ? 0x0281 : 0);
  finish(job);
  expect(job.outcome).toMatchObject({ status: 0x0281, failedOpcode: 2, stalled: false });
  expect(device.log.length).toBeLessThanOrEqual(100 + 8);
  expect(job.reads).toBe(device.log.length - 1);
});

test.each([
  ['the same command twice in one batch', 1, 0],
  ['a command id that there is not', 9, 0],
  ['a command id that there is not, with a status', 9, 0x0281],
])('%s ends the run', (_, cid, status) => {
  const { job, device } = world({ depth: 4, ioLimit: 1000 });
  let count = 0;
  device.hold = 4;
  device.answer = () => {
    if (++count === 41) device.complete(cid, status);
    return 0;
  };
  finish(job);
  expect(job.outcome).toMatchObject({ stalled: true, status: 0 });
  expect(device.log.length).toBeLessThan(60);
});

test.each([
  ['a rate', { rate: 1e9 }],
  ['verification', { verify: true }],
])('with %s no entry is exchanged before a look at it', (_, changes) => {
  const { job, device, plan } = world({ workload: 'write', depth: 4, ioBlocks: 64, ...changes });
  const run = jest.fn(() => 0);
  const exchange = {
    pointers: new Uint32Array(16),
    cids: new Uint32Array(64),
    times: new Float64Array(64),
    run,
  };
  finish(new Job(plan, device.memory, device, exchange));
  expect(run).not.toHaveBeenCalled();
  expect(job.reads).toBe(0);
});

test.each([1, 7, 64])('the loop of the addon, at a depth of %i', (depth) => {
  const fds = [createSharedMemory(MEMORY_BYTES), createSharedMemory(4096)] as const;
  const memory = Mapping.map(fds[0], 0, MEMORY_BYTES);
  const doorbells = Mapping.map(fds[1], 0, 4096);
  for (const fd of fds) closeSync(fd);
  const changes: Partial<JobPlan> = {
    workload: 'randrw',
    depth,
    blockSize: 512,
    ioBlocks: 500,
    ioLimit: 2000,
  };
  const { plan } = world(changes);
  const device = new FakeDevice(plan, memory.buffer);
  const words = new Uint32Array(doorbells.buffer);
  const mapped = new MappedDoorbells(words, 0);
  const [tailIndex, headIndex] = [mapped.tailIndex(1), mapped.headIndex(1)];
  const place = { memory, ...plan.queue, doorbells, tailIndex, headIndex, depth, room: MOST_AHEAD };
  const job = new Job(plan, memory.buffer, mapped, new NativeQueueLoop(place));
  const before = performance.now();
  // One look at the queue in each slice; then the device does what was rung.
  for (let slices = 0; job.slice(1, 0) !== 'done'; slices++) {
    if (slices > 5000) throw new Error('the job does not end');
    device.tail(1, words[tailIndex]!);
  }
  const reference = world(changes, 'each turn');
  finish(reference.job);
  expect(order(device)).toEqual(order(reference.device));
  expect([job.reads, job.writes]).toEqual([reference.job.reads, reference.job.writes]);
  expect(words[headIndex]).toBe(2000 % plan.queue.entries);
  // The clocks of both forms are one.
  expect(job.readLatency.min).toBeGreaterThanOrEqual(0);
  expect(job.readLatency.max).toBeLessThan((performance.now() - before) * 1e6);
  expect(job.elapsedMs).toBeGreaterThan(0);
  expect(job.elapsedMs).toBeLessThan(performance.now() - before);
  doorbells.close();
  memory.close();
});
