// SPDX-License-Identifier: MIT
/** Abort of commands that are delayed, wait for room or for their backend (NVMe base 2.0, 5.1). */
import { type AsynchronousBackend, BackendResult } from '../../../lib/nvme/backends';
import { type NvmeControllerOptions, NvmeControllerModel } from '../../../lib/nvme/controller';
import type { Command } from '../../../lib/nvme/spec';
import { gate, type Gate } from '../../support/gate';
import { Address, Host, type HostQueue, type Result, turns, until } from './support';

const [FLUSH, WRITE, READ, WRITE_UNCORRECTABLE, COMPARE, WRITE_ZEROES, DATASET, COPY] = [
  0, 1, 2, 4, 5, 8, 9, 0x19,
];
const ABORT = 8;
const MIB = 1 << 20;
/** Memory that the controller reaches by messages only. */
const FAR = 0x1000_0000;
/** An hour: never, for a test. */
const DELAY = 3_600_000;

let host: Host;
let queue: HostQueue;
/** Holds up the accesses to the backend. */
let backendGate: Gate;
/** Holds up the messages to the client's memory. */
let memoryGate: Gate;
let calls: string[];

const backend: AsynchronousBackend = {
  asynchronous: true,
  kind: 'gated',
  size: 16 * MIB,
  volatileCache: true,
  deallocation: { unit: 512, readsZero: true },
  read: (_offset, target) => access('read', () => target.fill(0xbb)),
  write: () => access('write'),
  zero: () => access('zero'),
  deallocate: () => access('deallocate'),
  flush: async () => {
    await access('flush');
  },
  close: () => undefined,
};

async function access(call: string, effect: () => void = () => undefined): Promise<BackendResult> {
  calls.push(call);
  await backendGate.opened;
  effect();
  return BackendResult.success;
}

async function begin(options: Partial<NvmeControllerOptions> = {}): Promise<void> {
  calls = [];
  backendGate = gate();
  memoryGate = gate();
  host = new Host(new NvmeControllerModel({ backend, serial: 'TEST', ...options }));
  host.memory.add(FAR, MIB, { distant: true });
  host.enable();
  queue = await host.createQueues();
}
beforeEach(() => begin());
afterEach(() => {
  memoryGate.open();
  backendGate.open();
  host.close();
});

function push(command: Command): number {
  const cid = host.push(queue, { nsid: 1, prp1: Address.data, ...command });
  host.ring(queue);
  return cid;
}

const abort = (cid: number, sqId = 1): Promise<Result> =>
  host.adminCommand({ opcode: ABORT, cdw10: ((cid << 16) | sqId) >>> 0 });

/** Nothing else has completed. */
async function expectSilence(): Promise<void> {
  await turns();
  expect(host.take(queue)).toBeUndefined();
}

test('a command that a fault delays is aborted, and the Abort completes behind it', async () => {
  const order: number[] = [];
  host.interrupts.length = 0;
  host.controller.faults.add({ on: 'read', delay: DELAY });
  const late = push({ opcode: READ });
  const other = push({ opcode: FLUSH, nsid: 2 });
  expect(await host.completion(queue)).toMatchObject({ cid: other });
  expect(await abort(late)).toMatchObject({ status: '00/00', dw0: 0 });
  order.push(...host.interrupts);
  expect(await host.completion(queue)).toMatchObject({ cid: late, status: '00/07', dw0: 0 });
  // Queue 1 has vector 1, and the admin queue vector 0.
  expect(order.slice(-2)).toEqual([1, 0]);
  // It is over: a second Abort does not find it, and its queue can be deleted.
  expect(await abort(late)).toMatchObject({ dw0: 1 });
  expect((await host.adminCommand({ opcode: 0, cdw10: 1 })).status).toBe('00/00');
  await expectSilence();
});

test('the error log has the command that was aborted', async () => {
  host.controller.faults.add({ on: 'read', delay: DELAY });
  const late = push({ opcode: READ, cdw10: 77 });
  await turns();
  expect(await abort(late)).toMatchObject({ dw0: 0 });
  expect((await host.adminCommand({ opcode: 2, cdw10: 0x000f_0001 })).status).toBe('00/00');
  const log = new DataView(host.memory.bytes(Address.data, 64).slice().buffer);
  // SQID, CMDID, status field above the phase tag, LBA (NVMe base 2.0, figure "Error Information Log Entry Data Structure").
  expect([8, 10, 12].map((at) => log.getUint16(at, true))).toEqual([1, late, 7 << 1]);
  expect(log.getBigUint64(16, true)).toBe(77n);
});

test('an admin command that a fault delays', async () => {
  host.controller.faults.add({ on: 'identify', delay: DELAY });
  const late = host.push(host.admin, { opcode: 6, cdw10: 1, prp1: Address.data });
  const asked = host.push(host.admin, { opcode: ABORT, cdw10: late << 16 });
  host.ring(host.admin);
  expect(await host.completion(host.admin)).toMatchObject({ cid: late, status: '00/07' });
  expect(await host.completion(host.admin)).toMatchObject({ cid: asked, status: '00/00', dw0: 0 });
});

test('a command that never completes is not found', async () => {
  host.controller.faults.add({ on: 'read', hang: true });
  const lost = push({ opcode: READ });
  await turns();
  expect(await abort(lost)).toMatchObject({ status: '00/00', dw0: 1 });
  await expectSilence();
});

test('there are commands that are not there: done, of another queue, or never sent', async () => {
  const done = push({ opcode: FLUSH, nsid: 2 });
  expect(await host.completion(queue)).toMatchObject({ cid: done });
  const waits = push({ opcode: READ });
  await until(() => calls.length === 1);
  for (const [cid, sqId] of [
    [done, 1],
    [waits, 0],
    [waits, 2],
    [waits + 1, 1],
    [0xffff, 0xffff],
  ] as const) {
    expect(await abort(cid, sqId)).toMatchObject({ status: '00/00', dw0: 1 });
  }
  backendGate.open();
  expect(await host.completion(queue)).toMatchObject({ cid: waits, status: '00/00' });
});

test.each([
  ['Read', READ, 'read'],
  ['Compare', COMPARE, 'read'],
  ['Flush', FLUSH, 'flush'],
])('%s that waits for the backend is aborted, and what it brings is dropped', async (_, opcode, call) => {
  host.memory.bytes(Address.data, 512).fill(0xaa);
  const waits = push({ opcode });
  await until(() => calls.length === 1);
  expect(calls).toEqual([call]);
  expect(await abort(waits)).toMatchObject({ dw0: 0 });
  expect(await host.completion(queue)).toMatchObject({ cid: waits, status: '00/07' });
  backendGate.open();
  await expectSilence();
  expect(host.memory.bytes(Address.data, 512).every((byte) => byte === 0xaa)).toBe(true);
});

test.each<[string, Command, string]>([
  ['Write', { opcode: WRITE }, 'write'],
  ['Write Zeroes', { opcode: WRITE_ZEROES }, 'zero'],
  ['Dataset Management', { opcode: DATASET, cdw11: 4 }, 'deallocate'],
])(
  '%s that the backend has is not aborted: it would come later than its host thinks',
  async (_, command, call) => {
    // A range of 8 blocks from block 0.
    host.memory.words(Address.data, 4).set([0, 8, 0, 0]);
    const waits = push(command);
    await until(() => calls.includes(call));
    expect(await abort(waits)).toMatchObject({ status: '00/00', dw0: 1 });
    backendGate.open();
    expect(await host.completion(queue)).toMatchObject({ cid: waits, status: '00/00' });
  },
);

test('Copy is aborted while it reads, and not when it writes', async () => {
  // One source range of one block (NVM command set 1.0, figure "Copy - Source Range Entries Descriptor Format 0h").
  host.memory.words(Address.data, 8).fill(0);
  const reads = push({ opcode: COPY, cdw10: 8 });
  await until(() => calls.length === 1);
  expect(await abort(reads)).toMatchObject({ dw0: 0 });
  expect(await host.completion(queue)).toMatchObject({ cid: reads, status: '00/07' });
  backendGate.open();
  await turns();
  expect(calls).toEqual(['read']);
});

test('Write Uncorrectable is done when it has begun', async () => {
  const marks = push({ opcode: WRITE_UNCORRECTABLE, cdw10: 5 });
  await turns();
  expect(await abort(marks)).toMatchObject({ dw0: 1 });
  expect(await host.completion(queue)).toMatchObject({ cid: marks, status: '00/00' });
});

test('a write whose data has not come is aborted, and does not reach the backend', async () => {
  host.memory.gate = memoryGate.opened;
  const waits = push({ opcode: WRITE, prp1: FAR });
  await until(() => host.memory.messages.length === 1);
  expect(await abort(waits)).toMatchObject({ dw0: 0 });
  expect(await host.completion(queue)).toMatchObject({ cid: waits, status: '00/07' });
  memoryGate.open();
  await expectSilence();
  expect(calls).toEqual([]);
});

test('a read whose data is on its way to the host is not aborted', async () => {
  host.memory.gate = memoryGate.opened;
  backendGate.open();
  const waits = push({ opcode: READ, prp1: FAR });
  await until(() => host.memory.messages.length === 1);
  expect(await abort(waits)).toMatchObject({ dw0: 1 });
  memoryGate.open();
  expect(await host.completion(queue)).toMatchObject({ cid: waits, status: '00/00' });
});

test('a command that waits for room is aborted, and those behind it go on', async () => {
  host.close();
  await begin({ maxTransfer: MIB });
  // The list of all: pages in one piece.
  const list = host.memory.words(Address.data, 512);
  for (let page = 1; page < 256; page++) list[2 * (page - 1)] = FAR + page * 4096;
  const long = { opcode: READ, prp1: FAR, prp2: Address.data, cdw12: MIB / 512 - 1 };
  const first = Array.from({ length: 7 }, () => push(long));
  const waits = push(long);
  const behind = push({ opcode: FLUSH, nsid: 2 });
  await until(() => calls.length === 7);
  await expectSilence();
  expect(await abort(waits)).toMatchObject({ dw0: 0 });
  expect(await host.completion(queue)).toMatchObject({ cid: waits, status: '00/07' });
  expect(await host.completion(queue)).toMatchObject({ cid: behind });
  backendGate.open();
  const done = await Promise.all(first.map(() => host.completion(queue)));
  expect(done.map(({ cid }) => cid).sort((a, b) => a - b)).toEqual(first);
  expect(calls).toHaveLength(7);
});

test('fused commands are not aborted', async () => {
  const first = push({ opcode: COMPARE, fuse: 1 });
  const second = push({ opcode: WRITE, fuse: 2 });
  await until(() => calls.length === 1);
  expect(await abort(first)).toMatchObject({ dw0: 1 });
  expect(await abort(second)).toMatchObject({ dw0: 1 });
  backendGate.open();
  expect([await host.completion(queue), await host.completion(queue)].map(({ cid }) => cid)).toEqual([
    first,
    second,
  ]);
});

test('a reset waits for what an aborted command has under way', async () => {
  const waits = push({ opcode: READ });
  await until(() => calls.length === 1);
  expect(await abort(waits)).toMatchObject({ dw0: 0 });
  host.write32(0x14, 0);
  await turns();
  expect(host.read32(0x1c) & 1).toBe(1);
  backendGate.open();
  await until(() => (host.read32(0x1c) & 1) === 0);
});

test('Identify tells how many Aborts may be outstanding (ACL)', async () => {
  expect((await host.adminCommand({ opcode: 6, cdw10: 1 })).status).toBe('00/00');
  expect(host.memory.bytes(Address.data, 4096)[258]).toBe(3);
});
