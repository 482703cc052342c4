// SPDX-License-Identifier: MIT
/** Several namespaces, those that come and go while the controller is at work, and what they are known by. */
import { mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import {
  type Backend,
  BackendResult,
  MemoryBackend,
  createBackend,
  customBackend,
} from '../../../lib/nvme/backends';
import { NvmeControllerModel, type NvmeControllerOptions } from '../../../lib/nvme/controller';
import {
  type Command,
  type NamespaceDescriptors,
  decodeChangedNamespaces,
  decodeIdentifyController,
  decodeIdentifyNamespace,
  decodeNamespaceDescriptors,
  decodeNamespaceList,
} from '../../../lib/nvme/spec';
import { Address, Host, type HostQueue, turns, until } from './support';

const MIB = 1 << 20;
const READ = 2;
const WRITE = 1;
const FLUSH = 0;
const BROADCAST = 0xffff_ffff;
const FAR = 0x100_0000;

let host: Host;

afterEach(() => {
  host.close();
});

function memory(size = MIB): Backend {
  return createBackend({ kind: 'memory', size });
}

/** A backend of which a test tells when a flush ends, and how. */
class SlowBackend extends MemoryBackend {
  override readonly volatileCache = true as never;
  flushes = 0;
  closed = false;
  gate: Promise<void> = Promise.resolve();

  override flush(): Promise<void> {
    this.flushes++;
    return this.gate;
  }

  override close(): void {
    this.closed = true;
    super.close();
  }
}

function identify(cns: number, nsid = 0, cdw10 = 0): Command {
  return { opcode: 6, nsid, cdw10: cns | cdw10 };
}

function data(length = 4096): Uint8Array {
  return host.memory.bytes(Address.data, length);
}

async function answer(cns: number, nsid = 0): Promise<Uint8Array> {
  data().fill(0xff);
  expect((await host.adminCommand(identify(cns, nsid))).status).toBe('00/00');
  return data().slice();
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
    expect(decodeIdentifyController(await answer(1))).toMatchObject({
      nn: 32,
      mnan: 32,
      oaes: 0x100,
      vwc: 7,
      tnvmcap: BigInt(6 * MIB),
    });
    expect(decodeNamespaceList(await answer(2))).toEqual([1, 2, 5]);
    expect(decodeNamespaceList(await answer(2, 2))).toEqual([5]);
    expect(decodeNamespaceList(await answer(7, 1))).toEqual([2, 5]);
    expect(decodeNamespaceList(await answer(0x10))).toEqual([1, 2, 5]);
    expect(decodeIdentifyNamespace(await answer(0, 1))).toMatchObject({ nsze: 2048, flbas: 0, nlbaf: 1 });
    expect(decodeIdentifyNamespace(await answer(0, 5))).toMatchObject({ nsze: 512, flbas: 1, nlbaf: 1 });
    expect(await answer(0x11, 5)).toEqual(await answer(0, 5));
    // A byte of its own, since the data of CNS 08h has no decoder here: NSTAT.NRDY (NVMe base 2.0, 5.17.2.8).
    expect((await answer(8, 5)).indexOf(1)).toBe(14);
    // The controller list: one entry, CNTLID 1 (NVMe base 2.0, 4.4.1).
    expect((await answer(0x12, 5)).subarray(0, 6)).toEqual(Uint8Array.of(1, 0, 1, 0, 0, 0));
    expect((await answer(0x13)).subarray(0, 6)).toEqual(Uint8Array.of(1, 0, 1, 0, 0, 0));
    expect((await host.adminCommand(identify(0x13, 0, 2 << 16))).status).toBe('00/00');
    expect(data(2)).toEqual(Uint8Array.of(0, 0));
  });

  test('an id without a namespace is inactive, above NN it is invalid', async () => {
    for (const cns of [0, 5, 8, 0x11]) expect((await answer(cns, 3)).every((byte) => byte === 0)).toBe(true);
    expect((await answer(0x12, 3)).every((byte) => byte === 0)).toBe(true);
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

  async function asksForNotices(): Promise<void> {
    expect((await host.adminCommand({ opcode: 9, cdw10: 0x0b, cdw11: 0x100 })).status).toBe('00/00');
  }

  /** Reads the Changed Namespace List, with Retain Asynchronous Event or without. */
  async function changed(retain = false): Promise<number[] | 'all'> {
    const cdw10 = 0x03ff_0004 | (retain ? 0x8000 : 0);
    expect((await host.adminCommand({ opcode: 2, cdw10 })).status).toBe('00/00');
    return decodeChangedNamespaces(data());
  }

  test('a namespace that is added is told of, and can be used', async () => {
    await asksForNotices();
    const cid = host.push(host.admin, aer);
    host.ring(host.admin);
    await turns();
    const { nsid } = host.controller.addNamespace({ backend: memory(), blockSize: 4096 });
    expect(nsid).toBe(2);
    // Type notice, information 0, log page 04h (NVMe base 2.0, 5.2).
    expect(await host.completion(host.admin)).toMatchObject({ cid, status: '00/00', dw0: 0x0004_0002 });
    expect(await changed(true)).toEqual([2]);
    expect(await changed()).toEqual([2]);
    expect(await changed()).toEqual([]);
    expect(decodeNamespaceList(await answer(2))).toEqual([1, 2]);
    expect((await host.run(queue, { opcode: WRITE, nsid: 2, prp1: Address.data })).status).toBe('00/00');
  });

  test('one event until the page was read', async () => {
    await asksForNotices();
    const cids = [host.push(host.admin, aer), host.push(host.admin, aer)];
    host.ring(host.admin);
    await turns();
    host.controller.addNamespace({ backend: memory(), nsid: 7 });
    host.controller.addNamespace({ backend: memory() });
    expect(await host.completion(host.admin)).toMatchObject({ cid: cids[0], dw0: 0x0004_0002 });
    await turns();
    expect(host.take(host.admin)).toBeUndefined();
    expect(await changed()).toEqual([2, 7]);
    await host.controller.removeNamespace(7);
    expect(await host.completion(host.admin)).toMatchObject({ cid: cids[1], dw0: 0x0004_0002 });
    expect(await changed()).toEqual([7]);
  });

  test('a host that has not asked for it is not told', async () => {
    host.push(host.admin, aer);
    host.ring(host.admin);
    host.controller.addNamespace({ backend: memory() });
    await turns();
    expect(host.take(host.admin)).toBeUndefined();
    expect(await changed()).toEqual([2]);
  });

  test('commands for a namespace that is gone fail as those for any inactive id', async () => {
    await host.controller.removeNamespace(1);
    expect(host.controller.namespaces).toEqual([]);
    const command = { opcode: READ, nsid: 1, prp1: Address.data };
    expect((await host.run(queue, command)).status).toBe('00/02 DNR');
    expect(decodeNamespaceList(await answer(2))).toEqual([]);
    expect((await answer(0, 1)).every((byte) => byte === 0)).toBe(true);
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
    expect(decodeIdentifyController(await answer(1)).vwc).toBe(6);
    expect((await host.run(queue, { opcode: WRITE, nsid: 2, prp1: Address.data })).status).toBe('00/00');
    expect(backend.flushes).toBe(1);
    host.write32(0x14, 0);
    host.enable();
    queue = await host.createQueues();
    expect((await host.run(queue, { opcode: WRITE, nsid: 2, prp1: Address.data })).status).toBe('00/00');
    expect(backend.flushes).toBe(2);
  });

  describe('a namespace that changes its size', () => {
    async function status(command: Command): Promise<string> {
      return (await host.run(queue, { nsid: 1, prp1: Address.data, ...command })).status;
    }

    test('grows, and the host is told', async () => {
      await asksForNotices();
      const cid = host.push(host.admin, aer);
      host.ring(host.admin);
      await turns();
      data(512).fill(0x77);
      expect(await status({ opcode: WRITE, cdw10: 32767 })).toBe('00/00');
      expect(await status({ opcode: READ, cdw10: 32768 })).toBe('00/80 DNR');
      const info = await host.controller.resizeNamespace(1, 17 * MIB);
      expect(info).toMatchObject({ nsid: 1, size: 17 * MIB });
      expect(await host.completion(host.admin)).toMatchObject({ cid, dw0: 0x0004_0002 });
      expect(await changed()).toEqual([1]);
      expect(decodeIdentifyNamespace(await answer(0, 1)).nsze).toBe(17 * 2048);
      data(1024).fill(0xff);
      expect(await status({ opcode: READ, cdw10: 32767, cdw12: 1 })).toBe('00/00');
      expect(data(1024)).toEqual(Uint8Array.from({ length: 1024 }, (_, i) => (i < 512 ? 0x77 : 0)));
    });

    test('shrinks: what is behind the end fails, and is zeros when it grows again', async () => {
      data(512).fill(0x77);
      expect(await status({ opcode: WRITE, cdw10: 32767 })).toBe('00/00');
      await host.controller.resizeNamespace(1, 1024);
      expect(await status({ opcode: READ, cdw10: 2 })).toBe('00/80 DNR');
      expect(await status({ opcode: READ, cdw10: 1 })).toBe('00/00');
      await host.controller.resizeNamespace(1, 16 * MIB);
      expect(await status({ opcode: READ, cdw10: 32767 })).toBe('00/00');
      expect(data(512).every((byte) => byte === 0)).toBe(true);
    });

    test('commands that run end before the backend shrinks', async () => {
      let open = (): void => undefined;
      host.memory.gate = new Promise((resolve) => (open = resolve));
      host.memory.add(FAR, 0x1_0000, { distant: true });
      const write = host.push(queue, { opcode: WRITE, nsid: 1, prp1: FAR, cdw10: 32767 });
      host.ring(queue);
      await until(() => host.memory.messages.length === 1);
      let resized = false;
      const resizing = host.controller.resizeNamespace(1, MIB).then(() => (resized = true));
      expect(await status({ opcode: READ, cdw10: 32767 })).toBe('00/80 DNR');
      expect(resized).toBe(false);
      open();
      expect(await host.completion(queue)).toMatchObject({ cid: write, status: '00/00' });
      await resizing;
    });

    test('the size of the storage is taken over', async () => {
      const path = join(mkdtempSync(join(tmpdir(), 'vfio-user-test-')), 'disk');
      writeFileSync(path, new Uint8Array(8192));
      host.controller.addNamespace({ backend: createBackend({ kind: 'file', path }) });
      expect(await status({ opcode: READ, nsid: 2, cdw10: 16 })).toBe('00/80 DNR');
      truncateSync(path, 16384 + 100);
      expect(await host.controller.resizeNamespace(2)).toMatchObject({ size: 16384 });
      expect(await status({ opcode: READ, nsid: 2, cdw10: 31 })).toBe('00/00');
      // What is cut off stays in the file.
      await host.controller.resizeNamespace(2, 512);
      expect(statSync(path).size).toBe(16384 + 100);
      expect(await status({ opcode: READ, nsid: 2, cdw10: 1 })).toBe('00/80 DNR');
      await host.controller.resizeNamespace(2, 32768);
      expect(statSync(path).size).toBe(32768);
      rmSync(dirname(path), { recursive: true });
    });

    test('the storage tells its new size: the host is told, and what is behind the end fails', async () => {
      let changed = (): void => undefined;
      const own = {
        size: 8192,
        read: () => undefined,
        write: () => undefined,
        onSizeChange: (call: () => void) => (changed = call),
      };
      host.controller.addNamespace({ backend: customBackend(own) });
      await asksForNotices();
      const cid = host.push(host.admin, aer);
      host.ring(host.admin);
      own.size = 4096 + 100;
      changed();
      expect(await status({ opcode: READ, nsid: 2, cdw10: 8 })).toBe('00/80 DNR');
      expect(await status({ opcode: READ, nsid: 2, cdw10: 7 })).toBe('00/00');
      expect(await host.completion(host.admin)).toMatchObject({ cid, dw0: 0x0004_0002 });
      expect(host.controller.namespaces[1]).toMatchObject({ size: 4096 });
      own.size = 16384;
      changed();
      await until(() => host.controller.namespaces[1]?.size === 16384);
      expect(await status({ opcode: READ, nsid: 2, cdw10: 31 })).toBe('00/00');
      // It is nobody's any more.
      await host.controller.removeNamespace(2);
      changed();
    });

    test.each([0, 511, 1000, 2 ** 60, NaN])('to %d bytes is refused', async (size) => {
      await expect(host.controller.resizeNamespace(1, size)).rejects.toThrow(
        `The size of namespace 1 is a multiple of 512 bytes, got ${size}`,
      );
      expect(host.controller.namespaces[0]?.size).toBe(16 * MIB);
    });

    test('a backend that cannot do it, or fails', async () => {
      const fixed = createBackend({ kind: 'null', size: MIB });
      Object.assign(fixed, { resize: undefined });
      host.controller.addNamespace({ backend: fixed });
      await expect(host.controller.resizeNamespace(2, 512)).rejects.toMatchObject({
        code: 'ERR_VFIO_USER_UNSUPPORTED',
        message: 'The size of namespace 2 cannot be changed: its null backend has no resize',
      });
      const failing = createBackend({ kind: 'null', size: MIB });
      Object.assign(failing, { resize: () => Promise.reject(new Error('disk')) });
      host.controller.addNamespace({ backend: failing });
      await expect(host.controller.resizeNamespace(3, 512)).rejects.toThrow('disk');
      expect(host.controller.namespaces.map(({ size }) => size)).toEqual([16 * MIB, MIB, MIB]);
      await expect(host.controller.resizeNamespace(4)).rejects.toThrow('There is no namespace 4');
    });

    test('a namespace that goes meanwhile', async () => {
      const backend = new SlowBackend(MIB);
      host.controller.addNamespace({ backend });
      let flushed = (): void => undefined;
      backend.gate = new Promise((resolve) => (flushed = resolve));
      host.push(queue, { opcode: FLUSH, nsid: 2 });
      host.ring(queue);
      await until(() => backend.flushes === 1);
      const resizing = host.controller.resizeNamespace(2, 512);
      await turns();
      const removal = host.controller.removeNamespace(2);
      flushed();
      await expect(resizing).rejects.toThrow('There is no namespace 2');
      await removal;
    });
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
    expect(decodeNamespaceList(await answer(2))).toHaveLength(32);
  });
});

describe('identity', () => {
  function backend(identity?: string): Backend {
    return {
      kind: 'test',
      size: MIB,
      ...(identity !== undefined && { identity }),
      volatileCache: false,
      read: () => BackendResult.success,
      write: () => BackendResult.success,
      zero: () => BackendResult.success,
      deallocate: () => BackendResult.success,
      flush: () => Promise.resolve(),
      close: () => undefined,
    };
  }

  interface Seen {
    readonly sn: string;
    readonly mn: string;
    readonly subnqn: string;
    readonly namespaces: readonly NamespaceDescriptors[];
  }

  /** Serial number, NQN and the identifiers of the namespaces, as a host sees them. */
  async function seen(options: NvmeControllerOptions): Promise<Seen> {
    host = new Host(new NvmeControllerModel(options));
    host.enable();
    const { sn, mn, subnqn } = decodeIdentifyController(await answer(1));
    const namespaces: NamespaceDescriptors[] = [];
    for (const nsid of decodeNamespaceList(await answer(2))) {
      const { nguid, eui64 } = decodeIdentifyNamespace(await answer(0, nsid));
      const descriptors = decodeNamespaceDescriptors(await answer(3, nsid));
      expect(descriptors).toMatchObject({ nguid, eui64 });
      namespaces.push(descriptors);
    }
    host.close();
    return { sn, mn, subnqn, namespaces };
  }

  test('stays the same for the same files, wherever they are used', async () => {
    const a = await seen({ namespaces: [{ backend: backend('/a') }, { backend: backend('/b') }] });
    const again = await seen({ namespaces: [{ backend: backend('/a') }, { backend: backend('/b') }] });
    expect(again).toEqual(a);
    const other = await seen({ namespaces: [{ backend: backend('/b'), nsid: 9 }], serial: 'X' });
    expect(other.namespaces).toEqual([a.namespaces[1]]);
    expect(other.subnqn).not.toBe(a.subnqn);
  });

  test('of memory follows from serial number and id, and is by chance without one', async () => {
    const namespaces = [{ backend: backend() }, { backend: backend() }];
    const a = await seen({ namespaces, serial: 'S' });
    expect(await seen({ namespaces, serial: 'S' })).toEqual(a);
    const [one, two] = a.namespaces;
    expect(one).not.toEqual(two);
    const b = await seen({ namespaces });
    expect(b.sn).toMatch(/^VFU[0-9a-f]{12}$/);
    expect(await seen({ namespaces })).not.toEqual(b);
  });

  test('can be given', async () => {
    const uuid = '01234567-89ab-CDEF-0123-456789abcdef';
    expect(
      await seen({
        serial: 'S 1',
        model: 'M',
        nqn: 'nqn.2026-01.org.example:disk',
        namespaces: [
          { backend: backend(), uuid },
          { backend: backend(), nguid: 'f'.repeat(32), eui64: '02-00-00-00-00-00-00-01', uuid },
        ],
      }),
    ).toEqual({
      sn: 'S 1',
      mn: 'M',
      subnqn: 'nqn.2026-01.org.example:disk',
      namespaces: [
        {
          uuid: uuid.toLowerCase(),
          nguid: '0123456789abcdef0123456789abcdef',
          eui64: expect.any(String),
          csi: 0,
        },
        { uuid: uuid.toLowerCase(), nguid: 'f'.repeat(32), eui64: '0200000000000001', csi: 0 },
      ],
    });
  });

  test('an EUI-64 that was made up is local, and not that of a group', async () => {
    for (let i = 0; i < 8; i++) {
      const { namespaces } = await seen({ namespaces: [{ backend: backend(`/${i}`) }] });
      expect(parseInt(namespaces[0]!.eui64!.slice(0, 2), 16) & 3).toBe(2);
    }
  });

  test('a controller without namespaces', async () => {
    expect(await seen({ namespaces: [] })).toMatchObject({ mn: 'vfio-user drive', namespaces: [] });
  });

  test.each([
    [{ uuid: '0123' }, 'uuid is 32 hexadecimal digits, with or without dashes, got "0123"'],
    [{ nguid: 'g'.repeat(32) }, 'nguid is 32 hexadecimal digits'],
    [{ eui64: '0'.repeat(16) }, 'eui64 is not zero'],
    [{ blockSize: 520 as never }, 'blockSize is 512 or 4096, got 520'],
    [{ nsid: 1025 }, 'nsid is an integer from 1 to 1024 (maxNamespaces), got 1025'],
  ])('a namespace with %j is refused', (options, message) => {
    expect(() => new NvmeControllerModel({ namespaces: [{ backend: backend(), ...options }] })).toThrow(
      message,
    );
  });

  test.each([
    [{}, 'A controller is given either its backend or its namespaces'],
    [{ backend: backend(), namespaces: [] }, 'A controller is given either its backend or its namespaces'],
    [{ namespaces: [], blockSize: 512 as const }, 'blockSize is given with each of the namespaces'],
    [{ namespaces: [], maxNamespaces: 1025 }, 'maxNamespaces is an integer from 1 to 1024, got 1025'],
    [{ namespaces: [], nqn: 'disk' }, 'nqn is at most 223 bytes such as'],
    [{ namespaces: [], nqn: `nqn.2026-01.org.example:${'x'.repeat(200)}` }, 'nqn is at most 223 bytes'],
    [
      { namespaces: [{ backend: backend() }, { backend: backend() }], maxNamespaces: 1 },
      'The controller has all of its 1 namespaces (maxNamespaces)',
    ],
  ])('a controller with %j is refused', (options, message) => {
    expect(() => new NvmeControllerModel(options)).toThrow(message);
  });
});
