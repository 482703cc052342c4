// SPDX-License-Identifier: MIT
/** What the addon checks before it touches a queue; test/nvme/host/queue-loop.test.ts has what it does. */
import { closeSync } from 'node:fs';
import { Mapping, createSharedMemory } from '../../../lib/native';
import { NativeQueueLoop, type QueueLoopPlace } from '../../../lib/nvme/host/native-queue-loop';

const mappings: Mapping[] = [];
function map(size: number): Mapping {
  const fd = createSharedMemory(size);
  const mapping = Mapping.map(fd, 0, size);
  closeSync(fd);
  mappings.push(mapping);
  return mapping;
}
afterEach(() => {
  for (const mapping of mappings.splice(0)) mapping.close();
});

function place<Changes extends Partial<QueueLoopPlace>>(changes: Changes) {
  return {
    memory: map(4096),
    submissionOffset: 0,
    completionOffset: 1024,
    entries: 16,
    doorbells: map(4096),
    tailIndex: 2,
    headIndex: 3,
    depth: 4,
    sets: 1,
    room: 8,
    ...changes,
  };
}

test('queues and doorbells to the very end of their mappings', () => {
  const loop = new NativeQueueLoop(
    place({
      submissionOffset: 4096 - 1024,
      completionOffset: 4096 - 1024 - 256,
      tailIndex: 1023,
      headIndex: 1022,
    }),
  );
  expect(loop.run(0, 0, 1, 8, 1)).toBe(0);
  expect([loop.pointers.length, loop.cids.length, loop.times.length]).toEqual([16, 8, 8]);
});

test('a set that there is not is the last one', () => {
  const where = place({ sets: 2 });
  const loop = new NativeQueueLoop(where);
  loop.pointers.set([7], (4 + 1) * 4);
  loop.sets[0] = 0xffff_fff0;
  new Uint32Array(where.memory.buffer)[1024 / 4 + 3] = (1 << 16) | 1;
  expect(loop.run(0, 0, 1, 1, 1)).toBe(1);
  expect(new Uint32Array(where.memory.buffer)[6]).toBe(7);
});

test.each<[string, Partial<QueueLoopPlace>]>([
  ['a submission queue beyond the end', { submissionOffset: 4096 - 1024 + 4 }],
  ['a completion queue beyond the end', { completionOffset: 4096 - 256 + 4 }],
  ['an offset far beyond the end', { submissionOffset: 2 ** 53 - 1 - 3 }],
  ['queues longer than the memory', { entries: 65536 }],
  ['a submission queue that is not aligned', { submissionOffset: 2 }],
  ['a completion queue that is not aligned', { completionOffset: 1025 }],
  ['a tail beyond the doorbells', { tailIndex: 1024 }],
  ['a head beyond the doorbells', { headIndex: 1024 }],
])('%s is refused', (_, changes) => {
  expect(() => new NativeQueueLoop(place(changes))).toThrow(
    expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }) as Error,
  );
});

test.each<[string, Partial<QueueLoopPlace>]>([
  ['no entries', { entries: 1 }],
  ['too many entries', { entries: 65537 }],
  ['no command id', { depth: 0 }],
  ['no room', { room: 0 }],
  ['an offset below 0', { submissionOffset: -4 }],
])('%s', (_, changes) => {
  expect(() => new NativeQueueLoop(place(changes))).toThrow(/^Argument \d of the vfio-user addon/);
});

test('memory that is no mapping of the addon is refused', () => {
  const foreign = { buffer: new ArrayBuffer(4096) };
  const closed = map(4096);
  closed.close();
  for (const changes of [
    { memory: foreign },
    { doorbells: foreign },
    { memory: closed },
    { doorbells: closed },
  ])
    expect(() => new NativeQueueLoop(place(changes))).toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }) as Error,
    );
});

test.each(['memory', 'doorbells'] as const)('after the %s was unmapped nothing is taken', (which) => {
  const where = place({});
  const loop = new NativeQueueLoop(where);
  const completions = new Uint32Array(where.memory.buffer, 1024);
  completions[3] = 0x1_0000;
  completions[7] = 0x1_0000;
  expect(loop.run(0, 0, 1, 1, 1)).toBe(1);
  where[which].close();
  expect(loop.run(1, 1, 1, 1, 1)).toBe(0);
});

test.each([
  [16, 0],
  [0, 16],
  [2 ** 32 - 1, 0],
])('a tail of %i and a head of %i are not of the queue', (tail, head) => {
  const where = place({});
  new Uint32Array(where.memory.buffer, 1024).fill(0x1_0000);
  expect(new NativeQueueLoop(where).run(tail, head, 1, 8, 1)).toBe(0);
});

test('more than there is room for is cut', () => {
  const where = place({});
  new Uint32Array(where.memory.buffer, 1024).fill(0x1_0000, 0, 64);
  expect(new NativeQueueLoop(where).run(0, 0, 1, 2 ** 32 - 1, 1)).toBe(8);
});
