// SPDX-License-Identifier: MIT
/** Doorbells that a host writes wrongly in the page that it maps, where no message tells of it. */
import { Mapping } from '../../../lib/native';
import { decodeErrorLog } from '../../../lib/nvme/spec';
import { Address, Host, type HostQueue, until } from './support';

/** Dword 0 of an event (NVMe base 2.0, 5.2): type error, log page 01h, and what happened. */
const INVALID_REGISTER = 0x0001_0000;
const INVALID_VALUE = 0x0001_0100;

let host: Host;
let mapping: Mapping;
let doorbells: Uint32Array;
let queue: HostQueue;

beforeEach(async () => {
  host = new Host({ queuePairs: 4 });
  host.enable();
  queue = await host.createQueues(1);
  const { fd } = host.controller.pci.bars?.[0]?.shared ?? {};
  if (typeof fd !== 'function') throw new Error("the doorbells are not each client's own");
  mapping = Mapping.map(fd(host.client), 0, 0x2000);
  doorbells = new Uint32Array(mapping.buffer, 0x1000);
});
afterEach(() => {
  mapping.close();
  host.close();
});

async function event(): Promise<number> {
  host.push(host.admin, { opcode: 0x0c });
  host.ring(host.admin);
  return (await host.completion(host.admin)).dw0;
}

/** Reads the error log, which arms the event again. */
async function readErrorLog(): Promise<void> {
  expect((await host.adminCommand({ opcode: 2, cdw10: 0x000f_0001 })).status).toBe('00/00');
}

/** Has the controller look at all doorbells, by one more that no queue has: it counts as one. */
async function looked(): Promise<void> {
  doorbells[6] = 1;
  expect(await event()).toBe(INVALID_REGISTER);
}

test.each([
  ['the tail of a queue that does not exist', 4, 3],
  ['the same, with 0', 4, 0],
  ['the head of the last queue that there could be', 9, 1],
])('%s', async (_, index, value) => {
  doorbells[index] = value;
  expect(await event()).toBe(INVALID_REGISTER);
  await readErrorLog();
  expect(decodeErrorLog(host.memory.bytes(Address.data, 64))[0]).toMatchObject({
    sqid: 0xffff,
    cmdid: 0xffff,
    nsid: 0,
  });
  // Told once: the next one is the second.
  expect(host.controller.statistics.badDoorbells).toBe(1);
  doorbells[index] = value;
  expect(await event()).toBe(INVALID_REGISTER);
  expect(host.controller.statistics.badDoorbells).toBe(2);
  expect((await host.run(queue, { opcode: 0, nsid: 1 })).status).toBe('00/00');
});

test('a head that the queue does not have, while no command is under way', async () => {
  doorbells[3] = 33;
  expect(await event()).toBe(INVALID_VALUE);
  await readErrorLog();
  expect(host.controller.statistics.badDoorbells).toBe(1);
  expect((await host.run(queue, { opcode: 0, nsid: 1 })).status).toBe('00/00');
});

test('a head beyond what was completed', async () => {
  host.push(queue, { opcode: 0, nsid: 1 });
  doorbells[2] = queue.tail;
  await until(() => host.take(queue, false) !== undefined);
  doorbells[3] = 2;
  expect(await event()).toBe(INVALID_VALUE);
});

test('the doorbells of a queue that is deleted are those of no queue, and of its successor', async () => {
  doorbells[3] = 0;
  for (const opcode of [0, 4]) expect((await host.adminCommand({ opcode, cdw10: 1 })).status).toBe('00/00');
  doorbells[2] = 1;
  expect(await event()).toBe(INVALID_REGISTER);
  await readErrorLog();
  queue = await host.createQueues(1);
  expect([doorbells[2], doorbells[3]]).toEqual([0, 0]);
  expect((await host.run(queue, { opcode: 0, nsid: 1 })).status).toBe('00/00');
  expect(host.controller.statistics.badDoorbells).toBe(1);
  await looked();
  expect(host.controller.statistics.badDoorbells).toBe(2);
});

test('what is written while the controller is not enabled is no error', async () => {
  host.write32(0x14, 0);
  await until(() => host.read32(0x1c) === 0);
  doorbells.fill(7, 0, 10);
  host.write32(0x1008, 9);
  host.enable();
  await host.createQueues(1);
  expect(host.controller.statistics.badDoorbells).toBe(0);
  await looked();
  expect(host.controller.statistics.badDoorbells).toBe(1);
});

test('beside the doorbells the page holds nothing', () => {
  expect([...doorbells.subarray(10)].every((word) => word === 0)).toBe(true);
  expect(host.read32(0x1010)).toBe(0);
});
