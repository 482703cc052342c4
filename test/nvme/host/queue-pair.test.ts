// SPDX-License-Identifier: MIT
import { VfioUserError, type VfioUserErrorCode } from '../../../lib/errors';
import { QueuePair } from '../../../lib/nvme/host';
import { MappedDoorbells, MessageDoorbells, SentDoorbells } from '../../../lib/nvme/host/doorbells';
import { turns } from '../../support/wait';
import type { DeviceRegion } from '../../../lib/pci';

const ENTRIES = 4;
const COMPLETIONS = 4096;

/** A queue pair, what it rings, and a device that completes by hand. */
function world(id = 3) {
  const memory = new ArrayBuffer(8192);
  const rung: [number, number][] = [];
  const queue = new QueuePair(
    { id, entries: ENTRIES, submissionOffset: 0, completionOffset: COMPLETIONS },
    memory,
    {
      tail: (queueId, value) => rung.push([queueId * 2, value]),
      head: (queueId, value) => rung.push([queueId * 2 + 1, value]),
    },
  );
  const completions = new Uint32Array(memory, COMPLETIONS);
  let head = 0;
  let phase = 1;
  return {
    queue,
    rung,
    /** NVMe base 2.0, 3.3.3.2: dword 0 result; dword 3 command id, phase tag in bit 16, status from bit 17. */
    complete: (cid: number, status = 0, result = 0): void => {
      completions[head * 4] = result;
      completions[head * 4 + 3] = ((status << 17) | (phase << 16) | cid) >>> 0;
      head = (head + 1) % ENTRIES;
      if (head === 0) phase ^= 1;
    },
    reap: (limit = ENTRIES): string[] => {
      const got: string[] = [];
      queue.poll(limit, (cid, status, result) => got.push(`${cid}/${status}/${result}`));
      return got;
    },
  };
}

test('entries are claimed in order, and wrap', () => {
  const { queue } = world();
  expect(queue).toMatchObject({ id: 3, entries: 4, capacity: 3, outstanding: 0 });
  expect([queue.claim(), queue.claim(), queue.claim(), queue.claim(), queue.claim()]).toEqual([
    0, 16, 32, 48, 0,
  ]);
  expect(queue.outstanding).toBe(5);
  expect(queue.submissions).toHaveLength(ENTRIES * 16);
  expect(queue.completions).toHaveLength(ENTRIES * 4);
});

test('one store tells of all entries that were claimed', () => {
  const { queue, rung } = world();
  queue.ring();
  queue.claim();
  queue.claim();
  queue.ring();
  queue.ring();
  expect(rung).toEqual([[6, 2]]);
  queue.claim();
  queue.claim();
  queue.ring();
  expect(rung).toEqual([
    [6, 2],
    [6, 0],
  ]);
});

test('completions are reaped by their phase, through several passes', () => {
  const { queue, rung, complete, reap } = world();
  expect(reap()).toEqual([]);
  expect(rung).toEqual([]);
  const heads: number[] = [];
  for (let index = 1; index <= 11; index++) {
    queue.claim();
    complete(index, 0, index * 2);
    expect(reap()).toEqual([`${index}/0/${index * 2}`]);
    expect(reap()).toEqual([]);
    heads.push(index % ENTRIES);
  }
  expect(queue.outstanding).toBe(0);
  expect(rung).toEqual(heads.map((head) => [7, head]));
});

test('a batch across the end of the queue rings once', () => {
  const { queue, rung, complete, reap } = world();
  for (let index = 0; index < 3; index++) queue.claim();
  complete(0);
  complete(1);
  expect(reap()).toHaveLength(2);
  complete(2);
  queue.claim();
  queue.claim();
  complete(0xffff, 0x7fff, 0xffff_ffff);
  complete(4);
  expect(reap()).toEqual(['2/0/0', '65535/32767/4294967295', '4/0/0']);
  expect(rung).toEqual([
    [7, 2],
    [7, 1],
  ]);
});

test('no more than the limit', () => {
  const { complete, reap } = world();
  complete(0);
  complete(1);
  complete(2);
  expect(reap(2)).toEqual(['0/0/0', '1/0/0']);
  expect(reap(0)).toEqual([]);
  expect(reap(2)).toEqual(['2/0/0']);
});

test('a handler that submits again finds the queue in order', () => {
  const { queue, complete } = world();
  queue.claim();
  complete(7);
  const claimed: number[] = [];
  expect(queue.poll(4, () => claimed.push(queue.claim()))).toBe(1);
  expect(claimed).toEqual([16]);
  expect(queue.outstanding).toBe(1);
});

test('a handler that throws does not see the same completion again', () => {
  const { queue, complete, reap } = world();
  complete(1);
  complete(2);
  expect(() =>
    queue.poll(4, () => {
      throw new Error('handler');
    }),
  ).toThrow('handler');
  expect(reap()).toEqual(['2/0/0']);
});

test.each([
  [0, [0, 1, 2, 7]],
  [1, [0, 2, 4, 14]],
  [4, [0, 16, 32, 112]],
])('mapped doorbells with a stride of %s', (dstrd, indexes) => {
  const words = new Uint32Array(128);
  const doorbells = new MappedDoorbells(words, dstrd);
  [0, 1, 2, 7].forEach((slot, index) => {
    if (slot % 2 === 0) doorbells.tail(slot / 2, index + 1);
    else doorbells.head((slot - 1) / 2, index + 1);
  });
  expect([...words.entries()].filter(([, value]) => value !== 0)).toEqual(
    indexes.map((index, value) => [index, value + 1]),
  );
});

test('a doorbell beyond what is mapped throws', () => {
  expect(() => {
    new MappedDoorbells(new Uint32Array(2), 0).tail(1, 1);
  }).toThrow(RangeError);
});

test.each([
  [0, 0x1014],
  [2, 0x1050],
])('doorbells by message with a stride of %s', (dstrd, offset) => {
  const write32Sync = jest.fn();
  // Nothing else of a region is used.
  const doorbells = new MessageDoorbells({ write32Sync } as Partial<DeviceRegion> as DeviceRegion, dstrd);
  doorbells.head(2, 9);
  doorbells.tail(2, 8);
  expect(write32Sync.mock.calls).toEqual([
    [offset, 9],
    [offset - (4 << dstrd), 8],
  ]);
});

describe('doorbells whose answers are not waited for', () => {
  const answered = async (code: VfioUserErrorCode) => {
    const write32 = jest.fn(() => Promise.reject(new VfioUserError(code, 'text')));
    const doorbells = new SentDoorbells({ write32 } as Partial<DeviceRegion> as DeviceRegion, 2);
    doorbells.head(2, 9);
    doorbells.tail(2, 8);
    await turns();
    expect(write32.mock.calls).toEqual([
      [0x1050, 9],
      [0x1040, 8],
    ]);
    return doorbells;
  };

  test.each(['ERR_VFIO_USER_TIMEOUT', 'ERR_VFIO_USER_DISCONNECTED', 'ERR_VFIO_USER_CLOSED'] as const)(
    'none is no error: %s',
    async (code) => {
      const doorbells = await answered(code);
      expect(() => {
        doorbells.tail(1, 1);
      }).not.toThrow();
    },
  );

  test('a refusal is the error of the next', async () => {
    const doorbells = await answered('ERR_VFIO_USER_REMOTE');
    expect(() => {
      doorbells.tail(1, 1);
    }).toThrow('text');
  });
});
