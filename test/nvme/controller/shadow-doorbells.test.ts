// SPDX-License-Identifier: MIT
/** Doorbell Buffer Config (NVMe base 2.0, 5.8): a host that stops for a doorbell only when the controller wants one. */
import { decodeIdentifyController } from '../../../lib/nvme/spec';
import type { NvmeControllerOptions } from '../../../lib/nvme/controller';
import { Address, type FakeRange, Host, type HostQueue, turns, until } from './support';

const SHADOW = 0x4000_0000;
const EVENTS = 0x4000_1000;
const CONFIG = { opcode: 0x7c, prp1: SHADOW, prp2: EVENTS };

let host: Host;
let range: FakeRange;
let queue: HostQueue;
let warnings: string[];
/** Doorbells that the host has rung. */
let rung: number;

function begin(options: Partial<NvmeControllerOptions> = {}): void {
  warnings = [];
  rung = 0;
  host = new Host({
    mappableDoorbells: false,
    queuePairs: 4,
    onWarning: (reason) => warnings.push(reason),
    ...options,
  });
  range = host.memory.add(SHADOW, 0x2000);
  host.enable();
}

beforeEach(() => {
  begin();
});
afterEach(() => {
  host.close();
});

const words = (address: number): Uint32Array => host.memory.words(address, 16);

/** What Linux does (drivers/nvme/host/pci.c, nvme_dbbuf_update_and_check_event): whether the doorbell is to be rung. */
function update(index: number, value: number): boolean {
  const old = words(SHADOW)[index]!;
  words(SHADOW)[index] = value;
  const wanted = words(EVENTS)[index]!;
  return ((value - wanted - 1) & 0xffff) < ((value - old) & 0xffff);
}

/** Runs a command as a host with shadows does. */
async function run(command: object): Promise<string> {
  host.push(queue, { opcode: 0, nsid: 1, ...command });
  if (update(2 * queue.id, queue.tail)) {
    rung++;
    host.ring(queue);
  }
  let status = '';
  await until(() => (status = host.take(queue, false)?.status ?? '') !== '', 'a completion');
  if (update(2 * queue.id + 1, queue.head)) {
    rung++;
    host.write32(0x1004 + 8 * queue.id, queue.head);
  }
  return status;
}

async function configure(more: object = {}): Promise<string> {
  return (await host.adminCommand({ ...CONFIG, ...more })).status;
}

test('a busy guest rings once a pass of a queue at most, and an idle one for the first command', async () => {
  expect(await configure()).toBe('00/00');
  queue = await host.createQueues(1, 16, 16);
  expect([words(SHADOW)[2], words(SHADOW)[3]]).toEqual([0, 0]);
  for (let i = 0; i < 150; i++) expect(await run({})).toBe('00/00');
  expect(rung).toBeLessThan(30);
  await until(() => words(EVENTS)[2] === queue.tail, 'the controller to fall asleep');
  rung = 0;
  expect(await run({})).toBe('00/00');
  expect(rung).toBe(1);
  expect(await run({})).toBe('00/00');
  expect(rung).toBe(1);
  expect(host.controller.statistics).toMatchObject({ otherCommands: 152, badDoorbells: 0 });
});

test('a controller that sleeps looks at the shadows all the same', async () => {
  expect(await configure()).toBe('00/00');
  queue = await host.createQueues();
  await until(() => words(EVENTS)[2] === queue.tail, 'the controller to fall asleep');
  host.push(queue, { opcode: 0, nsid: 1 });
  words(SHADOW)[2] = queue.tail;
  await until(() => host.take(queue, false) !== undefined, 'a completion');
});

test('queues that exist go on from their doorbells', async () => {
  queue = await host.createQueues();
  for (let i = 0; i < 5; i++) expect((await host.run(queue, { opcode: 0, nsid: 1 })).status).toBe('00/00');
  words(SHADOW).fill(77);
  expect(await configure()).toBe('00/00');
  expect([words(SHADOW)[2], words(SHADOW)[3]]).toEqual([5, 5]);
  // The admin queue has no shadow.
  expect([words(SHADOW)[0], words(SHADOW)[1]]).toEqual([77, 77]);
  for (let i = 0; i < 30; i++) expect(await run({})).toBe('00/00');
  expect((await host.adminCommand({ opcode: 0x18 })).status).toBe('00/00');
});

test('a full completion queue waits for its shadow', async () => {
  expect(await configure()).toBe('00/00');
  queue = await host.createQueues(1, 16, 4);
  for (let i = 0; i < 9; i++) host.push(queue, { opcode: 0, nsid: 1 });
  words(SHADOW)[2] = queue.tail;
  host.ring(queue);
  for (let i = 0; i < 3; i++) await until(() => host.take(queue, false) !== undefined, 'a completion');
  await turns();
  expect(host.take(queue, false)).toBeUndefined();
  for (let i = 0; i < 6; i++) {
    words(SHADOW)[3] = queue.head;
    await until(() => host.take(queue, false) !== undefined, 'a completion');
  }
});

test.each([
  ['the same page twice', { prp2: SHADOW }, '00/02 DNR'],
  ['no page of shadows', { prp1: 0 }, '00/02 DNR'],
  ['no page of event indices', { prp2: 0 }, '00/02 DNR'],
  ['a place inside a page', { prp1: SHADOW + 4 }, '00/02 DNR'],
  ['event indices inside a page', { prp2: EVENTS + 8 }, '00/02 DNR'],
  ['a page that is not mapped', { prp1: 0x5000_0000 }, '00/04'],
  ['event indices that are not mapped', { prp2: 0x5000_0000 }, '00/04'],
  ['a page that may only be read', { prp2: 0x6000_0000 }, '00/04'],
])('%s is refused, and what there was stays', async (_, more, expected) => {
  host.memory.add(0x6000_0000, 0x1000, { writable: false });
  expect(await configure()).toBe('00/00');
  expect(await configure(more)).toBe(expected);
  queue = await host.createQueues();
  for (let i = 0; i < 20; i++) expect(await run({})).toBe('00/00');
  expect(rung).toBeLessThan(20);
  expect(warnings).toHaveLength(expected === '00/04' ? 1 : 0);
  if (expected === '00/04') expect(warnings[0]).toMatch(/^Doorbell Buffer Config was refused: 0x/);
});

test.each<[string, () => Promise<void>]>([
  [
    'a controller reset',
    async () => {
      host.write32(0x14, 0);
      await until(() => host.read32(0x1c) === 0);
    },
  ],
  ['a device reset', () => host.reset()],
  [
    'the next client',
    () => {
      host.detach();
      host.attach();
      return Promise.resolve();
    },
  ],
])('%s: doorbells are doorbells again', async (_, reset) => {
  expect(await configure()).toBe('00/00');
  queue = await host.createQueues();
  expect(await run({})).toBe('00/00');
  await reset();
  const before = words(EVENTS).slice();
  host.enable();
  queue = await host.createQueues();
  words(SHADOW)[2] = 5;
  expect((await host.run(queue, { opcode: 0, nsid: 1 })).status).toBe('00/00');
  expect(words(EVENTS)).toEqual(before);
  expect(host.controller.statistics.badDoorbells).toBe(0);
});

test('the pages go and come back elsewhere; what was written meanwhile is done', async () => {
  expect(await configure()).toBe('00/00');
  queue = await host.createQueues();
  for (let round = 0; round < 10; round++) {
    for (let i = 0; i < 3; i++) expect(await run({})).toBe('00/00');
    const bytes = range.bytes.slice();
    host.controller.unmapping(range);
    host.memory.remove(range);
    host.push(queue, { opcode: 0, nsid: 1 });
    // The old shadows are the host's own again, and mean nothing.
    range.bytes.fill(0xff);
    host.ring(queue);
    await turns();
    expect(host.take(queue, false)).toBeUndefined();
    new Uint32Array(bytes.buffer)[2] = queue.tail;
    range = host.memory.add(SHADOW, 0x2000, { bytes });
    host.controller.mapped();
    await until(() => host.take(queue, false) !== undefined, 'a completion');
    words(SHADOW)[3] = queue.head;
  }
  expect(host.controller.statistics).toMatchObject({ otherCommands: 40, badDoorbells: 0 });
});

test('a queue that is created while the pages are away', async () => {
  expect(await configure()).toBe('00/00');
  host.controller.unmapping(range);
  host.memory.remove(range);
  queue = await host.createQueues();
  host.ring(queue);
  await turns();
  range = host.memory.add(SHADOW, 0x2000);
  host.controller.mapped();
  for (let i = 0; i < 40; i++) expect(await run({})).toBe('00/00');
});

test('hostile shadows are told as doorbells are, and nothing beside the pages is touched', async () => {
  expect(await configure()).toBe('00/00');
  queue = await host.createQueues();
  const beside = host.memory.add(SHADOW + 0x2000, 0x1000);
  for (const value of [0xffff_ffff, 16, 0x8000_0000, 12345]) {
    words(SHADOW).fill(value);
    host.ring(queue);
    await turns();
  }
  expect(host.controller.statistics.badDoorbells).toBeGreaterThan(0);
  expect(host.read32(0x1c)).toBe(1);
  words(SHADOW).fill(0);
  for (let i = 0; i < 20; i++) expect(await run({})).toBe('00/00');
  expect(beside.bytes.every((byte) => byte === 0)).toBe(true);
  // Only the words of the queues have an event index: 2 and 3 of the first page that the controller writes.
  expect(
    [...new Uint32Array(range.bytes.buffer, 0x1000, 0x400)].every(
      (word, i) => i === 2 || i === 3 || word === 0,
    ),
  ).toBe(true);
});

test('shadows have the distance of doorbells', async () => {
  host.close();
  begin({ dstrd: 2 });
  queue = host.queue(1, Address.sq, Address.cq, 16, 16);
  for (const command of [
    CONFIG,
    { opcode: 5, prp1: Address.cq, cdw10: 0x000f_0001, cdw11: 1 },
    { opcode: 1, prp1: Address.sq, cdw10: 0x000f_0001, cdw11: 0x1_0001 },
  ]) {
    host.push(host.admin, command);
    host.write32(0x1000, host.admin.tail);
    await until(() => host.take(host.admin, false) !== undefined);
  }
  host.push(queue, { opcode: 0, nsid: 1 });
  words(SHADOW)[8] = 1;
  await until(() => host.take(queue, false) !== undefined, 'a completion');
});

test.each<[string, Partial<NvmeControllerOptions>, boolean]>([
  ['doorbells are messages', {}, true],
  ['doorbells are mapped', { mappableDoorbells: true }, false],
  ['they do not fit a page', { queuePairs: 64, dstrd: 4 }, false],
  ['64 queues fit with 16 bytes each', { queuePairs: 64, dstrd: 2 }, true],
])('is offered, or is an unknown command: %s', async (_, options, offered) => {
  host.close();
  begin(options);
  host.push(host.admin, { opcode: 6, cdw10: 1, prp1: Address.data });
  host.push(host.admin, CONFIG);
  host.ring(host.admin);
  await until(() => host.take(host.admin, false) !== undefined);
  let status: string | undefined;
  await until(() => (status = host.take(host.admin, false)?.status) !== undefined);
  const { oacs } = decodeIdentifyController(host.memory.bytes(Address.data, 4096));
  expect([(oacs & 0x100) !== 0, status]).toEqual(offered ? [true, '00/00'] : [false, '00/01 DNR']);
});
