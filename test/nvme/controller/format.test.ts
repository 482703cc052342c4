// SPDX-License-Identifier: MIT
/** Format NVM: LBA formats, what is erased, and what other commands meet meanwhile (NVMe base 2.0, 5.14). */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type AsynchronousBackend,
  BackendResult,
  MemoryBackend,
  createBackend,
} from '../../../lib/nvme/backends';
import type { NvmeControllerOptions } from '../../../lib/nvme/controller';
import type { Command } from '../../../lib/nvme/spec';
import { Address, Host, type HostQueue, turns, until } from './support';

const FORMAT = 0x80;
const [FLUSH, WRITE, READ, WRITE_UNCORRECTABLE] = [0, 1, 2, 4];
const BROADCAST = 0xffff_ffff;
const MIB = 1 << 20;

let host: Host;
let queue: HostQueue;

async function begin(options: Partial<NvmeControllerOptions> = {}): Promise<void> {
  host = new Host(options);
  host.enable();
  queue = await host.createQueues();
}
afterEach(() => {
  host.close();
});

const format = (command: Partial<Command> = {}) => host.adminCommand({ opcode: FORMAT, nsid: 1, ...command });

async function io(command: Command): Promise<string> {
  return (await host.run(queue, { nsid: 1, prp1: Address.data, ...command })).status;
}

function data(length = 4096): Uint8Array {
  return host.memory.bytes(Address.data, length);
}

/** Bytes of Identify Namespace: NSZE, NCAP, NUSE as numbers, and NLBAF, FLBAS, FPI and the formats as they are. */
async function identify(nsid = 1) {
  data().fill(0xff);
  expect((await host.adminCommand({ opcode: 6, nsid })).status).toBe('00/00');
  const view = new DataView(data().slice().buffer);
  return {
    sizes: [0, 8, 16].map((at) => Number(view.getBigUint64(at, true))),
    nlbaf: view.getUint8(25),
    flbas: view.getUint8(26),
    fpi: view.getUint8(32),
    lbafs: [128, 132, 136].map((at) => view.getUint32(at, true)),
  };
}

/** A backend whose zeroing ends when a test says so. */
function slowBackend(): {
  backend: AsynchronousBackend;
  zeroed: [number, number][];
  end: (result?: BackendResult) => void;
} {
  const zeroed: [number, number][] = [];
  let settle: (result: BackendResult) => void = () => undefined;
  const access = () => Promise.resolve(BackendResult.success);
  const backend: AsynchronousBackend = {
    asynchronous: true,
    kind: 'slow',
    size: 40 * MIB,
    volatileCache: false,
    read: access,
    write: access,
    deallocate: access,
    zero: (offset, length) => {
      zeroed.push([offset, length]);
      return new Promise((resolve) => (settle = resolve));
    },
    flush: () => Promise.resolve(),
    close: () => undefined,
  };
  return {
    backend,
    zeroed,
    end: (result = BackendResult.success) => {
      settle(result);
    },
  };
}

describe('a drive in memory', () => {
  beforeEach(() => begin());

  test('Identify offers blocks of 512 and 4096 bytes without metadata, and no more', async () => {
    expect(await identify()).toEqual({
      sizes: [32768, 32768, 32768],
      nlbaf: 1,
      flbas: 0,
      fpi: 0x80,
      lbafs: [0x0009_0000, 0x000c_0000, 0],
    });
    expect((await host.adminCommand({ opcode: 6, cdw10: 1 })).status).toBe('00/00');
    // OACS: Format NVM. FNA: of single namespaces or all of them, no cryptographic erase.
    expect([data()[256], data()[524]]).toEqual([2, 0]);
    // LBCC, NCC, and CSE 1, in Commands Supported and Effects.
    expect((await host.adminCommand({ opcode: 2, cdw10: 0x03ff_0005 })).status).toBe('00/00');
    expect(data().slice(4 * FORMAT, 4 * FORMAT + 4)).toEqual(Uint8Array.of(0x07, 0, 0x01, 0));
  });

  test('the new block size is in effect at once, and all blocks read zeros', async () => {
    data(4096).fill(7);
    for (const lba of [0, 8, 32760]) expect(await io({ opcode: WRITE, cdw10: lba, cdw12: 7 })).toBe('00/00');
    expect(await format({ cdw10: 1 })).toMatchObject({ status: '00/00', dw0: 0 });
    expect(await identify()).toMatchObject({ sizes: [4096, 4096, 4096], flbas: 1, fpi: 0x80 });
    expect(host.controller.namespaces[0]).toMatchObject({ blockSize: 4096, size: 16 * MIB });
    for (const lba of [0, 1, 4095]) {
      data(4096).fill(0xee);
      expect(await io({ opcode: READ, cdw10: lba })).toBe('00/00');
      expect(data(4096).every((byte) => byte === 0)).toBe(true);
    }
    expect(await io({ opcode: READ, cdw10: 4096 })).toBe('00/80 DNR');
    // A block of 4096 bytes has arrived where it belongs.
    data(4096).fill(9);
    expect(await io({ opcode: WRITE, cdw10: 1 })).toBe('00/00');
    data(4096).fill(0);
    expect(await io({ opcode: READ, cdw10: 1 })).toBe('00/00');
    expect(data(4096).every((byte) => byte === 9)).toBe(true);
    expect(await format({ cdw10: 0 })).toMatchObject({ status: '00/00' });
    expect(await identify()).toMatchObject({ sizes: [32768, 32768, 32768], flbas: 0 });
    expect(await io({ opcode: READ, cdw10: 8 })).toBe('00/00');
    expect(data(512).every((byte) => byte === 0)).toBe(true);
  });

  test('blocks that could not be read can be read again', async () => {
    expect(await io({ opcode: WRITE_UNCORRECTABLE, cdw10: 3 })).toBe('00/00');
    expect(await io({ opcode: READ, cdw10: 3 })).toBe('02/81');
    expect((await format()).status).toBe('00/00');
    expect(await io({ opcode: READ, cdw10: 3 })).toBe('00/00');
  });

  test('the host is told that the namespace has changed, if it wants to be', async () => {
    expect((await host.adminCommand({ opcode: 9, cdw10: 0x0b, cdw11: 0x100 })).status).toBe('00/00');
    const request = host.push(host.admin, { opcode: 0x0c });
    const command = host.push(host.admin, { opcode: FORMAT, nsid: 1, cdw10: 1 });
    host.ring(host.admin);
    const results = [await host.completion(host.admin), await host.completion(host.admin)];
    // Notice, Namespace Attribute Changed, page 04h.
    expect(results.find(({ cid }) => cid === request)).toMatchObject({ status: '00/00', dw0: 0x0004_0002 });
    expect(results.find(({ cid }) => cid === command)).toMatchObject({ status: '00/00' });
    expect((await host.adminCommand({ opcode: 2, cdw10: 0x03ff_0004 })).status).toBe('00/00');
    expect(data(8)).toEqual(Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0));
  });

  test.each<[string, Partial<Command>, string]>([
    ['user data erase', { cdw10: 1 << 9 }, '00/00'],
    ['metadata settings, which there is no metadata for', { cdw10: 0x110 }, '00/00'],
    ['cryptographic erase', { cdw10: 2 << 9 }, '00/02 DNR'],
    ['a reserved erase', { cdw10: 7 << 9 }, '00/02 DNR'],
    ['a format that is not there', { cdw10: 2 }, '01/0a DNR'],
    ['a format whose upper bits are not 0', { cdw10: 0x1000 }, '01/0a DNR'],
    ['protection information', { cdw10: 0x20 }, '01/0a DNR'],
    ['an inactive namespace', { nsid: 2 }, '00/02 DNR'],
    ['namespace 0', { nsid: 0 }, '00/0b DNR'],
    ['a namespace beyond NN', { nsid: 33 }, '00/0b DNR'],
  ])('%s', async (_, command, status) => {
    data(512).fill(5);
    expect(await io({ opcode: WRITE })).toBe('00/00');
    expect((await format(command)).status).toBe(status);
    expect(await io({ opcode: READ })).toBe('00/00');
    expect(data(1)[0]).toBe(status === '00/00' ? 0 : 5);
  });
});

describe('several namespaces', () => {
  test('the broadcast id is for all of them, and one that cannot follow stops them all', async () => {
    await begin({
      namespaces: [
        { backend: createBackend({ kind: 'memory', size: MIB }) },
        { backend: createBackend({ kind: 'memory', size: MIB }), blockSize: 4096 },
      ],
    });
    expect((await format({ nsid: BROADCAST, cdw10: 1 })).status).toBe('00/00');
    expect([(await identify(1)).flbas, (await identify(2)).flbas]).toEqual([1, 1]);
    expect((await format({ nsid: 2, cdw10: 0 })).status).toBe('00/00');
    expect([(await identify(1)).flbas, (await identify(2)).flbas]).toEqual([1, 0]);
    host.controller.addNamespace({ backend: createBackend({ kind: 'memory', size: 512 }) });
    expect((await format({ nsid: BROADCAST, cdw10: 1 })).status).toBe('01/0a DNR');
    expect((await identify(2)).flbas).toBe(0);
  });

  test('of a controller without any', async () => {
    await begin({ namespaces: [] });
    expect((await format({ nsid: BROADCAST })).status).toBe('00/00');
  });
});

describe('what the backend can do', () => {
  test('a format with smaller blocks than those of the backend is not available', async () => {
    const backend = Object.assign(new MemoryBackend(MIB), { blockSize: 4096 });
    await begin({ namespaces: [{ backend, blockSize: 4096 }] });
    expect(await identify()).toMatchObject({ flbas: 1, lbafs: [0, 0x000c_0000, 0] });
    expect((await format({ cdw10: 0 })).status).toBe('01/0a DNR');
    expect((await format({ cdw10: 1 })).status).toBe('00/00');
  });

  test('a namespace that is smaller than a block', async () => {
    await begin({ namespaces: [{ backend: new MemoryBackend(2048) }] });
    expect(await identify()).toMatchObject({ flbas: 0, lbafs: [0x0009_0000, 0, 0] });
    expect((await format({ cdw10: 1 })).status).toBe('01/0a DNR');
  });

  test('what does not fill a block of the new size is out of use, but not lost', async () => {
    await begin({ namespaces: [{ backend: new MemoryBackend(4096 * 3 + 512) }] });
    expect((await format({ cdw10: 1 })).status).toBe('00/00');
    expect((await identify()).sizes).toEqual([3, 3, 3]);
    expect((await format({ cdw10: 0 })).status).toBe('00/00');
    expect((await identify()).sizes).toEqual([25, 25, 25]);
  });

  test('a file is erased durably, and whoever serves it learns that it does not keep the block size', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'vfio-user-test-'));
    const path = join(folder, 'disk');
    writeFileSync(path, new Uint8Array(MIB).fill(3));
    const warnings: string[] = [];
    const backend = createBackend({ kind: 'file', path });
    await begin({ namespaces: [{ backend }], onWarning: (text) => warnings.push(text) });
    expect((await format({ cdw10: 0 })).status).toBe('00/00');
    expect(warnings).toEqual([]);
    expect((await format({ cdw10: 1 })).status).toBe('00/00');
    expect(warnings).toEqual([
      'Namespace 1 was formatted with blocks of 4096 bytes. The file backend does not keep that: say so when it is served the next time',
    ]);
    expect(await io({ opcode: READ, cdw10: 255 })).toBe('00/00');
    expect(data(4096).every((byte) => byte === 0)).toBe(true);
    rmSync(folder, { recursive: true });
  });

  test('a flush that fails fails the format', async () => {
    const backend = Object.assign(new MemoryBackend(MIB), {
      volatileCache: true,
      flush: () => Promise.reject(new Error('disk')),
    });
    await begin({ namespaces: [{ backend }] });
    expect((await format({ cdw10: 1 })).status).toBe('02/80');
    expect((await identify()).flbas).toBe(0);
  });
});

describe('while a format runs', () => {
  let slow: ReturnType<typeof slowBackend>;
  let command: number;

  beforeEach(async () => {
    slow = slowBackend();
    await begin({ namespaces: [{ backend: slow.backend }, { backend: new MemoryBackend(MIB) }] });
    command = host.push(host.admin, { opcode: FORMAT, nsid: 1, cdw10: 1 });
    host.ring(host.admin);
    await until(() => slow.zeroed.length === 1);
  });

  async function finish(): Promise<string> {
    const { length } = slow.zeroed;
    for (let requests = length; requests <= 3; requests++) {
      await until(() => slow.zeroed.length === requests);
      slow.end();
    }
    const result = await host.completion(host.admin);
    expect(result.cid).toBe(command);
    return result.status;
  }

  test('commands for the namespace fail, those for others do not, and Identify tells how much is left', async () => {
    for (const opcode of [READ, WRITE, FLUSH, WRITE_UNCORRECTABLE])
      expect(await io({ opcode })).toBe('00/84');
    expect(await io({ opcode: READ, nsid: 2 })).toBe('00/00');
    expect(await io({ opcode: FLUSH, nsid: BROADCAST })).toBe('00/00');
    expect(await identify()).toMatchObject({ sizes: [81920, 81920, 81920], flbas: 0, fpi: 0x80 | 100 });
    expect((await format({ cdw10: 0 })).status).toBe('00/84');
    expect((await format({ nsid: BROADCAST })).status).toBe('00/84');
    slow.end();
    await until(() => slow.zeroed.length === 2);
    expect((await identify()).fpi).toBe(0x80 | 60);
    expect(await finish()).toBe('00/00');
    expect(slow.zeroed).toEqual([
      [0, 16 * MIB],
      [16 * MIB, 16 * MIB],
      [32 * MIB, 8 * MIB],
    ]);
    expect(await identify()).toMatchObject({ sizes: [10240, 10240, 10240], flbas: 1, fpi: 0x80 });
    expect(await io({ opcode: READ, cdw10: 10239 })).toBe('00/00');
  });

  test.each([
    [BackendResult.mediumError, '02/80'],
    [BackendResult.outOfSpace, '00/81'],
    [BackendResult.unavailable, '00/82'],
  ])('a failure of the backend, %d, is told, and the format stays', async (result, status) => {
    slow.end(result);
    expect(await host.completion(host.admin)).toMatchObject({ cid: command, status });
    expect(await identify()).toMatchObject({ flbas: 0, fpi: 0x80 });
    expect(await io({ opcode: READ })).toBe('00/00');
  });

  test('a reset ends it, and the format stays', async () => {
    host.write32(0x14, 0);
    await turns();
    // CSTS.RDY is cleared when nothing runs any more.
    expect(host.read32(0x1c) & 1).toBe(1);
    slow.end();
    await until(() => (host.read32(0x1c) & 1) === 0);
    expect(slow.zeroed).toHaveLength(1);
    host.enable();
    queue = await host.createQueues();
    expect(await identify()).toMatchObject({ flbas: 0, fpi: 0x80 });
    expect(await io({ opcode: READ })).toBe('00/00');
  });

  test('a namespace that is removed', async () => {
    const removed = host.controller.removeNamespace(1);
    expect(await io({ opcode: READ })).toBe('00/02 DNR');
    slow.end();
    await removed;
    expect(await host.completion(host.admin)).toMatchObject({ cid: command, status: '00/06' });
    host.controller.addNamespace({ backend: new MemoryBackend(MIB), nsid: 1 });
    expect(await io({ opcode: READ })).toBe('00/00');
  });
});

test('commands that run have left the backend before anything is erased, and those that wait are aborted', async () => {
  const order: string[] = [];
  let answer = (): void => undefined;
  const success = BackendResult.success;
  const backend: AsynchronousBackend = {
    ...slowBackend().backend,
    asynchronous: true,
    read: () =>
      new Promise((resolve) => {
        order.push('read');
        answer = () => {
          order.push('read ends');
          resolve(success);
        };
      }),
    write: () => Promise.resolve(success),
    zero: () => {
      order.push('zero');
      return Promise.resolve(success);
    },
  };
  await begin({ namespaces: [{ backend }] });
  const reaches = host.push(queue, { opcode: READ, nsid: 1, prp1: Address.data });
  host.ring(queue);
  await until(() => order.length === 1);
  // A fused pair waits for the read, and reaches the backend behind it; the format comes between.
  const first = host.push(queue, { opcode: 5, nsid: 1, prp1: Address.data, fuse: 1 });
  const second = host.push(queue, { opcode: WRITE, nsid: 1, prp1: Address.data, fuse: 2 });
  host.ring(queue);
  await turns();
  host.push(host.admin, { opcode: FORMAT, nsid: 1, cdw10: 1 });
  host.ring(host.admin);
  await turns();
  expect(order).toEqual(['read']);
  answer();
  expect(await host.completion(queue)).toMatchObject({ cid: reaches, status: '00/84' });
  expect(await host.completion(queue)).toMatchObject({ cid: first, status: '00/84' });
  expect(await host.completion(queue)).toMatchObject({ cid: second });
  expect((await host.completion(host.admin)).status).toBe('00/00');
  expect(order.slice(0, 3)).toEqual(['read', 'read ends', 'zero']);
});
