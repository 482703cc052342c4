// SPDX-License-Identifier: MIT
/** Namespaces that a host makes, attaches, detaches and deletes (NVMe base 2.0, 5.22 and 5.23). */
import { type Backend, BackendResult, MemoryBackend, createBackend } from '../../../lib/nvme/backends';
import {
  type NamespaceStore,
  type NvmeControllerOptions,
  memoryNamespaceStore,
} from '../../../lib/nvme/controller';
import type { Command } from '../../../lib/nvme/spec';
import { Address, Host, type HostQueue, until } from './support';

const [MANAGEMENT, ATTACHMENT] = [0x0d, 0x15];
const [WRITE, READ] = [1, 2];
const BROADCAST = 0xffff_ffff;
const MIB = 1 << 20;
const CAPACITY = 8 * MIB;

let host: Host;
let queue: HostQueue;
let warnings: string[];

/** A controller with one namespace of 1 MiB that was given to it, and 8 MiB for more. */
async function begin(options: Partial<NvmeControllerOptions> = {}): Promise<void> {
  warnings = [];
  host = new Host({
    namespaces: [{ backend: createBackend({ kind: 'memory', size: MIB }) }],
    namespaceStore: memoryNamespaceStore(CAPACITY),
    onWarning: (text) => warnings.push(text),
    ...options,
  });
  host.enable();
  queue = await host.createQueues();
}
beforeEach(() => begin());
afterEach(() => {
  host.close();
});

function data(length = 4096): Uint8Array {
  return host.memory.bytes(Address.data, length);
}

interface Fields {
  readonly nsze?: number;
  readonly ncap?: number;
  /** Bytes at other offsets. */
  readonly bytes?: Readonly<Record<number, number>>;
}

/** Creates a namespace, from the bytes of NVM command set 1.0, figure "Namespace Management - Host Software Specified Fields". */
async function create({ nsze = 2048, ncap = nsze, bytes = {} }: Fields = {}, command: Partial<Command> = {}) {
  const view = new DataView(data().fill(0).buffer, data().byteOffset);
  view.setBigUint64(0, BigInt(nsze), true);
  view.setBigUint64(8, BigInt(ncap), true);
  for (const [at, byte] of Object.entries(bytes)) view.setUint8(Number(at), byte);
  return host.adminCommand({ opcode: MANAGEMENT, ...command });
}

const remove = (nsid: number) => host.adminCommand({ opcode: MANAGEMENT, nsid, cdw10: 1 });

/** Attaches (0) or detaches (1), with a controller list of 16-bit words. */
async function attachment(nsid: number, select: number, list = [1, 1]): Promise<string> {
  data().fill(0);
  list.forEach((word, i) => {
    data().set([word & 0xff, word >>> 8], 2 * i);
  });
  return (await host.adminCommand({ opcode: ATTACHMENT, nsid, cdw10: select })).status;
}

async function answer(cns: number, nsid = 0): Promise<DataView> {
  data().fill(0xff);
  expect((await host.adminCommand({ opcode: 6, cdw10: cns, nsid })).status).toBe('00/00');
  return new DataView(data().slice().buffer);
}

async function list(cns: number): Promise<number[]> {
  const words = await answer(cns);
  return Array.from({ length: 8 }, (_, i) => words.getUint32(4 * i, true)).filter((nsid) => nsid !== 0);
}

/** TNVMCAP and UNVMCAP. */
async function capacities(): Promise<number[]> {
  const view = await answer(1);
  return [280, 296].map((at) => Number(view.getBigUint64(at, true)));
}

async function io(command: Command): Promise<string> {
  return (await host.run(queue, { nsid: 2, prp1: Address.data, ...command })).status;
}

test('Identify tells that namespaces can be made, and of how much', async () => {
  const view = await answer(1);
  // OACS: Format NVM, Namespace Management.
  expect(view.getUint16(256, true)).toBe(0x000a);
  expect(await capacities()).toEqual([CAPACITY + MIB, CAPACITY]);
  // What all of them have in common: two formats, of 512 and 4096 bytes, and nothing of a certain one.
  const common = await answer(0, BROADCAST);
  expect([common.getBigUint64(0, true), common.getUint8(25), common.getUint8(26)]).toEqual([0n, 1, 0]);
  expect([128, 132].map((at) => common.getUint32(at, true))).toEqual([0x0009_0000, 0x000c_0000]);
  // NIC of both commands, in Commands Supported and Effects.
  expect((await host.adminCommand({ opcode: 2, cdw10: 0x03ff_0005 })).status).toBe('00/00');
  for (const opcode of [MANAGEMENT, ATTACHMENT]) expect(data()[4 * opcode]).toBe(0x09);
});

test('a namespace is made, attached, used, detached and deleted', async () => {
  expect(await create({ nsze: 512, bytes: { 26: 1 } })).toMatchObject({ status: '00/00', dw0: 2 });
  expect(await capacities()).toEqual([CAPACITY + MIB, CAPACITY - 2 * MIB]);
  // Allocated, but inactive.
  expect([await list(2), await list(0x10)]).toEqual([[1], [1, 2]]);
  expect((await answer(0, 2)).getBigUint64(0, true)).toBe(0n);
  const made = await answer(0x11, 2);
  expect([0, 8, 16].map((at) => made.getBigUint64(at, true))).toEqual([512n, 512n, 512n]);
  expect(made.getUint8(26)).toBe(1);
  expect((await answer(0x12, 2)).getUint16(0, true)).toBe(0);
  expect(await io({ opcode: READ })).toBe('00/02 DNR');
  expect(host.controller.namespaces[1]).toMatchObject({
    nsid: 2,
    size: 2 * MIB,
    attached: false,
    kind: 'memory',
  });

  expect(await attachment(2, 0)).toBe('00/00');
  expect(await list(2)).toEqual([1, 2]);
  expect((await answer(0x12, 2)).getUint32(0, true)).toBe(0x0001_0001);
  data().fill(7);
  expect(await io({ opcode: WRITE, cdw10: 511 })).toBe('00/00');
  data().fill(0);
  expect(await io({ opcode: READ, cdw10: 511 })).toBe('00/00');
  expect(data()[4095]).toBe(7);

  // Its data stays when it is detached.
  expect(await attachment(2, 1)).toBe('00/00');
  expect(await io({ opcode: READ })).toBe('00/02 DNR');
  expect(await attachment(2, 0)).toBe('00/00');
  expect(await io({ opcode: READ, cdw10: 511 })).toBe('00/00');
  expect(data()[4095]).toBe(7);

  // It is deleted while it is attached; a new one has its id, zeros, and another UUID.
  const uuid = host.controller.namespaces[1]?.uuid;
  expect((await remove(2)).status).toBe('00/00');
  expect([await list(2), await list(0x10)]).toEqual([[1], [1]]);
  expect(await capacities()).toEqual([CAPACITY + MIB, CAPACITY]);
  expect(await create()).toMatchObject({ dw0: 2 });
  expect(host.controller.namespaces[1]?.uuid).not.toBe(uuid);
  expect(await attachment(2, 0)).toBe('00/00');
  expect(await io({ opcode: READ, cdw10: 2047 })).toBe('00/00');
  expect(data()[0]).toBe(0);
});

test('the host is told of what is attached, detached and deleted', async () => {
  expect((await host.adminCommand({ opcode: 9, cdw10: 0x0b, cdw11: 0x100 })).status).toBe('00/00');
  expect(await create()).toMatchObject({ dw0: 2 });
  const attach = { opcode: ATTACHMENT, cdw10: 0 };
  const detach = { opcode: ATTACHMENT, cdw10: 1 };
  for (const command of [attach, detach, attach, { opcode: MANAGEMENT, cdw10: 1 }]) {
    data().fill(0).set([1, 0, 1]);
    const request = host.push(host.admin, { opcode: 0x0c });
    const change = host.push(host.admin, { ...command, nsid: 2, prp1: Address.data });
    host.ring(host.admin);
    const results = [await host.completion(host.admin), await host.completion(host.admin)];
    // Notice, Namespace Attribute Changed, page 04h.
    expect(results.find(({ cid }) => cid === request)).toMatchObject({ status: '00/00', dw0: 0x0004_0002 });
    expect(results.find(({ cid }) => cid === change)).toMatchObject({ status: '00/00' });
    expect((await host.adminCommand({ opcode: 2, cdw10: 0x03ff_0004 })).status).toBe('00/00');
    expect(new DataView(data().slice().buffer).getUint32(0, true)).toBe(2);
  }
});

test.each<[string, Fields, Partial<Command>, string]>([
  ['a format that is not there', { bytes: { 26: 2 } }, {}, '01/0a DNR'],
  ['a format whose upper bits are not 0', { bytes: { 26: 0x20 } }, {}, '01/0a DNR'],
  ['protection information', { bytes: { 29: 1 } }, {}, '01/0a DNR'],
  ['a shared namespace', { bytes: { 30: 1 } }, {}, '00/02 DNR'],
  ['an ANA group', { bytes: { 92: 1 } }, {}, '01/24 DNR'],
  ['an NVM set', { bytes: { 100: 1 } }, {}, '00/02 DNR'],
  ['an endurance group', { bytes: { 102: 1 } }, {}, '00/02 DNR'],
  ['no blocks', { nsze: 0 }, {}, '00/02 DNR'],
  ['a capacity of more than the size', { nsze: 8, ncap: 9 }, {}, '00/02 DNR'],
  ['thin provisioning', { nsze: 8, ncap: 7 }, {}, '01/1b DNR'],
  ['more than there is', { nsze: CAPACITY / 512 + 1 }, {}, '01/15 DNR'],
  ['more than a number can hold', { bytes: { 7: 0xff, 15: 0xff } }, {}, '01/15 DNR'],
  ['a namespace id', {}, { nsid: 2 }, '00/02 DNR'],
  ['a reserved operation', {}, { cdw10: 2 }, '00/02 DNR'],
  ['another command set', {}, { cdw11: 0x0200_0000 }, '01/29 DNR'],
  ['data that is not mapped', {}, { prp1: 0x4000_0000 }, '00/04'],
])('to create %s is refused', async (_, fields, command, status) => {
  expect((await create(fields, command)).status).toBe(status);
  expect(await list(0x10)).toEqual([1]);
  expect(await capacities()).toEqual([CAPACITY + MIB, CAPACITY]);
});

test('the error log tells the capacity that was lacking', async () => {
  expect((await create({ nsze: CAPACITY / 4096 + 1, bytes: { 26: 1 } })).status).toBe('01/15 DNR');
  expect((await host.adminCommand({ opcode: 2, cdw10: 0x000f_0001 })).status).toBe('00/00');
  // Command Specific Information (NVMe base 2.0, figure "Error Information Log Entry Data Structure").
  expect(new DataView(data().slice().buffer).getBigUint64(32, true)).toBe(BigInt(CAPACITY + 4096));
});

test('ids and capacity run out', async () => {
  host.close();
  await begin({ maxNamespaces: 3, namespaces: [] });
  for (const nsid of [1, 2, 3])
    expect(await create({ nsze: 8 })).toMatchObject({ status: '00/00', dw0: nsid });
  expect((await create({ nsze: 8 })).status).toBe('01/16 DNR');
  expect((await remove(2)).status).toBe('00/00');
  expect((await create({ nsze: (CAPACITY - 8192) / 512 + 1 })).status).toBe('01/15 DNR');
  expect(await create({ nsze: (CAPACITY - 8192) / 512 })).toMatchObject({ status: '00/00', dw0: 2 });
  expect(await capacities()).toEqual([CAPACITY, 0]);
});

test.each<[string, number, number, number[], string]>([
  ['a namespace that is attached', 1, 0, [1, 1], '01/18 DNR'],
  ['no controllers', 1, 1, [0], '01/1c DNR'],
  ['too many controllers', 1, 1, [2048, 1], '01/1c DNR'],
  ['a controller that does not exist', 1, 1, [1, 2], '01/1c DNR'],
  ['a controller twice', 1, 1, [2, 1, 1], '01/1c DNR'],
  ['controllers that do not rise', 1, 1, [2, 2, 1], '01/1c DNR'],
  ['an id without a namespace', 3, 0, [1, 1], '00/02 DNR'],
  ['id 0', 0, 0, [1, 1], '00/0b DNR'],
  ['an id beyond NN', 33, 0, [1, 1], '00/0b DNR'],
  ['all namespaces', BROADCAST, 1, [1, 1], '00/0b DNR'],
  ['a reserved operation', 1, 2, [1, 1], '00/02 DNR'],
])('attachment of %s is refused', async (_, nsid, select, controllers, status) => {
  expect(await attachment(nsid, select, controllers)).toBe(status);
  expect(await list(2)).toEqual([1]);
});

test('a namespace that is not attached cannot be detached', async () => {
  expect(await create()).toMatchObject({ dw0: 2 });
  expect(await attachment(2, 1)).toBe('01/1a DNR');
});

test('what was given to the controller is not deleted by hosts, but may be detached', async () => {
  expect((await remove(1)).status).toBe('00/15 DNR');
  expect(await create()).toMatchObject({ dw0: 2 });
  expect(await create()).toMatchObject({ dw0: 3 });
  // All of them are those of the host.
  expect((await remove(BROADCAST)).status).toBe('00/00');
  expect(await list(0x10)).toEqual([1]);
  expect(await attachment(1, 1)).toBe('00/00');
  expect(await list(2)).toEqual([]);
  expect(await attachment(1, 0)).toBe('00/00');
  for (const [nsid, status] of [
    [2, '00/02 DNR'],
    [0, '00/0b DNR'],
    [33, '00/0b DNR'],
  ] as const) {
    expect((await remove(nsid)).status).toBe(status);
  }
});

test('whoever serves the controller may remove a namespace that a host has made', async () => {
  expect(await create()).toMatchObject({ dw0: 2 });
  await host.controller.removeNamespace(2);
  expect(await capacities()).toEqual([CAPACITY + MIB, CAPACITY]);
});

test('a namespace that is being formatted stays as it is', async () => {
  const made: Backend[] = [];
  let end = (): void => undefined;
  const store: NamespaceStore = {
    capacity: CAPACITY,
    create: (size) => {
      const { success } = BackendResult;
      const access = () => Promise.resolve(success);
      const backend: Backend = {
        asynchronous: true,
        kind: 'slow',
        size,
        volatileCache: false,
        read: access,
        write: access,
        deallocate: access,
        zero: () =>
          new Promise((resolve) => {
            end = () => {
              resolve(success);
            };
          }),
        flush: () => Promise.resolve(),
        close: () => undefined,
      };
      made.push(backend);
      return backend;
    },
    delete: () => undefined,
  };
  host.close();
  await begin({ namespaceStore: store });
  expect(await create({ nsze: 8 })).toMatchObject({ dw0: 2 });
  const format = host.push(host.admin, { opcode: 0x80, nsid: 2 });
  expect(await attachment(2, 0)).toBe('00/84');
  expect((await remove(2)).status).toBe('00/84');
  expect((await remove(BROADCAST)).status).toBe('00/84');
  end();
  expect(await host.completion(host.admin)).toMatchObject({ cid: format, status: '00/00' });
  expect((await remove(2)).status).toBe('00/00');
});

test('a store of somebody’s own, which fails', async () => {
  const backends: MemoryBackend[] = [];
  const deleted: Backend[] = [];
  let problem: Error | null = new Error('no disk');
  host.close();
  await begin({
    namespaceStore: {
      capacity: CAPACITY,
      create: (size) => {
        if (problem !== null) return Promise.reject(problem);
        const backend = new MemoryBackend(size);
        backends.push(backend);
        return Promise.resolve(backend);
      },
      delete: (backend) => {
        deleted.push(backend);
        if (problem !== null) throw problem;
      },
    },
  });
  expect((await create()).status).toBe('00/06');
  expect(warnings).toEqual([`A namespace of ${MIB} bytes could not be made: no disk`]);
  expect(await capacities()).toEqual([CAPACITY + MIB, CAPACITY]);
  problem = null;
  expect(await create()).toMatchObject({ status: '00/00', dw0: 2 });
  problem = new Error('still in use');
  expect((await remove(2)).status).toBe('00/00');
  await until(() => warnings.length === 2);
  expect(warnings[1]).toBe('The storage of namespace 2 was not deleted: still in use');
  expect(deleted).toEqual(backends);
});

test('without a store there is no such command', async () => {
  host.close();
  await begin({ namespaceStore: undefined as never });
  expect((await create()).status).toBe('00/01 DNR');
  expect(await attachment(1, 1)).toBe('00/01 DNR');
  expect((await answer(1)).getUint16(256, true)).toBe(2);
  expect(await capacities()).toEqual([MIB, 0]);
  expect((await host.adminCommand({ opcode: 6, nsid: BROADCAST })).status).toBe('00/0b DNR');
});

test.each([0, 511, 1.5, NaN, 2 ** 60])('a capacity of %d bytes in memory is refused', (capacity) => {
  expect(() => memoryNamespaceStore(capacity)).toThrow(
    `The capacity for namespaces is an integer of at least 512 bytes, got ${capacity}`,
  );
});
