// SPDX-License-Identifier: MIT
/** What the addon checks before it touches a queue; test/nvme/host/exchange.test.ts has what it does. */
import { closeSync } from 'node:fs';
import { Mapping, QueueExchange, createSharedMemory } from '../../lib/native';
import type { QueueExchangePlace } from '../../lib/native/queue-exchange';
import { addon } from '../../lib/native/addon';

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

function place(changes: Partial<QueueExchangePlace> = {}): QueueExchangePlace {
  return {
    memory: map(4096),
    submissionOffset: 0,
    completionOffset: 1024,
    entries: 16,
    doorbells: map(4096),
    tailIndex: 2,
    headIndex: 3,
    depth: 4,
    room: 8,
    ...changes,
  };
}

test('queues and doorbells to the very end of their mappings', () => {
  const exchange = new QueueExchange(
    place({
      submissionOffset: 4096 - 1024,
      completionOffset: 4096 - 1024 - 256,
      tailIndex: 1023,
      headIndex: 1022,
    }),
  );
  expect(exchange.run(0, 0, 1, 8, 1)).toBe(0);
  expect([exchange.pointers.length, exchange.cids.length, exchange.times.length]).toEqual([16, 8, 8]);
});

test.each<[string, Partial<QueueExchangePlace>]>([
  ['a submission queue beyond the end', { submissionOffset: 4096 - 1024 + 4 }],
  ['a completion queue beyond the end', { completionOffset: 4096 - 256 + 4 }],
  ['an offset far beyond the end', { submissionOffset: 2 ** 53 - 1 - 3 }],
  ['queues longer than the memory', { entries: 65536 }],
  ['a submission queue that is not aligned', { submissionOffset: 2 }],
  ['a completion queue that is not aligned', { completionOffset: 1025 }],
  ['a tail beyond the doorbells', { tailIndex: 1024 }],
  ['a head beyond the doorbells', { headIndex: 1024 }],
])('%s is refused', (_, changes) => {
  expect(() => new QueueExchange(place(changes))).toThrow(
    expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }) as Error,
  );
});

test.each<[string, Partial<QueueExchangePlace>]>([
  ['no entries', { entries: 1 }],
  ['too many entries', { entries: 65537 }],
  ['no command id', { depth: 0 }],
  ['no room', { room: 0 }],
  ['an offset below 0', { submissionOffset: -4 }],
])('%s', (_, changes) => {
  expect(() => new QueueExchange(place(changes))).toThrow(/^Argument \d of the vfio-user addon/);
});

test('memory that is no mapping of the addon is refused', () => {
  const { memory, doorbells } = place();
  const create = (a: ArrayBuffer, b: ArrayBuffer) => addon().queueExchange(a, 0, 1024, 16, b, 2, 3, 4, 8, 0);
  expect(create(new ArrayBuffer(4096), doorbells.buffer)).toBe(-22);
  expect(create(memory.buffer, new ArrayBuffer(4096))).toBe(-22);
  doorbells.close();
  expect(create(memory.buffer, doorbells.buffer)).toBe(-22);
});

test.each(['memory', 'doorbells'] as const)('after the %s was unmapped nothing is taken', (which) => {
  const where = place();
  const exchange = new QueueExchange(where);
  const completions = new Uint32Array(where.memory.buffer, 1024);
  completions[3] = 0x1_0000;
  completions[7] = 0x1_0000;
  expect(exchange.run(0, 0, 1, 1, 1)).toBe(1);
  where[which].close();
  expect(exchange.run(1, 1, 1, 1, 1)).toBe(0);
});

test.each([
  [16, 0],
  [0, 16],
  [2 ** 32 - 1, 0],
])('a tail of %i and a head of %i are not of the queue', (tail, head) => {
  const where = place();
  new Uint32Array(where.memory.buffer, 1024).fill(0x1_0000);
  expect(new QueueExchange(where).run(tail, head, 1, 8, 1)).toBe(0);
});

test('more than there is room for is cut', () => {
  const where = place();
  new Uint32Array(where.memory.buffer, 1024).fill(0x1_0000, 0, 64);
  expect(new QueueExchange(where).run(0, 0, 1, 2 ** 32 - 1, 1)).toBe(8);
});
