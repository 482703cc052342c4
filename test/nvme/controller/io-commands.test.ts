// SPDX-License-Identifier: MIT
import { type Backend, BackendResult, createBackend } from '../../../lib/nvme/backends';
import { type Command, decodeErrorLog } from '../../../lib/nvme/spec';
import { Address, type FakeRange, Host, turns, until } from './support';
import { useHost } from './use-host';

const READ = 2;
const WRITE = 1;

const t = useHost();

function pattern(address: number, length: number, seed: number): Uint8Array {
  const bytes = t.host.memory.bytes(address, length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 7 + (i >> 8) + seed) & 0xff;
  return bytes.slice();
}

describe('Read and Write', () => {
  test('what was written is read, and nothing else', async () => {
    const written = pattern(Address.data, 1024, 1);
    expect(await t.status({ opcode: WRITE, cdw10: 100, cdw12: 1 })).toBe('00/00');
    const at = Address.data + 0x1_0000;
    expect(await t.status({ opcode: READ, cdw10: 99, cdw12: 3, prp1: at })).toBe('00/00');
    expect(t.host.memory.bytes(at + 512, 1024)).toEqual(written);
    expect(t.host.memory.bytes(at, 512).every((byte) => byte === 0)).toBe(true);
    expect(t.host.memory.bytes(at + 1536, 512).every((byte) => byte === 0)).toBe(true);
    expect(t.host.controller.statistics).toMatchObject({
      readCommands: 1,
      writeCommands: 1,
      bytesRead: 2048,
      bytesWritten: 1024,
      slowCommands: 0,
    });
  });

  test.each<[string, Command, string]>([
    ['one block beyond the end', { opcode: READ, cdw10: 32768 }, '00/80 DNR'],
    ['a range across the end', { opcode: WRITE, cdw10: 32767, cdw12: 1 }, '00/80 DNR'],
    ['a block above 2^32', { opcode: READ, cdw11: 1 }, '00/80 DNR'],
    [
      'the last block that there could be',
      { opcode: READ, cdw10: 0xffff_ffff, cdw11: 0xffff_ffff },
      '00/80 DNR',
    ],
    ['namespace 0', { opcode: READ, nsid: 0 }, '00/0b DNR'],
    ['namespace 2, which is inactive', { opcode: READ, nsid: 2 }, '00/02 DNR'],
    ['namespace 33, which is above NN', { opcode: READ, nsid: 33 }, '00/0b DNR'],
    ['the broadcast namespace', { opcode: READ, nsid: 0xffff_ffff }, '00/0b DNR'],
    ['more than MDTS', { opcode: READ, cdw12: 256 }, '00/02 DNR'],
    ['an SGL of metadata', { opcode: READ, psdt: 2 }, '00/02 DNR'],
    ['the reserved PSDT', { opcode: READ, psdt: 3 }, '00/02 DNR'],
    ['an SGL that is empty', { opcode: READ, psdt: 1 }, '00/0f DNR'],
    ['the second of no fused commands', { opcode: WRITE, fuse: 2 }, '00/0a DNR'],
    ['PRP1 that is misaligned', { opcode: READ, prp1: Address.data + 1 }, '00/13 DNR'],
    ['PRP2 that is misaligned', { opcode: READ, cdw12: 15, prp2: Address.data + 4 }, '00/13 DNR'],
    ['a list that is misaligned', { opcode: READ, cdw12: 31, prp2: Address.data + 4 }, '00/13 DNR'],
    ['PRP1 that is not mapped', { opcode: READ, prp1: 0x4000_0000 }, '00/04'],
    ['PRP2 that is not mapped', { opcode: WRITE, cdw12: 15, prp2: 0x4000_0000 }, '00/04'],
    ['a list that is not mapped', { opcode: READ, cdw12: 31, prp2: 0x4000_0000 }, '00/04'],
    ['an address at 2^64', { opcode: READ, prp1: Number.MAX_SAFE_INTEGER - 3 }, '00/04'],
    ['an unknown opcode', { opcode: 0x0d }, '00/01 DNR'],
  ])('%s is refused', async (_, command, expected) => {
    expect(await t.status(command)).toBe(expected);
    expect(await t.status({ opcode: READ })).toBe('00/00');
    expect(t.host.read32(0x1c)).toBe(1);
    expect(t.host.controller.statistics.errors).toBe(1);
  });

  test('a read into memory that may not be written, and a write from it', async () => {
    t.host.memory.add(0x1000_0000, 0x1000, { writable: false });
    expect(await t.status({ opcode: WRITE, prp1: 0x1000_0000 })).toBe('00/00');
    // The fake memory has no rights in its slow path, so that only what the fast path does is seen.
    await t.status({ opcode: READ, prp1: 0x1000_0000 });
    expect(t.host.memory.messages).toEqual(['write 10000000+200']);
  });

  test('blocks of 4096 bytes, and a transfer of 1 MiB through chained lists that begin inside a page', async () => {
    const large = new Host({ blockSize: 4096, maxTransfer: 1 << 20 });
    large.enable();
    const io = await large.createQueues();
    const list = Address.data + 0xfe0; // Room for 4 entries: 3 pages, and the next list.
    const next = Address.data + 0x2000;
    const first = Address.data + 0x1_0e00;
    const page = (i: number): number => Address.data + 0x10_0000 + 0x1000 * ((i * 37) % 256);
    large.memory.words(list, 8).set([page(1), 0, page(2), 0, page(3), 0, next, 0]);
    for (let i = 4; i <= 256; i++) large.memory.words(next + 8 * (i - 4), 2).set([page(i), 0]);
    const expected = new Uint8Array(1 << 20);
    expected.forEach((_, i) => (expected[i] = (i ^ (i >> 9)) & 0xff));
    large.memory.bytes(first, 0x200).set(expected.subarray(0, 0x200));
    for (let i = 1; i <= 256; i++) {
      const from = 0x200 + (i - 1) * 4096;
      large.memory.bytes(page(i), Math.min(4096, (1 << 20) - from)).set(expected.subarray(from, from + 4096));
    }
    const command = { nsid: 1, cdw10: 1, cdw12: 255, prp1: first, prp2: list };
    expect((await large.run(io, { ...command, opcode: WRITE })).status).toBe('00/00');
    const into = Address.data + 0x30_0000;
    for (let i = 0; i < 255; i++) large.memory.words(next + 8 * i, 2).set([into + 4096 * (i + 1), 0]);
    const back = { ...command, opcode: READ, prp1: into, prp2: next };
    expect((await large.run(io, back)).status).toBe('00/00');
    expect(Buffer.compare(large.memory.bytes(into, 1 << 20), expected)).toBe(0);
    expect(large.controller.statistics.slowCommands).toBe(0);
    large.close();
  });

  test('a page that lies across two ranges, and ranges that follow each other', async () => {
    t.host.memory.add(0x1000_0000, 0x1200);
    t.host.memory.add(0x1000_1200, 0x2e00);
    const written = t.host.memory.bytes(0x1000_0000, 0x1000);
    written.fill(0x5a);
    t.host.memory.bytes(0x1000_1200, 0x100).fill(1);
    expect(await t.status({ opcode: WRITE, cdw12: 7, prp1: 0x1000_0000 })).toBe('00/00');
    expect(await t.status({ opcode: READ, cdw12: 7, prp1: Address.data })).toBe('00/00');
    expect(t.host.memory.bytes(Address.data, 0x1000).every((byte) => byte === 0x5a)).toBe(true);
  });

  test('a namespace of more than 2 GiB, across the end of a mapping', async () => {
    const size = 5 * 2 ** 30;
    const big = new Host({ backend: createBackend({ kind: 'memory', size }) });
    big.enable();
    const io = await big.createQueues();
    for (const [i, lba] of [2 ** 21 - 1, 2 ** 22 - 3, size / 512 - 8].entries()) {
      big.memory.bytes(Address.data, 4096).fill(0x30 + i);
      const command = { nsid: 1, cdw10: lba >>> 0, cdw12: 7, prp1: Address.data };
      expect((await big.run(io, { ...command, opcode: WRITE })).status).toBe('00/00');
      big.memory.bytes(Address.data, 4096).fill(0);
      expect((await big.run(io, { ...command, opcode: READ })).status).toBe('00/00');
      expect(big.memory.bytes(Address.data, 4096).every((byte) => byte === 0x30 + i)).toBe(true);
    }
    big.close();
  });
});

test('Compare finds a difference in any part', async () => {
  pattern(Address.data, 8192, 3);
  const command = { cdw12: 15, prp2: Address.data + 4096 };
  expect(await t.status({ opcode: WRITE, ...command })).toBe('00/00');
  expect(await t.status({ opcode: 5, ...command })).toBe('00/00');
  t.host.memory.bytes(Address.data + 8191, 1).fill(0xa5);
  expect(await t.status({ opcode: 5, ...command })).toBe('02/85 DNR');
  expect(await t.status({ opcode: 5, cdw10: 32768 })).toBe('00/80 DNR');
});

test('Write Zeroes, also of more than is done at once', async () => {
  t.host.memory.bytes(Address.data, 512).fill(0xee);
  for (const lba of [0, 1, 4000, 8191, 8192]) {
    expect(await t.status({ opcode: WRITE, cdw10: lba })).toBe('00/00');
  }
  expect(await t.status({ opcode: 8, cdw10: 1, cdw12: 0 })).toBe('00/00');
  expect(await t.status({ opcode: 8, cdw10: 2, cdw12: 8189 })).toBe('00/00');
  const left: number[] = [];
  for (const lba of [0, 1, 4000, 8191, 8192]) {
    expect(await t.status({ opcode: READ, cdw10: lba })).toBe('00/00');
    if (t.host.memory.bytes(Address.data, 1)[0] === 0xee) left.push(lba);
  }
  expect(left).toEqual([0, 8192]);
  expect(await t.status({ opcode: 8, cdw10: 32767, cdw12: 1 })).toBe('00/80 DNR');
});

test('Flush takes namespace 1 and all namespaces', async () => {
  expect(await t.status({ opcode: 0, nsid: 1 })).toBe('00/00');
  expect(await t.status({ opcode: 0, nsid: 0xffff_ffff })).toBe('00/00');
  expect(await t.status({ opcode: 0, nsid: 2 })).toBe('00/02 DNR');
  expect(await t.status({ opcode: 0, nsid: 33 })).toBe('00/0b DNR');
  expect(await t.status({ opcode: 0, psdt: 2 })).toBe('00/02 DNR');
  // Without data it does not matter how data would be described.
  expect(await t.status({ opcode: 0, psdt: 1 })).toBe('00/00');
});

test.each([
  ['mediumError', '02/81', '02/80'],
  ['outOfSpace', '00/81', '00/81'],
  ['memoryError', '00/04', '00/04'],
  ['internalError', '00/06', '00/06'],
] as const)(
  'a backend that ends with %s gives its status, and the block to the error log',
  async (result, reading, writing) => {
    const fail = (): BackendResult => BackendResult[result];
    const backend: Backend = {
      kind: 'bad',
      size: 16 << 20,
      volatileCache: false,
      read: fail,
      write: fail,
      zero: fail,
      deallocate: fail,
      flush: () => Promise.resolve(),
      close: () => undefined,
    };
    const drive = new Host({ backend });
    drive.enable();
    const io = await drive.createQueues();
    for (const [opcode, expected] of [
      [READ, reading],
      [WRITE, writing],
      [5, reading],
      [8, writing],
    ] as const) {
      const command = { opcode, nsid: 1, prp1: Address.data, cdw10: 1000 + opcode };
      const { status: got, cid } = await drive.run(io, command);
      expect(got).toBe(expected);
      await drive.adminCommand({ opcode: 2, cdw10: (15 << 16) | 1 });
      expect(decodeErrorLog(drive.memory.bytes(Address.data, 64))).toMatchObject([
        { sqid: 1, cmdid: cid, lba: BigInt(1000 + opcode), nsid: 1 },
      ]);
    }
    drive.close();
  },
);

test('the null backend leaves the buffer of a read as it is', async () => {
  const drive = new Host({ backend: createBackend({ kind: 'null', size: 1 << 20 }) });
  drive.enable();
  const io = await drive.createQueues();
  drive.memory.bytes(Address.data, 512).fill(9);
  for (const opcode of [WRITE, READ, 8, 0]) {
    expect((await drive.run(io, { opcode, nsid: 1, prp1: Address.data })).status).toBe('00/00');
  }
  expect(drive.memory.bytes(Address.data, 512).every((byte) => byte === 9)).toBe(true);
  expect((await drive.run(io, { opcode: READ, nsid: 1, prp1: Address.data + 2 })).status).toBe('00/13 DNR');
  drive.close();
});

describe('memory that is not mapped here', () => {
  const FAR = 0x1000_0000;
  let far: FakeRange;
  beforeEach(() => {
    far = t.host.memory.add(FAR, 0x10_0000, { distant: true });
  });

  test('data and lists go by messages', async () => {
    far.bytes.subarray(0x8000, 0x8000 + 3 * 4096).fill(0x77);
    const list = new Uint32Array(far.bytes.buffer, 0x100, 4);
    list.set([FAR + 0x9000, 0, FAR + 0xa000, 0]);
    const command = { cdw12: 23, prp1: FAR + 0x8000, prp2: FAR + 0x100 };
    expect(await t.status({ opcode: WRITE, ...command })).toBe('00/00');
    expect(t.host.memory.messages).toEqual(['read 10000100+10', 'read 10008000+3000']);
    far.bytes.fill(0, 0x8000);
    expect(await t.status({ opcode: 5, ...command })).toBe('02/85 DNR');
    expect(await t.status({ opcode: READ, ...command })).toBe('00/00');
    expect(far.bytes.subarray(0x8000, 0x8000 + 3 * 4096).every((byte) => byte === 0x77)).toBe(true);
    expect(await t.status({ opcode: 5, ...command })).toBe('00/00');
    expect((await t.host.adminCommand({ opcode: 6, cdw10: 1, prp1: FAR + 0x2000 })).status).toBe('00/00');
    expect(far.bytes[0x2000 + 516]).toBe(32);
    expect(t.host.controller.statistics.slowCommands).toBe(4);
  });

  test('commands of other queues go on, and the deletion of the queue waits', async () => {
    let open = (): void => undefined;
    t.host.memory.gate = new Promise((resolve) => (open = resolve));
    const cid = t.host.push(t.queue, { opcode: WRITE, nsid: 1, prp1: FAR });
    t.host.push(t.queue, { opcode: 0, nsid: 1 });
    t.host.ring(t.queue);
    expect((await t.host.completion(t.queue)).cid).not.toBe(cid);
    const deletion = t.host.push(t.host.admin, { opcode: 0, cdw10: 1 });
    t.host.ring(t.host.admin);
    await turns();
    expect(t.host.take(t.host.admin)).toBeUndefined();
    expect((await t.host.adminCommand({ opcode: 4, cdw10: 1 })).status).toBe('01/0c DNR');
    expect(
      (await t.host.adminCommand({ opcode: 1, prp1: Address.sq, cdw10: 0x000f_0001, cdw11: 0x1_0001 }))
        .status,
    ).toBe('01/01 DNR');
    open();
    expect(await t.host.completion(t.host.admin)).toMatchObject({ cid: deletion, status: '00/00' });
    expect(t.host.take(t.queue)).toMatchObject({ cid, status: '00/00' });
    expect((await t.host.adminCommand({ opcode: 4, cdw10: 1 })).status).toBe('00/00');
  });

  test('after a reset they touch nothing; RDY goes when they have ended', async () => {
    let open = (): void => undefined;
    t.host.memory.gate = new Promise((resolve) => (open = resolve));
    t.host.memory.bytes(Address.data, 512).fill(0x11);
    t.host.push(t.queue, { opcode: WRITE, nsid: 1, prp1: FAR });
    t.host.push(t.queue, { opcode: READ, nsid: 1, cdw12: 8, prp1: FAR + 0xe00, prp2: Address.data });
    t.host.ring(t.queue);
    await until(() => t.host.memory.messages.length === 2);
    t.host.write32(0x14, 0);
    expect(t.host.read32(0x1c)).toBe(1);
    t.host.enable(); // Too early: it takes effect when all is done.
    open();
    await turns();
    expect(t.host.read32(0x1c)).toBe(1);
    expect((await t.host.adminCommand({ opcode: 6, cdw10: 1, prp1: Address.data + 0x1000 })).status).toBe(
      '00/00',
    );
    expect(t.host.take(t.queue)).toBeUndefined();
    expect(t.host.memory.bytes(Address.data, 512).every((byte) => byte === 0x11)).toBe(true);
    expect(t.host.memory.messages).toHaveLength(2);
    expect(t.host.controller.statistics.writeCommands).toBe(0);
  });

  test('a device reset resolves when they have ended; a shutdown completes then', async () => {
    let open = (): void => undefined;
    t.host.memory.gate = new Promise((resolve) => (open = resolve));
    t.host.push(t.queue, { opcode: WRITE, nsid: 1, prp1: FAR });
    t.host.ring(t.queue);
    await until(() => t.host.memory.messages.length === 1);
    t.host.write32(0x14, 0x0046_4001);
    expect(t.host.read32(0x1c)).toBe(5);
    let done = false;
    open();
    await until(() => t.host.read32(0x1c) === 9);
    void t.host.reset().then(() => (done = true));
    await until(() => done);
    expect([t.host.read32(0x14), t.host.read32(0x1c), t.host.read32(0x28)]).toEqual([0, 0, 0]);
  });

  test('a completion that fails is fatal, and a reset forgets it', async () => {
    t.host.push(t.queue, { opcode: WRITE, nsid: 1, prp1: FAR });
    Object.defineProperty(t.host, 'delivers', {
      configurable: true,
      get: () => {
        throw new Error('no interrupt');
      },
    });
    t.host.ring(t.queue);
    await until(() => t.host.read32(0x1c) === 3);
    expect(t.host.controller.fault).toBe('The completion of a command of queue 1 failed');
    Object.defineProperty(t.host, 'delivers', { value: true });
    t.host.write32(0x14, 0);
    t.host.enable();
    expect(await t.host.adminCommand({ opcode: 6, cdw10: 1 })).toMatchObject({ status: '00/00' });
  });

  test('a host that moves a list for ever gets an error', async () => {
    // Each list is fetched by message, and ends in a chain to another one.
    const words = new Uint32Array(far.bytes.buffer);
    for (let i = 0; i < 256; i++) words.set([FAR + i * 0x1000 + 0x1000, 0], (i * 0x1000 + 0xff8) / 4);
    expect(await t.status({ opcode: READ, cdw12: 255, prp2: FAR + 0xff8 })).toBe('00/04');
  });
});

test.each<[string, number, (word: number) => number, string]>([
  ['the first block', 10, () => 0xffff_fff0, '00/80 DNR'],
  ['the number of blocks', 12, (word) => word | 0xffff, '00/02 DNR'],
  ['the namespace', 1, () => 7, '00/02 DNR'],
  ['the opcode', 0, (word) => word | 0x80, '00/01 DNR'],
])('a host that changes %s after the check is found out', async (_, index, change, expected) => {
  let race = (): void => undefined;
  const writes: number[] = [];
  const backend: Backend = {
    kind: 'racing',
    size: 64 << 20,
    // The controller asks this of a write with FUA, between its check and its copy of the command.
    get volatileCache() {
      race();
      return true;
    },
    read: () => BackendResult.success,
    write: (offset) => {
      writes.push(offset);
      return BackendResult.success;
    },
    zero: () => BackendResult.success,
    deallocate: () => BackendResult.success,
    flush: () => Promise.resolve(),
    close: () => undefined,
  };
  const drive = new Host({ backend });
  drive.enable();
  const victim = await drive.createQueues();
  const words = drive.memory.words(victim.sq, 16);
  race = () => (words[index] = change(words[index]!));
  const write = { opcode: WRITE, nsid: 1, prp1: Address.data, cdw12: 0x4000_0000 };
  expect((await drive.run(victim, write)).status).toBe(expected);
  expect(writes).toEqual([]);
  drive.close();
});
