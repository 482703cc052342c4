// SPDX-License-Identifier: MIT
/** Several namespaces, and those that come and go while the controller is at work. */
import { type Backend, createBackend } from '../../../lib/nvme/backends';
import {
  type Command,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeNamespaceList,
} from '../../../lib/nvme/spec';
import { MIB, SlowBackend, askForNotices, changedNamespaces, identified, memory } from './namespace-support';
import { Address, Host, type HostQueue, turns, until } from './support';

const READ = 2;
const WRITE = 1;
const FLUSH = 0;
const BROADCAST = 0xffff_ffff;
const FAR = 0x100_0000;

let host: Host;

afterEach(() => {
  host.close();
});

function identify(cns: number, nsid = 0, cdw10 = 0): Command {
  return { opcode: 6, nsid, cdw10: cns | cdw10 };
}

function data(length = 4096): Uint8Array {
  return host.memory.bytes(Address.data, length);
}

describe('several namespaces', () => {
  let first: Backend;
  let second: SlowBackend;
  let queue: HostQueue;

  beforeEach(async () => {
    first = memory();
    second = new SlowBackend(2 * MIB);
    host = new Host({
      namespaces: [
        { backend: second, nsid: 5, blockSize: 4096 },
        { backend: first },
        { backend: memory(3 * MIB) },
      ],
    });
    host.enable();
    queue = await host.createQueues();
  });

  async function status(command: Command): Promise<string> {
    return (await host.run(queue, { prp1: Address.data, ...command })).status;
  }

  test('Identify tells of each of them', async () => {
    expect(decodeIdentifyController(await identified(host, 1))).toMatchObject({
      nn: 32,
      mnan: 32,
      oaes: 0x100,
      vwc: 7,
      tnvmcap: BigInt(6 * MIB),
    });
    expect(decodeNamespaceList(await identified(host, 2))).toEqual([1, 2, 5]);
    expect(decodeNamespaceList(await identified(host, 2, 2))).toEqual([5]);
    expect(decodeNamespaceList(await identified(host, 7, 1))).toEqual([2, 5]);
    expect(decodeNamespaceList(await identified(host, 0x10))).toEqual([1, 2, 5]);
    expect(decodeIdentifyNamespace(await identified(host, 0, 1))).toMatchObject({
      nsze: 2048,
      flbas: 0,
      nlbaf: 1,
    });
    expect(decodeIdentifyNamespace(await identified(host, 0, 5))).toMatchObject({
      nsze: 512,
      flbas: 1,
      nlbaf: 1,
    });
    expect(await identified(host, 0x11, 5)).toEqual(await identified(host, 0, 5));
    // A byte of its own, since the data of CNS 08h has no decoder here: NSTAT.NRDY (NVMe base 2.0, 5.17.2.8).
    expect((await identified(host, 8, 5)).indexOf(1)).toBe(14);
    // The controller list: one entry, CNTLID 1 (NVMe base 2.0, 4.4.1).
    expect((await identified(host, 0x12, 5)).subarray(0, 6)).toEqual(Uint8Array.of(1, 0, 1, 0, 0, 0));
    expect((await identified(host, 0x13)).subarray(0, 6)).toEqual(Uint8Array.of(1, 0, 1, 0, 0, 0));
    expect((await host.adminCommand(identify(0x13, 0, 2 << 16))).status).toBe('00/00');
    expect(data(2)).toEqual(Uint8Array.of(0, 0));
  });

  test('an id without a namespace is inactive, above NN it is invalid', async () => {
    for (const cns of [0, 5, 8, 0x11])
      expect((await identified(host, cns, 3)).every((byte) => byte === 0)).toBe(true);
    expect((await identified(host, 0x12, 3)).every((byte) => byte === 0)).toBe(true);
    for (const cns of [0, 3, 5, 8, 0x11, 0x12]) {
      expect((await host.adminCommand(identify(cns, 33))).status).toBe('00/0b DNR');
    }
    expect((await host.adminCommand(identify(3, 3))).status).toBe('00/02 DNR');
    for (const opcode of [FLUSH, WRITE, READ, 5, 8]) {
      expect(await status({ opcode, nsid: 3 })).toBe('00/02 DNR');
      expect(await status({ opcode, nsid: 33 })).toBe('00/0b DNR');
      expect(await status({ opcode, nsid: 0xffff_fffe })).toBe('00/0b DNR');
    }
    expect(await status({ opcode: READ, nsid: BROADCAST })).toBe('00/0b DNR');
  });

  test('each has its data, its blocks and its end', async () => {
    data(4096).fill(0x11);
    expect(await status({ opcode: WRITE, nsid: 1 })).toBe('00/00');
    data(4096).fill(0x55);
    expect(await status({ opcode: WRITE, nsid: 5 })).toBe('00/00');
    data(4096).fill(0);
    expect(await status({ opcode: READ, nsid: 1 })).toBe('00/00');
    expect(data(513)).toEqual(Uint8Array.from([...new Array<number>(512).fill(0x11), 0]));
    expect(await status({ opcode: READ, nsid: 5 })).toBe('00/00');
    expect(data(4096).every((byte) => byte === 0x55)).toBe(true);
    expect(await status({ opcode: READ, nsid: 5, cdw10: 511 })).toBe('00/00');
    expect(await status({ opcode: READ, nsid: 5, cdw10: 512 })).toBe('00/80 DNR');
    expect(await status({ opcode: READ, nsid: 1, cdw10: 2047 })).toBe('00/00');
    expect(await status({ opcode: READ, nsid: 1, cdw10: 2048 })).toBe('00/80 DNR');
  });

  test('each has its statistics, and the controller has their sum', async () => {
    await status({ opcode: WRITE, nsid: 1 });
    await status({ opcode: READ, nsid: 5 });
    await status({ opcode: READ, nsid: 5 });
    const [one, two, five] = host.controller.namespaces.map(({ statistics }) => statistics);
    expect(one).toMatchObject({ writeCommands: 1, bytesWritten: 512, readCommands: 0 });
    expect(two).toMatchObject({ writeCommands: 0, readCommands: 0 });
    expect(five).toMatchObject({ readCommands: 2, bytesRead: 8192 });
    expect(host.controller.statistics).toMatchObject({
      readCommands: 2,
      writeCommands: 1,
      bytesRead: 8192,
      bytesWritten: 512,
    });
    await host.controller.removeNamespace(5);
    expect(host.controller.statistics).toMatchObject({ readCommands: 2, bytesRead: 8192 });
  });

  test('Flush of one, and of all', async () => {
    expect(await status({ opcode: FLUSH, nsid: 1 })).toBe('00/00');
    expect(second.flushes).toBe(0);
    expect(await status({ opcode: FLUSH, nsid: 5 })).toBe('00/00');
    expect(second.flushes).toBe(1);
    expect(await status({ opcode: FLUSH, nsid: BROADCAST })).toBe('00/00');
    expect(second.flushes).toBe(2);
    second.gate = Promise.reject(new Error('disk'));
    expect(await status({ opcode: FLUSH, nsid: BROADCAST })).toBe('02/80');
  });

  test('a shutdown makes all durable', async () => {
    host.write32(0x14, 0x0046_4001);
    await until(() => host.read32(0x1c) === 9);
    expect(second.flushes).toBe(1);
  });

  test('closing the controller closes all backends', () => {
    host.close();
    expect(second.closed).toBe(true);
  });
});

describe('while the controller is at work', () => {
  let queue: HostQueue;
  const aer: Command = { opcode: 0x0c };

  beforeEach(async () => {
    host = new Host();
    host.enable();
    queue = await host.createQueues();
  });

  test('a namespace that is added is told of, and can be used', async () => {
    await askForNotices(host);
    const cid = host.push(host.admin, aer);
    host.ring(host.admin);
    await turns();
    const { nsid } = host.controller.addNamespace({ backend: memory(), blockSize: 4096 });
    expect(nsid).toBe(2);
    // Type notice, information 0, log page 04h (NVMe base 2.0, 5.2).
    expect(await host.completion(host.admin)).toMatchObject({ cid, status: '00/00', dw0: 0x0004_0002 });
    expect(await changedNamespaces(host, true)).toEqual([2]);
    expect(await changedNamespaces(host)).toEqual([2]);
    expect(await changedNamespaces(host)).toEqual([]);
    expect(decodeNamespaceList(await identified(host, 2))).toEqual([1, 2]);
    expect((await host.run(queue, { opcode: WRITE, nsid: 2, prp1: Address.data })).status).toBe('00/00');
  });

  test('one event until the page was read', async () => {
    await askForNotices(host);
    const cids = [host.push(host.admin, aer), host.push(host.admin, aer)];
    host.ring(host.admin);
    await turns();
    host.controller.addNamespace({ backend: memory(), nsid: 7 });
    host.controller.addNamespace({ backend: memory() });
    expect(await host.completion(host.admin)).toMatchObject({ cid: cids[0], dw0: 0x0004_0002 });
    await turns();
    expect(host.take(host.admin)).toBeUndefined();
    expect(await changedNamespaces(host)).toEqual([2, 7]);
    await host.controller.removeNamespace(7);
    expect(await host.completion(host.admin)).toMatchObject({ cid: cids[1], dw0: 0x0004_0002 });
    expect(await changedNamespaces(host)).toEqual([7]);
  });

  test('a host that has not asked for it is not told', async () => {
    host.push(host.admin, aer);
    host.ring(host.admin);
    host.controller.addNamespace({ backend: memory() });
    await turns();
    expect(host.take(host.admin)).toBeUndefined();
    expect(await changedNamespaces(host)).toEqual([2]);
  });

  test('commands for a namespace that is gone fail as those for any inactive id', async () => {
    await host.controller.removeNamespace(1);
    expect(host.controller.namespaces).toEqual([]);
    const command = { opcode: READ, nsid: 1, prp1: Address.data };
    expect((await host.run(queue, command)).status).toBe('00/02 DNR');
    expect(decodeNamespaceList(await identified(host, 2))).toEqual([]);
    expect((await identified(host, 0, 1)).every((byte) => byte === 0)).toBe(true);
    // The id can be given to another one.
    expect(host.controller.addNamespace({ backend: memory() }).nsid).toBe(1);
    expect((await host.run(queue, command)).status).toBe('00/00');
  });

  test('commands that run when their namespace goes', async () => {
    const backend = new SlowBackend(MIB);
    host.controller.addNamespace({ backend });
    let open = (): void => undefined;
    host.memory.gate = new Promise((resolve) => (open = resolve));
    host.memory.add(FAR, 0x1_0000, { distant: true });
    // The data of one has to come by message, so that it has not reached the backend; the other is in the backend.
    const write = host.push(queue, { opcode: WRITE, nsid: 2, prp1: FAR });
    let flushed = (): void => undefined;
    backend.gate = new Promise((resolve) => (flushed = resolve));
    const flush = host.push(queue, { opcode: FLUSH, nsid: 2 });
    host.ring(queue);
    await until(() => backend.flushes === 1 && host.memory.messages.length === 1);
    let removed = false;
    const removal = host.controller.removeNamespace(2).then(() => (removed = true));
    const writes = jest.spyOn(backend, 'write');
    open();
    expect(await host.completion(queue)).toMatchObject({ cid: write, status: '00/02 DNR' });
    expect(writes).not.toHaveBeenCalled();
    expect([removed, backend.closed]).toEqual([false, false]);
    flushed();
    expect(await host.completion(queue)).toMatchObject({ cid: flush, status: '00/00' });
    await removal;
    // The flush of the removal is the second.
    expect([backend.closed, backend.flushes]).toEqual([true, 2]);
  });

  test('a removal whose data cannot be made durable rejects, and closes the backend', async () => {
    const backend = new SlowBackend(MIB);
    host.controller.addNamespace({ backend });
    backend.gate = Promise.reject(new Error('disk'));
    await expect(host.controller.removeNamespace(2)).rejects.toThrow('disk');
    expect(backend.closed).toBe(true);
  });

  test('with a cache that the host does not know of, every write is made durable', async () => {
    const backend = new SlowBackend(MIB);
    host.controller.addNamespace({ backend });
    expect(decodeIdentifyController(await identified(host, 1)).vwc).toBe(6);
    expect((await host.run(queue, { opcode: WRITE, nsid: 2, prp1: Address.data })).status).toBe('00/00');
    expect(backend.flushes).toBe(1);
    host.write32(0x14, 0);
    host.enable();
    queue = await host.createQueues();
    expect((await host.run(queue, { opcode: WRITE, nsid: 2, prp1: Address.data })).status).toBe('00/00');
    expect(backend.flushes).toBe(2);
  });

  test('what cannot be added is refused', async () => {
    const { controller } = host;
    const backend = memory();
    expect(() => controller.addNamespace({ backend, nsid: 1 })).toThrow('There is a namespace 1 already');
    for (const nsid of [0, 33, 1.5, -1]) {
      expect(() => controller.addNamespace({ backend, nsid })).toThrow(
        `nsid is an integer from 1 to 32 (maxNamespaces), got ${nsid}`,
      );
    }
    controller.addNamespace({ backend });
    expect(() => controller.addNamespace({ backend })).toThrow(
      'The backend of namespace 3 is that of namespace 2',
    );
    await expect(controller.removeNamespace(9)).rejects.toThrow('There is no namespace 9');
    for (let nsid = 3; nsid <= 32; nsid++)
      controller.addNamespace({ backend: createBackend({ kind: 'null', size: 512 }) });
    expect(() => controller.addNamespace({ backend: memory() })).toThrow(
      'The controller has all of its 32 namespaces (maxNamespaces)',
    );
    expect(decodeNamespaceList(await identified(host, 2))).toHaveLength(32);
  });
});
