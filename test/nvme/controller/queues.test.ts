// SPDX-License-Identifier: MIT
import { Mapping } from '../../../lib/native';
import { ClientView } from '../../../lib/nvme/controller/client-view';
import { CompletionQueue } from '../../../lib/nvme/controller/queue';
import { QueueSet } from '../../../lib/nvme/controller/queue-set';
import { Address, FakeMemory, Host, type HostQueue, turns, until } from './support';

let host: Host;
let queue: HostQueue;
beforeEach(() => {
  host = new Host();
  host.enable();
});
afterEach(() => {
  jest.restoreAllMocks();
  host.close();
});

const flush = { opcode: 0, nsid: 1 };

/** A completion queue of 4 entries, whose memory is not looked up yet. */
function smallQueue(): CompletionQueue {
  const memory = new FakeMemory();
  memory.add(0, 64);
  const view = new ClientView();
  view.attach(memory);
  return new CompletionQueue(1, { view, iova: 0, entries: 4 }, -1);
}

test('the phase changes with each pass, and SQHD and SQID are right at the wrap', async () => {
  queue = await host.createQueues(2, 4, 3);
  for (let i = 1; i <= 50; i++) {
    const result = await host.run(queue, flush);
    expect(result).toMatchObject({ status: '00/00', sqHead: i % 4, sqId: 2 });
  }
});

test('a full completion queue holds commands back, and loses none', async () => {
  queue = await host.createQueues(1, 16, 4);
  const cids = Array.from({ length: 15 }, () => host.push(queue, flush));
  host.ring(queue);
  await turns();
  const got: number[] = [];
  for (let i = 0; i < 3; i++) got.push(host.take(queue, false)?.cid ?? -1);
  await turns();
  expect(host.take(queue, false)).toBeUndefined();
  expect(host.controller.statistics.otherCommands).toBe(3);
  host.write32(0x100c, queue.head);
  while (got.length < 15) got.push((await host.completion(queue)).cid);
  expect(got).toEqual(cids);
});

test('an event that finds the completion queue full waits for room', async () => {
  host.write32(0x14, 0);
  host.enable(8, 3);
  const aer = host.push(host.admin, { opcode: 0x0c });
  host.push(host.admin, { opcode: 0x18 });
  host.push(host.admin, { opcode: 0x18 });
  host.ring(host.admin);
  await turns();
  host.write32(0x1018, 1);
  await turns();
  expect(host.take(host.admin, false)?.status).toBe('00/00');
  expect(host.take(host.admin, false)?.status).toBe('00/00');
  expect(host.take(host.admin, false)).toBeUndefined();
  host.write32(0x1004, host.admin.head);
  expect((await host.completion(host.admin)).cid).toBe(aer);
});

test.each([77, 0xffff_ffff, 4])('the head %i is told once, and ignored', async (head) => {
  queue = await host.createQueues(1, 16, 4);
  host.push(host.admin, { opcode: 0x0c });
  host.ring(host.admin);
  const cids = Array.from({ length: 8 }, () => host.push(queue, flush));
  host.ring(queue);
  host.write32(0x100c, head);
  expect((await host.completion(host.admin)).dw0).toBe(0x0001_0100);
  await turns();
  expect(host.controller.statistics.badDoorbells).toBe(1);
  const got: number[] = [];
  while (got.length < 8) got.push((await host.completion(queue)).cid);
  expect(got).toEqual(cids);
});

test('a head beyond the tail is told, and ignored', () => {
  const cq = smallQueue();
  expect(cq.locate(0)).toBe(true);
  const doorbells = Int32Array.of(0);
  cq.listen(doorbells, 0);
  cq.post(1, 0, 1, 0, 0);
  cq.reserved = 2;
  doorbells[0] = 2; // One entry was written, the host claims two.
  expect([cq.room(), cq.badHead]).toEqual([0, true]);
  cq.badHead = false;
  expect([cq.room(), cq.badHead]).toEqual([0, false]);
  doorbells[0] = 1;
  expect([cq.room(), cq.badHead]).toEqual([1, false]);
});

test('one interrupt for the completions of a batch, on the vector of the queue', async () => {
  queue = await host.createQueues(3);
  host.interrupts.length = 0;
  for (let i = 0; i < 10; i++) host.push(queue, flush);
  host.ring(queue);
  for (let i = 0; i < 10; i++) await host.completion(queue);
  expect(host.interrupts).toEqual([3]);
  expect(host.controller.statistics.interrupts).toBeGreaterThan(0);
});

test('submission queues that share a completion queue', async () => {
  queue = await host.createQueues(1);
  const second = host.queue(2, Address.sq + 0x4000, queue.cq, 16, 16);
  const created = await host.adminCommand({
    opcode: 1,
    prp1: second.sq,
    cdw10: 0x000f_0002,
    cdw11: 0x1_0001,
  });
  expect(created.status).toBe('00/00');
  host.push(second, flush);
  host.push(queue, flush);
  host.ring(second);
  host.ring(queue);
  const ids = [(await host.completion(queue)).sqId, (await host.completion(queue)).sqId];
  expect(ids.sort()).toEqual([1, 2]);
  expect((await host.adminCommand({ opcode: 0, cdw10: 1 })).status).toBe('00/00');
  expect((await host.adminCommand({ opcode: 4, cdw10: 1 })).status).toBe('01/0c DNR');
});

test('an idle controller is woken by a doorbell that nobody told of', async () => {
  const wantDoorbells = jest.spyOn(QueueSet.prototype, 'wantDoorbells');
  host.close();
  host = new Host({ idleAfter: 0, pollSlice: 0 });
  host.enable();
  queue = await host.createQueues();
  await until(() => wantDoorbells.mock.lastCall?.[0] === true, 'it sleeps');
  host.push(queue, flush);
  // As a store to mapped memory, which the region handler does not see.
  const { fd } = host.controller.pci.bars?.[0]?.shared ?? {};
  if (typeof fd !== 'function') throw new Error("the doorbells are not each client's own");
  using mapping = Mapping.map(fd(host.client), 0, 0x2000);
  new Uint32Array(mapping.buffer)[0x1008 / 4] = queue.tail;
  expect((await host.completion(queue)).status).toBe('00/00');
});

describe('memory that comes and goes while the controller is enabled', () => {
  test('QEMU: all of it is unmapped, and mapped again in pieces', async () => {
    queue = await host.createQueues();
    expect((await host.run(queue, flush)).status).toBe('00/00');
    const { main } = host;
    host.controller.unmapping(main);
    host.memory.remove(main);
    host.controller.mapped();
    // A doorbell that is rung meanwhile is not lost. (The host still has its memory.)
    const sq = main.bytes.subarray(queue.sq - Address.memory, queue.sq - Address.memory + 0x1000);
    sq.copyWithin(queue.tail * 64, 0, 64);
    queue.tail++;
    host.ring(queue);
    await turns();
    expect(host.read32(0x1c)).toBe(1);
    const split = 0x3_8000;
    for (const [offset, size] of [
      [0, split],
      [split, main.size - split],
    ] as const) {
      const bytes = new Uint8Array(main.bytes.buffer, offset, size);
      host.memory.add(Address.memory + offset, size, { bytes });
      host.controller.mapped();
    }
    expect((await host.completion(queue)).status).toBe('00/00');
    expect((await host.run(queue, { opcode: 2, nsid: 1, prp1: Address.data })).status).toBe('00/00');
    expect((await host.adminCommand({ opcode: 6, cdw10: 1 })).status).toBe('00/00');
  });

  test('a range that is about to go is not touched, even if it is still listed', async () => {
    queue = await host.createQueues();
    host.controller.unmapping(host.main);
    host.push(queue, flush);
    host.ring(queue);
    await turns();
    expect(host.take(queue)).toBeUndefined();
  });

  test('a queue that stays unmapped while it has commands is fatal', async () => {
    queue = await host.createQueues();
    host.push(queue, flush);
    host.controller.unmapping(host.main);
    host.memory.remove(host.main);
    host.ring(queue);
    await until(() => host.read32(0x1c) === 3);
    expect(host.controller.fault).toMatch(/queue 1 is in use/);
    host.memory.add(Address.memory, Address.memoryEnd - Address.memory);
    host.write32(0x14, 0);
    host.enable();
    expect(host.read32(0x1c)).toBe(1);
    expect(host.controller.fault).toBeNull();
  });

  test('memory that is detached against the contract is no crash', async () => {
    queue = await host.createQueues();
    structuredClone(host.main.buffer, { transfer: [host.main.buffer as ArrayBuffer] });
    host.write32(0x1008, 1);
    await turns();
    host.write32(0x1000, 0);
    await turns();
    expect([1, 3]).toContain(host.read32(0x1c));
  });
});

describe('clients that come and go', () => {
  test('the next one finds the controller as after power-on, and the data', async () => {
    queue = await host.createQueues();
    host.memory.bytes(Address.data, 512).fill(0x42);
    expect((await host.run(queue, { opcode: 1, nsid: 1, prp1: Address.data })).status).toBe('00/00');
    host.write32(0x04, 0x0406, 7);
    host.push(queue, flush);
    host.ring(queue);
    host.detach();
    await turns();
    expect(host.controller.statistics.otherCommands).toBe(0);
    expect([host.read32(0x14), host.read32(0x1c), host.read32(0x1008)]).toEqual([0, 0, 0]);
    expect(host.read32(0x04, 7) & 0x0406).toBe(0);
    host.attach();
    host.enable();
    queue = await host.createQueues();
    host.memory.bytes(Address.data, 512).fill(0);
    expect((await host.run(queue, { opcode: 2, nsid: 1, prp1: Address.data })).status).toBe('00/00');
    expect(host.memory.bytes(Address.data, 512).every((byte) => byte === 0x42)).toBe(true);
  });

  test('without a client nothing is polled', async () => {
    queue = await host.createQueues();
    host.detach();
    const set = jest.spyOn(globalThis, 'setImmediate');
    host.write32(0x1008, 1);
    host.write32(0x1000, 1);
    expect(set).toHaveBeenCalledTimes(0);
    set.mockRestore();
  });

  test('close is idempotent', () => {
    host.close();
    host.close();
  });
});

test('random queue contents and doorbells are no crash', async () => {
  let seed = 12345;
  const random = (): number => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0);
  for (let round = 0; round < 30; round++) {
    host.write32(0x14, 0);
    await until(() => host.read32(0x1c) === 0);
    host.enable();
    queue = await host.createQueues();
    for (const at of [Address.sq, Address.asq]) {
      const words = host.memory.words(at, 16 * 16);
      for (let i = 0; i < words.length; i++) words[i] = random() >>> (random() % 32);
      for (let i = 0; i < words.length; i += 16) {
        words[i + 1] = 1; // Namespace 1, known opcodes and mapped pages get further.
        words[i] = ((words[i] as number) & 0xffff_0000) | [0, 1, 2, 5, 8, 9][random() % 6]!;
        words[i + 6] = Address.data + (random() & 0xffff);
        words[i + 7] = words[i + 9] = words[i + 11] = 0;
        words[i + 8] = Address.data + (random() & 0x3f_f000);
      }
    }
    for (const offset of [0x1008, 0x100c, 0x1000, 0x1004]) host.write32(offset, random() % 20);
    await turns(3);
  }
  host.write32(0x14, 0);
  await until(() => host.read32(0x1c) === 0);
  host.enable();
  expect((await host.adminCommand({ opcode: 6, cdw10: 1 })).status).toBe('00/00');
});

test('a completion queue drops the order of nothing when it was unmapped', () => {
  const cq = smallQueue();
  const doorbells = new Int32Array(1);
  cq.listen(doorbells, 0);
  for (let cid = 1; cid <= 5; cid++) cq.post(1, 0, cid, 0, 0);
  expect(cq.locate(0)).toBe(true);
  cq.drain();
  expect([3, 7, 11, 15].map((i) => cq.words?.[i])).toEqual([0x1_0001, 0x1_0002, 0x1_0003, 0]);
  doorbells[0] = 3;
  cq.drain();
  // The next pass has phase 0.
  expect([3, 7, 11, 15].map((i) => cq.words?.[i])).toEqual([5, 0x1_0002, 0x1_0003, 0x1_0004]);
});
