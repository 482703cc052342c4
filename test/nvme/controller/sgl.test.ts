// SPDX-License-Identifier: MIT
/** Commands whose data is described by SGLs (NVMe base 2.0, 4.1.2). */
import type { Command } from '../../../lib/nvme/spec';
import { Address, Host, type HostQueue, type Result } from './support';

const READ = 2;
const WRITE = 1;
const COMPARE = 5;
/** SGL identifiers: type in bits 7:4. */
const BLOCK = 0x00;
const SEGMENT = 0x20;
const LAST = 0x30;
const FAR = 0x1000_0000;

let host: Host;
let queue: HostQueue;
beforeEach(async () => {
  host = new Host({ maxTransfer: 1 << 20 });
  host.enable();
  queue = await host.createQueues();
});
afterEach(() => {
  host.close();
});

/** One descriptor as words: address, length, and the identifier in the last byte. */
function descriptor(identifier: number, address: number, length: number): number[] {
  return [address >>> 0, Math.floor(address / 2 ** 32), length, (identifier << 24) >>> 0];
}

/** Runs a command with a descriptor in dwords 6 to 9, PSDT 01b. */
async function result(command: Command, words: readonly number[]): Promise<Result> {
  const at = queue.sq + queue.tail * 64;
  host.push(queue, { nsid: 1, psdt: 1, ...command });
  host.memory.words(at + 24, 4).set(words);
  host.ring(queue);
  return host.completion(queue);
}

async function status(command: Command, words: readonly number[]): Promise<string> {
  return (await result(command, words)).status;
}

function pattern(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8) * 3 + 1) & 0xff);
}

test('Identify tells that data blocks may begin anywhere, and nothing more', async () => {
  await host.adminCommand({ opcode: 6, cdw10: 1 });
  // SGLS, bytes 539:536 of Identify Controller.
  expect([...host.memory.bytes(Address.data + 536, 4)]).toEqual([1, 0, 0, 0]);
});

test('a command as SPDK sends it: one descriptor for 128 KiB, no list', async () => {
  const data = pattern(131072);
  host.memory.bytes(Address.data, 131072).set(data);
  const bytes = [
    ...[0x01, 0x40, 0x34, 0x12, 0x01, 0x00, 0x00, 0x00], // Write, PSDT 01b, command id 1234h; namespace 1.
    ...new Array<number>(16).fill(0),
    ...[0x00, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00],
    ...[0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0x00, 0x00, 0x00], // LBA 8, 256 blocks.
    ...new Array<number>(12).fill(0),
  ];
  host.memory.bytes(queue.sq, 64).set(bytes);
  queue.tail = 1;
  host.ring(queue);
  expect(await host.completion(queue)).toMatchObject({ cid: 0x1234, status: '00/00' });
  const into = Address.data + 0x10_0000;
  expect(await status({ opcode: READ, cdw10: 8, cdw12: 255 }, descriptor(BLOCK, into, 131072))).toBe('00/00');
  expect(Buffer.compare(host.memory.bytes(into, 131072), data)).toBe(0);
  expect(await status({ opcode: COMPARE, cdw10: 8, cdw12: 255 }, descriptor(BLOCK, into, 131072))).toBe(
    '00/00',
  );
  host.memory.bytes(into + 131071, 1)[0]! ^= 1;
  expect(await status({ opcode: COMPARE, cdw10: 8, cdw12: 255 }, descriptor(BLOCK, into, 131072))).toBe(
    '02/85 DNR',
  );
  expect(host.controller.statistics).toMatchObject({ slowCommands: 0, bytesWritten: 131072 });
});

test('data at any address, and nothing beside it', async () => {
  const data = pattern(1024);
  host.memory.bytes(Address.data + 4093, 1024).set(data);
  expect(await status({ opcode: WRITE, cdw12: 1 }, descriptor(BLOCK, Address.data + 4093, 1024))).toBe(
    '00/00',
  );
  const around = host.memory.bytes(Address.data + 0x8000, 1024 + 14);
  around.fill(0xee);
  expect(await status({ opcode: READ, cdw12: 1 }, descriptor(BLOCK, Address.data + 0x8007, 1024))).toBe(
    '00/00',
  );
  expect(around.subarray(7, 7 + 1024)).toEqual(data);
  expect([...around.subarray(0, 7), ...around.subarray(7 + 1024)].every((byte) => byte === 0xee)).toBe(true);
});

test('scattered data, in odd pieces, through two segments', async () => {
  const lengths = [1, 511, 4096, 3, 8189, 0, 3584];
  const total = 16384;
  const data = pattern(total);
  const places = lengths.map((_, i) => Address.data + 0x10_0000 - i * 0x1_0000 + i);
  let at = 0;
  for (const [i, length] of lengths.entries()) {
    host.memory.bytes(places[i]!, length).set(data.subarray(at, at + length));
    at += length;
  }
  const blocks = lengths.map((length, i) => descriptor(BLOCK, places[i]!, length));
  const [first, second] = [Address.data + 0x30_0008, Address.data + 0x31_0000];
  host.memory.words(first, 16).set([...blocks.slice(0, 3).flat(), ...descriptor(LAST, second, 64)]);
  host.memory.words(second, 16).set(blocks.slice(3).flat());
  const command = { cdw10: 5, cdw12: total / 512 - 1 };
  expect(await status({ ...command, opcode: WRITE }, descriptor(SEGMENT, first, 64))).toBe('00/00');
  const into = Address.data + 0x20_0000;
  expect(await status({ ...command, opcode: READ }, descriptor(BLOCK, into, total))).toBe('00/00');
  expect(Buffer.compare(host.memory.bytes(into, total), data)).toBe(0);
  places.forEach((place, i) => host.memory.bytes(place, lengths[i]!).fill(0));
  expect(await status({ ...command, opcode: READ }, descriptor(SEGMENT, first, 64))).toBe('00/00');
  expect(await status({ ...command, opcode: COMPARE }, descriptor(SEGMENT, first, 64))).toBe('00/00');
  places.forEach((place, i) => {
    const from = lengths.slice(0, i).reduce((sum, length) => sum + length, 0);
    expect(host.memory.bytes(place, lengths[i]!)).toEqual(data.subarray(from, from + lengths[i]!));
  });
  expect(host.controller.statistics.slowCommands).toBe(0);
});

test('as many descriptors as are taken, and one more', async () => {
  const list = Address.data + 0x10_0000;
  const command = { opcode: WRITE, cdw12: 511 };
  for (let i = 0; i < 513; i++) {
    // Each apart from the others, so that they are not joined.
    host.memory.words(list + 16 * i, 4).set(descriptor(BLOCK, Address.data + i * 1024, 512));
    host.memory.bytes(Address.data + i * 1024, 512).fill(i);
  }
  expect(await status(command, descriptor(LAST, list, 512 * 16))).toBe('00/00');
  expect(await status(command, descriptor(LAST, list, 513 * 16))).toBe('00/0e DNR');
  const into = Address.data + 0x20_0000;
  expect(await status({ opcode: READ, cdw12: 511 }, descriptor(BLOCK, into, 262144))).toBe('00/00');
  for (let i = 0; i < 512; i++) expect(host.memory.bytes(into + i * 512, 1)[0]).toBe(i & 0xff);
});

const list = Address.data + 0x10_0000;

test.each<[string, number[], number[], string]>([
  ['a block that is too short', descriptor(BLOCK, Address.data, 511), [], '00/0f DNR'],
  ['a block that is too long', descriptor(BLOCK, Address.data, 1024), [], '00/0f DNR'],
  ['a block of 2^32 - 1', descriptor(BLOCK, Address.data, 0xffff_ffff), [], '00/0f DNR'],
  ['a block that is not mapped', descriptor(BLOCK, 0x4000_0000, 512), [], '00/04'],
  ['a block that ends beyond the memory', descriptor(BLOCK, Address.memoryEnd - 256, 512), [], '00/04'],
  ['a block before the memory', descriptor(BLOCK, Address.memory - 256, 512), [], '00/04'],
  ['a block at the end of all addresses', [0xffff_ff00, 0xffff_ffff, 512, 0], [], '00/04'],
  ['a bit bucket', descriptor(0x10, 0, 512), [], '00/11 DNR'],
  ['a keyed data block', descriptor(0x40, Address.data, 512), [], '00/11 DNR'],
  ['an offset', descriptor(0x01, 0, 512), [], '00/11 DNR'],
  ['a vendor type', descriptor(0xf0, Address.data, 512), [], '00/11 DNR'],
  ['an empty segment', descriptor(LAST, list, 0), [], '00/0d DNR'],
  ['half a descriptor', descriptor(LAST, list, 24), [], '00/0d DNR'],
  ['a misaligned segment', descriptor(LAST, list + 4, 16), [], '00/0d DNR'],
  ['a segment that is not mapped', descriptor(LAST, 0x4000_0000, 16), [], '00/04'],
  ['a segment across the end of the memory', descriptor(LAST, Address.memoryEnd - 16, 32), [], '00/04'],
  ['a huge segment', descriptor(LAST, list, 0xffff_fff0), [], '00/0e DNR'],
  [
    'a segment of the wrong length',
    descriptor(LAST, list, 16),
    descriptor(BLOCK, Address.data, 256),
    '00/0f DNR',
  ],
  ['a segment that holds itself', descriptor(SEGMENT, list, 16), descriptor(SEGMENT, list, 16), '00/0e DNR'],
  ['a segment after the last', descriptor(LAST, list, 16), descriptor(LAST, list, 16), '00/0d DNR'],
  ['a bit bucket in a segment', descriptor(LAST, list, 16), descriptor(0x10, 0, 512), '00/11 DNR'],
])('%s is refused, and nothing is transferred', async (_, words, segment, expected) => {
  host.memory.words(list, 4).set(segment.length > 0 ? segment : [0, 0, 0, 0]);
  host.memory.bytes(Address.data, 2048).fill(0x55);
  host.memory.bytes(Address.memoryEnd - 256, 256).fill(0x55);
  for (const opcode of [READ, WRITE, COMPARE]) expect(await status({ opcode }, words)).toBe(expected);
  expect(host.memory.bytes(Address.data, 2048).every((byte) => byte === 0x55)).toBe(true);
  expect(host.memory.bytes(Address.memoryEnd - 256, 256).every((byte) => byte === 0x55)).toBe(true);
  expect(await status({ opcode: READ }, descriptor(BLOCK, Address.data, 512))).toBe('00/00');
  expect(host.memory.bytes(Address.data, 512).every((byte) => byte === 0)).toBe(true);
  expect(host.read32(0x1c)).toBe(1);
});

test('LBA, length and fused bits are checked as with PRPs', async () => {
  const words = descriptor(BLOCK, Address.data, 512);
  expect(await status({ opcode: READ, cdw10: 32768 }, words)).toBe('00/80 DNR');
  expect(await status({ opcode: READ, nsid: 33 }, words)).toBe('00/0b DNR');
  expect(await status({ opcode: READ, cdw12: 2048 }, descriptor(BLOCK, Address.data, 2049 * 512))).toBe(
    '00/02 DNR',
  );
  expect(await status({ opcode: READ, fuse: 1 }, words)).toBe('00/0a DNR');
});

test('admin commands take no SGL: with PCIe they have PRPs only', async () => {
  expect((await host.adminCommand({ opcode: 6, cdw10: 1, psdt: 1, prp2: 4096 })).status).toBe('00/02 DNR');
});

describe('memory that is reached by messages', () => {
  test('data and segments', async () => {
    const far = host.memory.add(FAR, 0x10_0000, { distant: true });
    const data = pattern(4096);
    far.bytes.set(data.subarray(0, 1000), 0x8001);
    far.bytes.set(data.subarray(1000), 0xa003);
    const segment = [...descriptor(BLOCK, FAR + 0x8001, 1000), ...descriptor(BLOCK, FAR + 0xa003, 3096)];
    new Uint32Array(far.bytes.buffer, 0x100, 8).set(segment);
    expect(await status({ opcode: WRITE, cdw12: 7 }, descriptor(LAST, FAR + 0x100, 32))).toBe('00/00');
    expect(host.memory.messages).toEqual(['read 10000100+20', 'read 10008001+3e8', 'read 1000a003+c18']);
    far.bytes.fill(0, 0x8000);
    expect(await status({ opcode: READ, cdw12: 7 }, descriptor(LAST, FAR + 0x100, 32))).toBe('00/00');
    expect(far.bytes.subarray(0x8001, 0x8001 + 1000)).toEqual(data.subarray(0, 1000));
    expect(far.bytes.subarray(0xa003, 0xa003 + 3096)).toEqual(data.subarray(1000));
    expect(await status({ opcode: WRITE, cdw12: 7 }, descriptor(BLOCK, FAR + 0x8000, 4095))).toBe(
      '00/0f DNR',
    );
  });

  test('segments without end give an error', async () => {
    const far = host.memory.add(FAR, 0x10_0000, { distant: true });
    const words = new Uint32Array(far.bytes.buffer);
    for (let i = 0; i < 256; i++) words.set(descriptor(SEGMENT, FAR + (i + 1) * 0x1000, 16), i * 0x400);
    expect(await status({ opcode: READ }, descriptor(SEGMENT, FAR, 16))).toBe('00/04');
    expect(host.memory.messages.length).toBeLessThan(10);
    // A ring needs to be fetched once only.
    words.set(descriptor(SEGMENT, FAR, 16), 0x400);
    expect(await status({ opcode: READ }, descriptor(SEGMENT, FAR, 16))).toBe('00/0e DNR');
  });

  test('a segment that grows while it is read', async () => {
    const far = host.memory.add(FAR, 0x1000, { distant: true });
    // The chain names itself again, with more descriptors than were fetched for that address.
    new Uint32Array(far.bytes.buffer).set(descriptor(LAST, FAR, 32));
    expect(await status({ opcode: READ }, descriptor(SEGMENT, FAR, 16))).toBe('00/04');
  });
});
