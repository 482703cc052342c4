// SPDX-License-Identifier: MIT
/** Commands whose data is reached by message take memory of the server, which is bounded. */
import { gate, type Gate } from '../../support/gate';
import { Address, Host, turns, until, type HostQueue, type Result } from './support';

const READ = 2;
const WRITE = 1;
const COMPARE = 5;
const DELETE_QUEUE = 0;
const IDENTIFY = 6;
const FAR = 0x1000_0000;
const MIB = 1 << 20;
/** Commands of 1 MiB that 16 MiB have room for: each may need 2 MiB, and a little for itself. */
const AT_ONCE = 7;
const PER_QUEUE = 10;

let host: Host;
let queues: HostQueue[];
let held: Gate;
beforeEach(async () => {
  host = new Host({ maxTransfer: MIB });
  host.enable();
  queues = [await host.createQueues(1), await host.createQueues(2), await host.createQueues(3)];
  // One PRP list for all, of pages in one piece: each command is one message.
  host.memory.add(FAR, MIB, { distant: true });
  const list = host.memory.words(Address.data, 512);
  for (let page = 1; page < 256; page++) list[2 * (page - 1)] = FAR + page * 4096;
  held = gate();
  host.memory.gate = held.opened;
});
afterEach(() => {
  held.open();
  host.close();
});

/** Fills a queue with commands of 1 MiB. Returns their ids. */
function fill(queue: HostQueue, opcode = READ, count = PER_QUEUE): number[] {
  const command = { opcode, nsid: 1, prp1: FAR, prp2: Address.data, cdw12: MIB / 512 - 1 };
  const ids = Array.from({ length: count }, () => host.push(queue, command));
  host.ring(queue);
  return ids;
}

const begun = (): number => host.memory.messages.length;

async function completions(queue: HostQueue, count: number): Promise<Result[]> {
  const results: Result[] = [];
  while (results.length < count) results.push(await host.completion(queue));
  return results;
}

test.each([
  ['reads', READ],
  ['writes', WRITE],
  ['compares', COMPARE],
])('%s that find no room wait, and all complete once others have', async (_name, opcode) => {
  for (const queue of queues) fill(queue, opcode);
  await until(() => begun() === AT_ONCE);
  await turns();
  expect(begun()).toBe(AT_ONCE);
  held.open();
  for (const queue of queues) {
    const statuses = (await completions(queue, PER_QUEUE)).map(({ status }) => status);
    expect(statuses).toEqual(new Array(PER_QUEUE).fill('00/00'));
  }
  expect(begun()).toBe(3 * PER_QUEUE);
});

test('queues get room in turn', async () => {
  const [first, second, third] = queues as [HostQueue, HostQueue, HostQueue];
  const answers: (() => void)[] = [];
  jest.spyOn(host.memory, 'write').mockImplementation(() => new Promise((resolve) => answers.push(resolve)));
  fill(first, READ, AT_ONCE);
  await until(() => answers.length === AT_ONCE);
  fill(second, READ, 3);
  fill(third, READ, 3);
  await turns();
  expect(answers.length).toBe(AT_ONCE);
  const order: number[] = [];
  for (let index = 0; index < AT_ONCE + 6; index++) {
    answers[index]?.();
    await turns();
    for (const queue of queues)
      for (let result; (result = host.take(queue)) !== undefined;) order.push(result.sqId);
  }
  expect(order.slice(0, AT_ONCE)).toEqual(new Array(AT_ONCE).fill(1));
  expect(order.slice(AT_ONCE)).toEqual([2, 3, 2, 3, 2, 3]);
});

test('memory that is mapped needs no room, until a command before it in its queue waits', async () => {
  const [first, second, third] = queues as [HostQueue, HostQueue, HostQueue];
  fill(first, READ, AT_ONCE);
  fill(second, READ, 1);
  await until(() => begun() === AT_ONCE);
  const mapped = { opcode: READ, nsid: 1, prp1: Address.data + 0x1000 };
  expect((await host.run(third, mapped)).status).toBe('00/00');
  const last = host.push(second, mapped);
  host.ring(second);
  await turns();
  expect(host.take(second)).toBeUndefined();
  held.open();
  expect((await completions(second, 2)).at(-1)?.cid).toBe(last);
});

test('admin commands wait for room too', async () => {
  fill(queues[0] as HostQueue, READ, AT_ONCE);
  fill(queues[1] as HostQueue, READ, 1);
  await until(() => begun() === AT_ONCE);
  const identify = host.push(host.admin, { opcode: IDENTIFY, cdw10: 1, prp1: FAR });
  host.ring(host.admin);
  await turns();
  expect([host.take(host.admin), begun()]).toEqual([undefined, AT_ONCE]);
  held.open();
  expect(await host.completion(host.admin)).toMatchObject({ cid: identify, status: '00/00' });
});

test('the deletion of a queue aborts the command that waits', async () => {
  const [first, second] = queues as [HostQueue, HostQueue];
  fill(first, READ, AT_ONCE);
  const [waiting] = fill(second);
  await until(() => begun() === AT_ONCE);
  await turns();
  expect((await host.adminCommand({ opcode: DELETE_QUEUE, cdw10: 2 })).status).toBe('00/00');
  expect(host.take(second)).toMatchObject({ cid: waiting, status: '00/08' });
  expect(host.take(second)).toBeUndefined();
  held.open();
  await completions(first, AT_ONCE);
  expect(begun()).toBe(AT_ONCE);
});

test('a reset is over when those that have begun have ended; those that wait never begin', async () => {
  for (const queue of queues) fill(queue);
  await until(() => begun() === AT_ONCE);
  host.write32(0x14, 0);
  await turns();
  expect(host.read32(0x1c)).toBe(1);
  held.open();
  await until(() => host.read32(0x1c) === 0);
  expect(begun()).toBe(AT_ONCE);
  expect(host.controller.statistics.slowCommands).toBe(AT_ONCE);
  // All room is there again.
  host.enable();
  const queue = await host.createQueues(1);
  held = gate();
  host.memory.gate = held.opened;
  fill(queue, READ, AT_ONCE);
  await until(() => begun() === 2 * AT_ONCE);
});

test('another controller has room of its own', async () => {
  const other = new Host({ maxTransfer: MIB });
  other.enable();
  const queue = await other.createQueues(1);
  fill(queues[0] as HostQueue, READ, AT_ONCE);
  await until(() => begun() === AT_ONCE);
  other.memory.add(FAR, 4096, { distant: true });
  expect((await other.run(queue, { opcode: READ, nsid: 1, prp1: FAR })).status).toBe('00/00');
  other.close();
});

test('so much mapped data is moved in a turn, and queues have their turns', async () => {
  const list = host.memory.words(Address.data, 512);
  const data = Address.data + 0x10_0000;
  for (let page = 1; page < 256; page++) list[2 * (page - 1)] = data + page * 4096;
  for (const queue of queues) {
    for (let count = 0; count < 15; count++)
      host.push(queue, { opcode: READ, nsid: 1, prp1: data, prp2: Address.data, cdw12: MIB / 512 - 1 });
    host.ring(queue);
  }
  const steps: number[] = [];
  const done = [0, 0, 0];
  let before = 0;
  while (before < 45 * MIB) {
    await turns(1);
    const { bytesRead } = host.controller.statistics;
    steps.push(bytesRead - before);
    before = bytesRead;
    for (const [index, queue] of queues.entries())
      while (host.take(queue) !== undefined) done[index] = (done[index] as number) + 1;
    // No queue is a round of 4 MiB ahead of another.
    expect(Math.max(...done) - Math.min(...done)).toBeLessThanOrEqual(4);
  }
  expect(Math.max(...steps)).toBe(4 * MIB);
  expect(done).toEqual([15, 15, 15]);
});
