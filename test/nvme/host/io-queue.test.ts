// SPDX-License-Identifier: MIT
import { IoQueue, NvmeStatusError, QueuePair } from '../../../lib/nvme/host';
import { DmaArena } from '../../../lib/nvme/host/dma-arena';
import { NvmOpcode, encodeDatasetRanges } from '../../../lib/nvme/spec';
import { repeatedOpcodes } from '../../../lib/nvme/host/resubmission';
import { WriteCache } from '../../../lib/nvme/host/write-cache';
import { VfioUserError } from '../../../lib/errors';
import { turns, until } from '../../client/support';
import { unwatched } from './support';

const READ = 2;

/** An I/O queue whose device is this test. */
function world(depth = 3, maxTransfer = 131072, sgl = false) {
  const buffer = new ArrayBuffer(1 << 20);
  const arena = new DmaArena({
    buffer,
    iova: 0x10_0000,
    size: buffer.byteLength,
    fd: -1,
    fdOffset: 0,
    close: () => Promise.resolve(),
  });
  const chunk = arena.allocate(8192);
  const rings: number[] = [];
  let broken: Error | undefined;
  const doorbells = {
    tail: (_queueId: number, value: number): void => {
      if (broken !== undefined) throw broken;
      rings.push(value);
    },
    head: (): void => {
      if (broken !== undefined) throw broken;
    },
  };
  const placement = {
    id: 1,
    entries: depth + 1,
    submissionOffset: chunk.offset,
    completionOffset: chunk.offset + 4096,
  };
  const pair = new QueuePair(placement, buffer, doorbells);
  const deleted: string[] = [];
  const closed: IoQueue[] = [];
  const created = {
    queue: pair,
    placement,
    vector: undefined,
    interruptFd: undefined,
    delete: (): Promise<void> => {
      deleted.push('queues');
      return Promise.resolve();
    },
  };
  const queue = new IoQueue({
    pair: created,
    arena,
    maxTransfer,
    sgl,
    name: 'the device',
    repeated: repeatedOpcodes('reads'),
    cache: new WriteCache('the device'),
    watch: unwatched(),
    onClose: (one) => closed.push(one),
  });
  let head = 0;
  let phase = 1;
  return {
    queue,
    arena,
    rings,
    deleted,
    closed,
    words: new Uint32Array(buffer),
    base: arena.memory.iova,
    submissions: pair.submissions,
    breakDoorbells: (error: Error): void => {
      broken = error;
    },
    complete: (cid: number, status = 0): void => {
      pair.completions[head * 4 + 3] = ((status << 17) | (phase << 16) | cid) >>> 0;
      head = (head + 1) % (depth + 1);
      if (head === 0) phase ^= 1;
    },
    read: (lba = 0, address = 0, length = 0) => queue.submit(READ, 1, lba, 0, address, length),
  };
}

test('commands of one turn share a doorbell, more than fit wait', async () => {
  const { queue, rings, complete, read, submissions } = world(3);
  const reads = [read(5), read(6), read(7), read(8)];
  await until(() => rings.length === 1);
  expect(rings).toEqual([3]);
  expect(queue.outstanding).toBe(3);
  // Dword 0: command id and opcode; 1: namespace; 10: LBA; 12: blocks less 1.
  expect(
    [0, 16, 32].map((at) => [
      submissions[at]! & 0xff,
      submissions[at + 1],
      submissions[at + 10],
      submissions[at + 12],
    ]),
  ).toEqual([5, 6, 7].map((lba) => [READ, 1, lba, 0]));
  complete(submissions[16]! >>> 16);
  await reads[1];
  await until(() => rings.length === 2);
  expect(submissions[48 + 10]).toBe(8);
  for (const at of [0, 32, 48]) complete(submissions[at]! >>> 16);
  await Promise.all(reads);
  expect(queue.outstanding).toBe(0);
});

test('LBAs above 32 bits', async () => {
  const { rings, complete, read, submissions } = world();
  const one = read(0x12_3456_789a);
  await until(() => rings.length === 1);
  expect([submissions[10], submissions[11]]).toEqual([0x3456_789a, 0x12]);
  complete(submissions[0]! >>> 16);
  await one;
});

test('completions of what was never sent do no harm', async () => {
  const { queue, rings, complete, read, submissions } = world();
  const one = read();
  await until(() => rings.length === 1);
  complete(999);
  complete(submissions[0]! >>> 16 === 1 ? 2 : 1); // One that is not in flight.
  await turns();
  expect(queue.outstanding).toBe(1);
  complete(submissions[0]! >>> 16);
  await one;
  expect(queue.outstanding).toBe(0);
});

test('an error status', async () => {
  const { rings, complete, read, submissions } = world();
  const one = read(9);
  await until(() => rings.length === 1);
  complete(submissions[0]! >>> 16, 0x4080); // Do not retry, type 0, code 80h: LBA out of range.
  const error: unknown = await one.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(NvmeStatusError);
  expect(error).toBeInstanceOf(VfioUserError);
  expect(error).toMatchObject({
    code: 'ERR_VFIO_USER_NVME_STATUS',
    sct: 0,
    sc: 0x80,
    doNotRetry: true,
    message: expect.stringMatching(/LBA 9, 1 blocks/) as string,
  });
  expect(new VfioUserError('ERR_VFIO_USER_TIMEOUT', 'other')).not.toBeInstanceOf(NvmeStatusError);
});

test.each([1, 3, 10, 63])('with a depth of %s every PRP list lies within one page', async (depth) => {
  const { rings, read, submissions, base, words, queue } = world(depth);
  const reads = Array.from({ length: depth }, (_, index) =>
    read(0, 0x4000_0000 + index * 0x10_0000 + 512, 131072),
  );
  await until(() => rings.length === 1);
  const lists = new Set<number>();
  for (let index = 0; index < depth; index++) {
    const at = index * 16;
    const cid = submissions[at]! >>> 16;
    const list = submissions[at + 8]!;
    // 33 pages: PRP1 and 32 entries of 8 bytes.
    expect(list % 4096).toBeLessThanOrEqual(4096 - 32 * 8);
    expect(list % 8).toBe(0);
    expect(submissions[at + 6]).toBe(0x4000_0000 + index * 0x10_0000 + 512);
    expect(words[(list - base) / 4]).toBe(0x4000_0000 + index * 0x10_0000 + 4096);
    expect(words[(list - base) / 4 + 62]).toBe(0x4000_0000 + index * 0x10_0000 + 32 * 4096);
    lists.add(list);
    expect(cid).toBeLessThan(depth);
  }
  expect(lists.size).toBe(depth);
  queue.fail(new Error('over'));
  for (const one of reads) await expect(one).rejects.toThrow('over');
});

test('a controller that takes SGLs gets one descriptor in place of a PRP list, and PRPs for two pages or less', async () => {
  const { rings, read, submissions, words, queue } = world(4, 131072, true);
  words.fill(0xdddd_dddd);
  const reads = [
    read(0, 0x12_3456_7200, 131072),
    read(0, 0x4000_0000, 8192),
    // Two pages in length, but three of memory.
    read(0, 0x4000_0004, 8192),
    read(0, 0, 0),
  ];
  await until(() => rings.length === 1);
  const entry = (index: number) => submissions.subarray(index * 16, index * 16 + 10);
  // PSDT, bits 15:14 of dword 0, and dwords 6 to 9 (NVMe base 2.0, 3.3.3.1 and 4.1.2.1).
  const told = [0, 1, 2, 3].map((index) => [entry(index)[0]! & 0xffff, ...entry(index).subarray(6)]);
  expect(told).toEqual([
    [0x4002, 0x3456_7200, 0x12, 0x2_0000, 0],
    [0x0002, 0x4000_0000, 0, 0x4000_1000, 0],
    [0x4002, 0x4000_0004, 0, 0x2000, 0],
    [0x0002, 0, 0, 0, 0],
  ]);
  // But for the entries nothing was written: no PRP list.
  const first = submissions.byteOffset / 4;
  const others = words.filter((word, at) => (at < first || at >= first + 4 * 16) && word !== 0xdddd_dddd);
  expect(others).toHaveLength(0);
  queue.fail(new Error('over'));
  for (const one of reads) await expect(one).rejects.toThrow('over');
});

test('a doorbell that cannot be written fails the commands, and nothing is thrown elsewhere', async () => {
  const { breakDoorbells, read } = world();
  breakDoorbells(new Error('gone'));
  await expect(read()).rejects.toThrow('gone');
  await expect(read()).rejects.toThrow('gone');
});

test('the same when completions are acknowledged', async () => {
  const { breakDoorbells, rings, complete, read, submissions } = world();
  const [one, other] = [read(), read()];
  await until(() => rings.length === 1);
  breakDoorbells(new Error('gone'));
  complete(submissions[0]! >>> 16);
  await one;
  await expect(other).rejects.toThrow('gone');
});

test('close deletes the queue, gives its memory back, and fails what is in flight', async () => {
  const { queue, arena, deleted, closed, rings, read } = world();
  const one = expect(read()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  await until(() => rings.length === 1);
  await Promise.all([queue.close(), queue.close()]);
  await queue.close();
  await one;
  expect(deleted).toEqual(['queues']);
  expect(closed).toEqual([queue]);
  await expect(read()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  expect(arena.allocate((1 << 20) - 8192).offset).toBe(8192);
});

test('data that the driver keeps has memory that is used again', async () => {
  const { queue, arena, rings, complete, submissions, words, base } = world();
  const free = arena.allocate(4096);
  arena.release(free);
  for (const status of [0, 0x4001]) {
    const at = rings.length * 16;
    const ranges = encodeDatasetRanges([
      { lba: 0x12_3456_789a, blocks: 0xffff_ffff },
      { lba: 8, blocks: 1 },
    ]);
    // NVM command set 1.0, 3.2.3: CDW10 has the number of ranges less one, CDW11 AD in bit 2.
    const one = queue.submitData(NvmOpcode.datasetManagement, 3, 4 * 2 ** 32 + 1, 0, ranges);
    const before = rings.length;
    await until(() => rings.length > before);
    expect([
      submissions[at]! & 0xffff,
      submissions[at + 1],
      ...submissions.subarray(at + 10, at + 16),
    ]).toEqual([0x09, 3, 1, 4, 0, 0, 0, 0]);
    expect(submissions[at + 6]).toBe(free.iova);
    const data = (submissions[at + 6]! - base) / 4;
    expect([...words.subarray(data, data + 8)]).toEqual([0, 0xffff_ffff, 0x3456_789a, 0x12, 0, 1, 8, 0]);
    complete(submissions[at]! >>> 16, status);
    if (status === 0) await one;
    else {
      await expect(one).rejects.toMatchObject({
        message: expect.stringMatching(/^Dataset Management \(namespace 3\) failed/) as string,
      });
    }
  }
});

test('fused commands are entries one behind the other, which are told at once, also after a wait', async () => {
  const { queue, rings, submissions, complete } = world(3);
  const reads = [1, 2].map((lba) => queue.submit(READ, 1, lba, 0, 0x10_0000, 512));
  const pair = queue.compareAndWrite(3, 0x12_0000_0008, 0x4000_0000, 0x10_1000, 0x10_2000, 512);
  // Nobody overtakes a pair that waits for two entries.
  reads.push(queue.submit(READ, 1, 3, 0, 0x10_0000, 512));
  await until(() => rings.length === 1);
  await turns();
  expect(rings).toEqual([2]);
  complete(submissions[0]! >>> 16);
  await until(() => rings.length === 2);
  // The queue has 4 entries: the pair is in those 2 and 3.
  expect(rings).toEqual([2, 0]);
  const entry = (index: number): number[] => [...submissions.subarray(16 * index, 16 * index + 16)];
  const fields = (index: number): (number | undefined)[] =>
    [0, 1, 6, 10, 11, 12].map((at) => (at === 0 ? entry(index)[0]! & 0xffff : entry(index)[at]));
  // FUSE is bits 9:8 of CDW0: 1 for the first, a Compare, and 2 for the second, a Write (NVMe base 2.0, 3.4.2).
  expect(fields(2)).toEqual([0x0105, 3, 0x10_1000, 8, 0x12, 0x4000_0000]);
  expect(fields(3)).toEqual([0x0201, 3, 0x10_2000, 8, 0x12, 0x4000_0000]);
  // Compare Failure, and Command Aborted due to Failed Fused Command.
  complete(entry(2)[0]! >>> 16, 0x4285);
  complete(entry(3)[0]! >>> 16, 0x4009);
  await expect(pair).rejects.toMatchObject({ operation: 'Compare', sct: 2, sc: 0x85 });
  complete(submissions[16]! >>> 16);
  await until(() => rings.length === 3);
  complete(submissions[0]! >>> 16);
  await Promise.all(reads);
  await queue.close();
});

test('fused commands that were in flight fail when the connection is lost', async () => {
  const { queue, rings } = world(3);
  const pair = queue.compareAndWrite(1, 0, 0, 0x10_1000, 0x10_2000, 512);
  const waits = queue.compareAndWrite(1, 8, 0, 0x10_1000, 0x10_2000, 512);
  await until(() => rings.length === 1);
  const lost = new VfioUserError('ERR_VFIO_USER_DISCONNECTED', 'gone');
  // Compare alone would be repeated.
  expect(queue.suspend(lost)).toEqual({ failed: 2, resubmitted: 0 });
  await expect(pair).rejects.toBe(lost);
  queue.fail(lost);
  await expect(waits).rejects.toBe(lost);
});
