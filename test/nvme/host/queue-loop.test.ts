// SPDX-License-Identifier: MIT
/** The loop of a full queue, in both of its forms. */
import { closeSync } from 'node:fs';
import fc from 'fast-check';
import { Mapping, createSharedMemory } from '../../../lib/native';
import { QueuePair } from '../../../lib/nvme/host';
import { MappedDoorbells } from '../../../lib/nvme/host/doorbells';
import { NativeQueueLoop } from '../../../lib/nvme/host/native-queue-loop';
import type { QueueLoop } from '../../../lib/nvme/host/queue-loop';
import { ScriptQueueLoop } from '../../../lib/nvme/host/script-queue-loop';

const ID = 2;
const COMPLETIONS = 0x4000;
const BYTES = 0x8000;

/** A queue pair over shared memory with one of the two loops. */
function world(form: 'addon' | 'TypeScript', entries: number, depth: number, room: number) {
  const fds = [createSharedMemory(BYTES), createSharedMemory(4096)] as const;
  const memory = Mapping.map(fds[0], 0, BYTES);
  const doorbells = Mapping.map(fds[1], 0, 4096);
  for (const fd of fds) closeSync(fd);
  const words = new Uint32Array(doorbells.buffer);
  const mapped = new MappedDoorbells(words, 0);
  const placement = { id: ID, entries, submissionOffset: 0, completionOffset: COMPLETIONS };
  const queue = new QueuePair(placement, memory.buffer, mapped);
  const loop: QueueLoop =
    form === 'TypeScript'
      ? new ScriptQueueLoop(queue, mapped, depth, 2, room)
      : new NativeQueueLoop({
          memory,
          ...placement,
          doorbells,
          tailIndex: mapped.tailIndex(ID),
          headIndex: mapped.headIndex(ID),
          depth,
          sets: 2,
          room,
        });
  for (let index = 0; index < loop.pointers.length; index++) loop.pointers[index] = 0xd000_0000 + index;
  return {
    queue,
    loop,
    /** Doorbells of the queue pair, tail and head. */
    rung: () => [...words.subarray(ID * 2, ID * 2 + 2)],
    close: () => {
      doorbells.close();
      memory.close();
    },
  };
}

/** NVMe base 2.0, 3.3.3.2: dword 3 has the command id, the phase tag in bit 16, the status from bit 17. */
const completion = (cid: number, phase: number, status = 0): number =>
  ((status << 17) | (phase << 16) | cid) >>> 0;

describe.each(['addon', 'TypeScript'] as const)('the loop in the %s', (form) => {
  let one: ReturnType<typeof world>;
  beforeEach(() => {
    one = world(form, 8, 4, 6);
  });
  afterEach(() => {
    one.close();
  });

  test('an entry gets command id and data pointer of the command that completed', () => {
    const { queue, loop } = one;
    // NVMe base 2.0, 3.3.3.1: dword 0 has the opcode in bits 7:0, PSDT in 15:14, the command id in 31:16.
    queue.submissions.fill(0xffff_ffff);
    queue.submissions[0] = 0xabcd_4002;
    queue.completions[3] = completion(2, 1);
    const before = performance.now();
    expect(queue.runLoop(loop, 4, 10)).toBe(1);
    expect([...queue.submissions.subarray(0, 17)].map((word) => word.toString(16))).toEqual([
      '24002',
      ...Array<string>(5).fill('ffffffff'),
      'd0000008',
      'd0000009',
      'd000000a',
      'd000000b',
      ...Array<string>(7).fill('ffffffff'),
    ]);
    expect(loop.cids[0]).toBe(2);
    expect(loop.times[0]).toBeGreaterThan(before - 1);
    expect(loop.times[0]).toBeLessThan(performance.now() + 1);
    expect(one.rung()).toEqual([1, 1]);
    expect([queue.tail, queue.outstanding]).toEqual([1, 0]);
  });

  test('an entry gets its data pointer from its set', () => {
    const { queue, loop } = one;
    loop.sets[1] = 4 * 4;
    for (let entry = 0; entry < 3; entry++) queue.completions[entry * 4 + 3] = completion(entry, 1);
    expect(queue.runLoop(loop, 3, 10)).toBe(3);
    const pointers = [0, 1, 2].map((entry) => queue.submissions[entry * 16 + 6]! - 0xd000_0000);
    expect(pointers).toEqual([0, 16 + 4, 8]);
  });

  test('no more than there are entries ready', () => {
    const { queue, loop } = one;
    for (let entry = 0; entry < 6; entry++) queue.completions[entry * 4 + 3] = completion(entry % 4, 1);
    expect(queue.runLoop(loop, 2, 10)).toBe(2);
    expect(one.rung()).toEqual([2, 2]);
    expect(queue.runLoop(loop, 0, 10)).toBe(0);
    expect(queue.runLoop(loop, 100, 10)).toBe(4);
    expect([...loop.cids.subarray(0, 4)]).toEqual([2, 3, 0, 1]);
    expect(new Set(loop.times.subarray(0, 4)).size).toBe(1);
    expect(one.rung()).toEqual([6, 6]);
  });

  test('no more than there is room for in the record of a run and in the queue', () => {
    const { queue, loop } = one;
    for (let entry = 0; entry < 8; entry++) queue.completions[entry * 4 + 3] = completion(0, 1);
    expect(queue.runLoop(loop, 100, 10)).toBe(6);
    expect(queue.runLoop(loop, 100, 10)).toBe(2);
    const other = world(form, 8, 4, 6);
    for (let entry = 0; entry < 8; entry++) other.queue.completions[entry * 4 + 3] = completion(0, 1);
    for (let command = 0; command < 5; command++) other.queue.claim();
    other.queue.ring();
    // Of the 7 entries that can be outstanding 5 are.
    expect(other.queue.runLoop(other.loop, 100, 10)).toBe(2);
    other.close();
  });

  test('tail, head and phase wrap', () => {
    const { queue, loop } = one;
    for (let lap = 0; lap < 5; lap++) {
      for (let entry = 0; entry < 8; entry++) {
        queue.completions[entry * 4 + 3] = completion(entry % 4, 1 - (lap % 2));
        expect(queue.runLoop(loop, 3, 1)).toBe(1);
        expect(one.rung()).toEqual([(entry + 1) % 8, (entry + 1) % 8]);
        expect(queue.runLoop(loop, 3, 1)).toBe(0);
      }
    }
    // reap() goes on where the loop ended.
    queue.completions[3] = completion(3, 0, 0x81);
    expect(queue.reap()).toBe((0x81 << 16) | 3);
  });

  test.each([
    ['a status', completion(1, 1, 0x0281)],
    ['a command id without a data pointer', completion(4, 1)],
  ])('%s stays where it is, and what came before is taken', (_, word) => {
    const { queue, loop } = one;
    queue.completions[3] = completion(3, 1);
    queue.completions[7] = word;
    queue.completions[11] = completion(2, 1);
    expect(queue.runLoop(loop, 6, 100)).toBe(1);
    expect(queue.runLoop(loop, 6, 100)).toBe(0);
    expect(queue.reap() & 0xffff).toBe(word & 0xffff);
    expect(queue.runLoop(loop, 6, 100)).toBe(1);
    expect(one.rung()).toEqual([2, 3]);
  });

  test.each([0, 1, 5000])('an empty queue is given up after %i µs', (patience) => {
    const before = performance.now();
    expect(one.queue.runLoop(one.loop, 6, patience)).toBe(0);
    // The clocks of the two sides are not read at the same moment.
    expect((performance.now() - before) * 1000).toBeGreaterThanOrEqual(patience - 1);
    expect(one.rung()).toEqual([0, 0]);
  });

  test('from 8 commands in flight on, the queue is not looked at all the time, but as long', () => {
    const deep = world(form, 32, 16, 16);
    deep.queue.completions[3] = completion(15, 1);
    const before = performance.now();
    expect(deep.queue.runLoop(deep.loop, 16, 5000)).toBe(1);
    expect((performance.now() - before) * 1000).toBeGreaterThanOrEqual(5000 - 1);
    expect(deep.rung()).toEqual([1, 1]);
    deep.close();
  });
});

test('both forms do the same to any queue', () => {
  const entry = fc.record({
    cid: fc.integer({ min: 0, max: 5 }),
    phase: fc.integer({ min: 0, max: 1 }),
    status: fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, fc.constantFrom(1, 0x7fff)),
  });
  const runs = fc.array(
    fc.tuple(fc.integer({ min: 0, max: 9 }), fc.array(entry, { minLength: 8, maxLength: 8 })),
    {
      minLength: 1,
      maxLength: 6,
    },
  );
  fc.assert(
    fc.property(runs, (steps) => {
      const [a, b] = [world('addon', 8, 4, 6), world('TypeScript', 8, 4, 6)];
      try {
        for (const [ready, completions] of steps) {
          const states = [a, b].map(({ queue, loop, rung }) => {
            completions.forEach(({ cid, phase, status }, index) => {
              queue.completions[index * 4 + 3] = completion(cid, phase, status);
            });
            const count = queue.runLoop(loop, ready, 3);
            const cids = [...loop.cids.subarray(0, count)];
            return { count, cids, rung: rung(), tail: queue.tail, submissions: [...queue.submissions] };
          });
          expect(states[0]).toEqual(states[1]);
        }
      } finally {
        a.close();
        b.close();
      }
    }),
    { numRuns: 300 },
  );
});
