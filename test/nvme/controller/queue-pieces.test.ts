// SPDX-License-Identifier: MIT
/** Queues whose pages are maps of their own, as those of a guest with a virtual IOMMU are. */
import { Address, type FakeRange, Host, type HostQueue, turns, until } from './support';

const PAGE = 4096;
/** Where the guest's page tables put the pages of the queues; the buffers of the pages are not beside each other. */
const SQ = 0x1_0000_0000;
const CQ = 0x1_0010_0000;
const SQ_ENTRIES = 256;
const CQ_ENTRIES = 1024;

let host: Host;
let pages: Map<number, FakeRange>;
let warnings: string[];

beforeEach(() => {
  warnings = [];
  host = new Host({ onWarning: (reason) => warnings.push(reason) });
  pages = new Map();
  for (let page = 0; page < 4; page++) map(SQ + page * PAGE);
  for (let page = 0; page < 4; page++) map(CQ + page * PAGE);
  host.enable();
});
afterEach(() => {
  host.close();
});

function map(address: number, bytes?: Uint8Array, size = PAGE): FakeRange {
  const range = host.memory.add(address, size, bytes && { bytes });
  host.controller.mapped();
  pages.set(address, range);
  return range;
}

function unmap(address: number): Uint8Array {
  const range = pages.get(address)!;
  pages.delete(address);
  host.controller.unmapping(range);
  host.memory.remove(range);
  return range.bytes;
}

async function createQueues(sq = SQ, cq = CQ): Promise<[HostQueue, string, string]> {
  const completions = await host.adminCommand({
    opcode: 5,
    prp1: cq,
    cdw10: ((CQ_ENTRIES - 1) << 16) | 1,
    cdw11: 1,
  });
  const submissions = await host.adminCommand({
    opcode: 1,
    prp1: sq,
    cdw10: ((SQ_ENTRIES - 1) << 16) | 1,
    cdw11: 0x1_0001,
  });
  return [host.queue(1, sq, cq, SQ_ENTRIES, CQ_ENTRIES), completions.status, submissions.status];
}

/** Writes a number to block `number`, for each of so many commands that are in flight together. */
async function write(queue: HostQueue, first: number, count: number): Promise<number[]> {
  const cids = Array.from({ length: count }, (_, i) => {
    const at = Address.data + (i % 256) * 512;
    host.memory.words(at, 1)[0] = first + i;
    return host.push(queue, { opcode: 1, nsid: 1, cdw10: first + i, prp1: at });
  });
  host.ring(queue);
  for (const cid of cids) {
    const { status, cid: completed, sqHead } = await host.completion(queue);
    expect([status, completed]).toEqual(['00/00', cid]);
    expect(sqHead).toBeLessThan(SQ_ENTRIES);
  }
  return cids;
}

async function expectBlocks(queue: HostQueue, first: number, count: number): Promise<void> {
  for (let block = first; block < first + count; block++) {
    expect((await host.run(queue, { opcode: 2, nsid: 1, cdw10: block, prp1: Address.data })).status).toBe(
      '00/00',
    );
    expect(host.memory.words(Address.data, 1)[0]).toBe(block);
  }
}

test('queues of four pages each, through several passes', async () => {
  const [queue, ...statuses] = await createQueues();
  expect(statuses).toEqual(['00/00', '00/00']);
  for (let pass = 0; pass < 12; pass++) await write(queue, pass * 200, 200);
  await expectBlocks(queue, 0, 2400);
  expect(host.controller.statistics).toMatchObject({ writeCommands: 2400, readCommands: 2400, errors: 0 });
  expect(warnings).toEqual([]);
});

test('admin queues of two pages', async () => {
  host.write32(0x14, 0);
  host.write32(0x24, (511 << 16) | 127);
  host.write(0x28, new Uint8Array(BigUint64Array.of(BigInt(SQ)).buffer));
  host.write(0x30, new Uint8Array(BigUint64Array.of(BigInt(CQ)).buffer));
  host.write32(0x14, 0x0046_0001);
  expect(host.read32(0x1c)).toBe(1);
  host.admin = host.queue(0, SQ, CQ, 128, 512);
  for (let i = 0; i < 600; i++) expect((await host.adminCommand({ opcode: 0x18 })).status).toBe('00/00');
});

test('parts that are not whole pages, of which one holds the queue and more', async () => {
  const [sq, cq] = [0x2_0000_1000, 0x2_0010_1000];
  map(sq - PAGE, undefined, PAGE + 64 * 100);
  map(sq + 64 * 100, undefined, 64);
  map(sq + 64 * 101, undefined, 64 * 400);
  map(cq - PAGE, undefined, PAGE + 16);
  map(cq + 16, undefined, 16 * 1023);
  const [queue, ...statuses] = await createQueues(sq, cq);
  expect(statuses).toEqual(['00/00', '00/00']);
  for (let pass = 0; pass < 6; pass++) await write(queue, pass * 200, 200);
  await expectBlocks(queue, 0, 1200);
});

test('every page is unmapped and comes back elsewhere while the queue is used', async () => {
  const [queue] = await createQueues();
  let block = 0;
  for (let round = 0; round < 40; round++) {
    for (const address of [...pages.keys()]) map(address, unmap(address).slice());
    await write(queue, block, 50);
    block += 50;
  }
  await expectBlocks(queue, 0, 200);
  expect(host.controller.statistics.errors).toBe(0);
});

test('a page that is missing matters once its turn comes, and commands wait for it', async () => {
  const [queue] = await createQueues();
  const second = unmap(SQ + PAGE);
  await write(queue, 0, 63);
  // The host has its memory, though the controller does not. Entry 63 is in the first page, 64 and 65 are not.
  host.memory.ranges.push({ ...host.main, iova: BigInt(SQ + PAGE), size: PAGE, bytes: second, buffer: null });
  for (let i = 0; i < 3; i++) host.push(queue, { opcode: 1, nsid: 1, cdw10: 63 + i, prp1: Address.data });
  host.ring(queue);
  expect((await host.completion(queue)).status).toBe('00/00');
  await turns();
  expect(host.take(queue)).toBeUndefined();
  expect(host.read32(0x1c)).toBe(1);
  host.memory.ranges.pop();
  map(SQ + PAGE, second);
  expect((await host.completion(queue)).status).toBe('00/00');
  expect((await host.completion(queue)).status).toBe('00/00');
});

test('completions wait for a page of their queue', async () => {
  const [queue] = await createQueues();
  await write(queue, 0, 200);
  const second = unmap(CQ + PAGE);
  host.memory.ranges.push({ ...host.main, iova: BigInt(CQ + PAGE), size: PAGE, bytes: second, buffer: null });
  const cids = Array.from({ length: 100 }, (_, i) =>
    host.push(queue, { opcode: 1, nsid: 1, cdw10: 1000 + i, prp1: Address.data }),
  );
  host.ring(queue);
  const got: number[] = [];
  while (got.length < 56) got.push((await host.completion(queue)).cid);
  await turns();
  expect(host.take(queue)).toBeUndefined();
  host.memory.ranges.pop();
  map(CQ + PAGE, second);
  while (got.length < 100) got.push((await host.completion(queue)).cid);
  expect(got).toEqual(cids);
});

test.each([
  ['submission', SQ, /^Submission queue 1 is in use, but its entry 64 at 0x100001000 is not in memory/],
  ['completion', CQ, /^Completion queue 1 is in use, but its entry 256 at 0x100101000 is not in memory/],
])('a page of the %s queue that stays away is fatal, and told with its address', async (_, base, fault) => {
  const [queue] = await createQueues();
  unmap(base + PAGE);
  const sound = base === SQ ? 64 : 256;
  for (let i = 0; i < sound; i++) {
    host.push(queue, { opcode: 0, nsid: 1 });
    host.ring(queue);
    if (i < sound - 1) await host.completion(queue);
  }
  // Of the submission queue only the tail tells that there is one more.
  queue.tail = (queue.tail + 1) % SQ_ENTRIES;
  host.ring(queue);
  await until(() => host.read32(0x1c) === 3, 'CSTS.CFS');
  expect(host.controller.fault).toMatch(fault);
});

test('a queue with a hole is not created, and who serves the controller is told', async () => {
  unmap(SQ + 2 * PAGE);
  unmap(CQ + 3 * PAGE);
  const [, completions, submissions] = await createQueues();
  expect([completions, submissions]).toEqual(['00/04', '01/00 DNR']);
  map(CQ + 3 * PAGE);
  expect((await createQueues()).slice(1)).toEqual(['00/00', '00/04']);
  expect(warnings).toEqual([
    'Completion queue 1 was not created: its entry at 0x100103000 is not in memory that the client shares',
    'Submission queue 1 was not created: its entry at 0x100002000 is not in memory that the client shares',
  ]);
});

test('an entry that lies across two ranges is missing', async () => {
  const sq = 0x2_0000_1000;
  map(sq, undefined, 64 * 10 + 32);
  map(sq + 64 * 10 + 32, undefined, 64 * 300);
  expect((await createQueues(sq)).slice(1)).toEqual(['00/00', '00/04']);
  expect(warnings).toEqual([
    'Submission queue 1 was not created: its entry at 0x200001280 is not in memory that the client shares',
  ]);
});
