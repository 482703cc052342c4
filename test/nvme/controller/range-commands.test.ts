// SPDX-License-Identifier: MIT
/** Dataset Management, Verify, Write Uncorrectable, Copy, and fused Compare and Write. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type AsynchronousBackend,
  BackendResult,
  FileBackend,
  createBackend,
} from '../../../lib/nvme/backends';
import { BadBlocks } from '../../../lib/nvme/controller/bad-blocks';
import type { NvmeControllerOptions } from '../../../lib/nvme/controller';
import {
  type Command,
  decodeErrorLog,
  decodeIdentifyController,
  decodeIdentifyNamespace,
} from '../../../lib/nvme/spec';
import { Address, Host, type HostQueue, until } from './support';

const [WRITE, READ, WRITE_UNCORRECTABLE, COMPARE, WRITE_ZEROES] = [1, 2, 4, 5, 8];
const [DATASET, VERIFY, COPY] = [9, 0x0c, 0x19];
const LIST = Address.data + 0x10_0000;

let host: Host;
let queue: HostQueue;

async function begin(options: Partial<NvmeControllerOptions> = {}): Promise<void> {
  host = new Host(options);
  host.enable();
  queue = await host.createQueues();
}
beforeEach(() => begin());
afterEach(() => {
  host.close();
});

const run = (command: Command) => host.run(queue, { nsid: 1, prp1: Address.data, ...command });

async function status(command: Command): Promise<string> {
  return (await run(command)).status;
}

/** Fills blocks with a byte each. */
async function fill(lba: number, ...values: number[]): Promise<void> {
  for (const [i, value] of values.entries()) {
    host.memory.bytes(Address.data, 512).fill(value);
    expect(await status({ opcode: WRITE, cdw10: lba + i })).toBe('00/00');
  }
}

/** The byte that each block is full of; the status of a block that cannot be read. */
async function content(lba: number, count: number): Promise<(number | string)[]> {
  const found: (number | string)[] = [];
  for (let i = 0; i < count; i++) {
    const result = await status({ opcode: READ, cdw10: lba + i });
    const bytes = host.memory.bytes(Address.data, 512);
    const first = bytes[0]!;
    if (result === '00/00') expect(bytes.every((byte) => byte === first)).toBe(true);
    found.push(result === '00/00' ? first : result);
  }
  return found;
}

async function newestError(): Promise<object | undefined> {
  expect((await host.adminCommand({ opcode: 2, cdw10: 0x000f_0001 })).status).toBe('00/00');
  return decodeErrorLog(host.memory.bytes(Address.data, 64))[0];
}

test('Identify tells of all of them, and of their limits', async () => {
  expect((await host.adminCommand({ opcode: 6, cdw10: 1 })).status).toBe('00/00');
  const controller = decodeIdentifyController(host.memory.bytes(Address.data, 4096));
  // Compare, Write Uncorrectable, Dataset Management, Write Zeroes, Save and Select, Timestamp, Verify, Copy
  expect([controller.oncs, controller.fuses, controller.ocfs, controller.acwu]).toEqual([0x1df, 1, 1, 0]);
  expect((await host.adminCommand({ opcode: 6, nsid: 1 })).status).toBe('00/00');
  expect(decodeIdentifyNamespace(host.memory.bytes(Address.data, 4096))).toMatchObject({
    mssrl: 2048,
    mcl: 8192,
    msrc: 127,
    dlfeat: 9,
    nsfeat: 0x10,
    npdg: 7,
    npda: 7,
  });
});

describe('Dataset Management', () => {
  /** Stores ranges as NVM command set 1.0, 3.2.3.1 has them: attributes, blocks, first block. */
  function ranges(...list: [lba: number, blocks: number][]): Partial<Command> {
    list.forEach(([lba, blocks], i) => {
      host.memory.words(LIST + 16 * i, 4).set([0, blocks, lba, Math.floor(lba / 2 ** 32)]);
    });
    return { opcode: DATASET, prp1: LIST, cdw10: list.length - 1 };
  }

  test('deallocated blocks are zeros, and the others stay', async () => {
    await fill(0, ...Array<number>(40).fill(7));
    expect(await status({ ...ranges([8, 16], [39, 1], [0, 0]), cdw11: 4, opcode: DATASET })).toBe('00/00');
    const expected = Array<number>(40).fill(7).fill(0, 8, 24);
    const found = await content(0, 40);
    // A part of a page may be left as it is.
    expect(found.slice(0, 39)).toEqual(expected.slice(0, 39));
    expect([0, 7]).toContain(found[39]);
  });

  test('without AD the ranges are hints', async () => {
    await fill(8, 1, 2, 3, 4, 5, 6, 7, 8);
    expect(await status({ ...ranges([8, 8]), cdw11: 3, opcode: DATASET })).toBe('00/00');
    expect(await content(8, 8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  test.each<[string, [number, number][], Partial<Command>, string]>([
    ['a range across the end', [[32767, 2]], {}, '00/80 DNR'],
    ['a range beyond 2^53', [[2 ** 52, 1]], {}, '00/80 DNR'],
    [
      'one range of two across the end',
      [
        [0, 8],
        [32760, 9],
      ],
      {},
      '00/80 DNR',
    ],
    ['another namespace', [[0, 8]], { nsid: 2 }, '00/02 DNR'],
    ['ranges that are not mapped', [[0, 8]], { prp1: 0x4000_0000 }, '00/04'],
    ['a misplaced list', [[0, 8]], { prp1: LIST + 2 }, '00/13 DNR'],
    ['the second of fused commands', [[0, 8]], { fuse: 2 }, '00/0a DNR'],
  ])('%s is refused, and nothing is deallocated', async (_, list, more, expected) => {
    await fill(0, ...Array<number>(8).fill(5));
    expect(await status({ ...ranges(...list), cdw11: 4, opcode: DATASET, ...more })).toBe(expected);
    expect(await content(0, 8)).toEqual(Array(8).fill(5));
  });

  test('256 ranges, through a list of two pages', async () => {
    const list: [number, number][] = Array.from({ length: 256 }, (_, i) => [i * 16, 8]);
    await fill(16, 1, 1, 1, 1, 1, 1, 1, 1, 2);
    ranges(...list);
    const result = await status({
      opcode: DATASET,
      cdw10: 255,
      cdw11: 4,
      prp1: LIST + 0x800,
      prp2: Address.data + 0x2000,
    });
    expect(result).toBe('00/00');
    // The first 128 ranges were at LIST + 0x800 of the list, which are those from block 2048 on.
    expect(await content(16, 9)).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 2]);
    expect(await status({ opcode: DATASET, cdw10: 255, cdw11: 4, prp1: LIST, prp2: 0 })).toBe('00/00');
    expect(await content(16, 9)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 2]);
  });

  test('a file gets holes, and Write Zeroes makes some too if it may', async () => {
    host.close();
    const folder = mkdtempSync(join(tmpdir(), 'trim-'));
    const file = join(folder, 'drive');
    writeFileSync(file, new Uint8Array(1 << 20).fill(9));
    await begin({ backend: createBackend({ kind: 'file', path: file }) });
    const used = (): number => statSync(file).blocks;
    const full = used();
    expect(await status({ ...ranges([0, 1024]), cdw11: 4, opcode: DATASET })).toBe('00/00');
    expect(used()).toBe(full - 1024);
    expect(await status({ opcode: WRITE_ZEROES, cdw10: 1024, cdw12: 511 })).toBe('00/00');
    expect(used()).toBe(full - 1024);
    expect(await status({ opcode: WRITE_ZEROES, cdw10: 1024, cdw12: 511 | (1 << 25) })).toBe('00/00');
    expect(used()).toBe(full - 1536);
    expect(await content(1500, 60)).toEqual([...Array<number>(36).fill(0), ...Array<number>(24).fill(9)]);
    rmSync(folder, { recursive: true });
  });
});

describe('Verify and Write Uncorrectable', () => {
  test('blocks are bad until they are written, and the error log has the first of them', async () => {
    await fill(10, 1, 2, 3, 4, 5);
    expect(await status({ opcode: WRITE_UNCORRECTABLE, cdw10: 12, cdw12: 1 })).toBe('00/00');
    expect(await content(10, 5)).toEqual([1, 2, '02/81', '02/81', 5]);
    for (const opcode of [READ, COMPARE, VERIFY]) {
      expect(await status({ opcode, cdw10: 10, cdw12: 7 })).toBe('02/81');
      expect(await newestError()).toMatchObject({ lba: 12n, nsid: 1, sqid: 1, status_field: 0x281 });
    }
    await fill(13, 9);
    expect(await content(10, 5)).toEqual([1, 2, '02/81', 9, 5]);
    expect(await status({ opcode: WRITE_ZEROES, cdw10: 12 })).toBe('00/00');
    expect(await content(10, 5)).toEqual([1, 2, 0, 9, 5]);
    expect(await status({ opcode: VERIFY, cdw10: 0, cdw12: 32767 })).toBe('00/00');
    expect(host.controller.statistics.mediaErrors).toBe(6);
  });

  test('deallocation makes them readable too', async () => {
    expect(await status({ opcode: WRITE_UNCORRECTABLE, cdw10: 0, cdw12: 15 })).toBe('00/00');
    host.memory.words(LIST, 4).set([0, 16, 0, 0]);
    expect(await status({ opcode: DATASET, prp1: LIST, cdw11: 4 })).toBe('00/00');
    expect(await content(0, 16)).toEqual(Array(16).fill(0));
  });

  test.each([VERIFY, WRITE_UNCORRECTABLE])('opcode %i beyond the end', async (opcode) => {
    expect(await status({ opcode, cdw10: 32767, cdw12: 1 })).toBe('00/80 DNR');
    expect(await status({ opcode, nsid: 5 })).toBe('00/02 DNR');
    expect(await status({ opcode, nsid: 33 })).toBe('00/0b DNR');
    expect(await content(32767, 1)).toEqual([0]);
  });

  test('only commands for bad blocks take the way that looks for them', async () => {
    expect(await status({ opcode: WRITE_UNCORRECTABLE, cdw10: 100, cdw12: 1 })).toBe('00/00');
    const slow = (): number => host.controller.statistics.slowCommands;
    const before = slow();
    for (const opcode of [WRITE, READ, COMPARE, WRITE_ZEROES]) {
      for (const [lba, blocks] of [
        [92, 8],
        [102, 8],
      ] as const) {
        expect(await status({ opcode, cdw10: lba, cdw12: blocks - 1 })).toBe('00/00');
      }
    }
    expect(slow()).toBe(before);
    expect(await status({ opcode: READ, cdw10: 99, cdw12: 1 })).toBe('02/81');
    expect(await status({ opcode: READ, cdw10: 101 })).toBe('02/81');
    expect(await status({ opcode: WRITE, cdw10: 101 })).toBe('00/00');
    expect(slow()).toBe(before + 3);
    expect(await content(99, 4)).toEqual([
      expect.any(Number),
      '02/81',
      expect.any(Number),
      expect.any(Number),
    ]);
  });

  test('ranges are joined, cut and bounded', () => {
    const bad = new BadBlocks();
    expect([bad.empty, bad.firstIn(0, 100)]).toEqual([true, -1]);
    for (const [start, end] of [
      [10, 20],
      [30, 40],
      [20, 30],
      [5, 8],
    ] as const)
      expect(bad.add(start, end)).toBe(true);
    expect([bad.firstIn(0, 6), bad.firstIn(8, 10), bad.firstIn(0, 100), bad.firstIn(25, 26)]).toEqual([
      5, -1, 5, 25,
    ]);
    bad.delete(15, 35);
    expect([bad.firstIn(14, 36), bad.firstIn(15, 35), bad.firstIn(15, 50)]).toEqual([14, -1, 35]);
    bad.delete(0, 100);
    expect(bad.empty).toBe(true);
    for (let i = 0; i < 4096; i++) expect(bad.add(2 * i, 2 * i + 1)).toBe(true);
    expect(bad.add(20000, 20001)).toBe(false);
    expect(bad.add(0, 3)).toBe(true);
    expect(bad.firstIn(1, 2)).toBe(1);
  });
});

describe('Copy', () => {
  /** Stores source ranges of format 0 (NVM command set 1.0, 3.2.2). */
  function copy(to: number, list: [lba: number, blocks: number][], cdw12 = 0): Command {
    list.forEach(([lba, blocks], i) => {
      host.memory.words(LIST + 32 * i, 8).set([0, 0, lba, Math.floor(lba / 2 ** 32), blocks - 1, 0, 0, 0]);
    });
    return { opcode: COPY, prp1: LIST, cdw10: to, cdw12: (list.length - 1) | cdw12 };
  }

  test('with FUA it is durable when it is done, and fails when it cannot be', async () => {
    host.close();
    const folder = mkdtempSync(join(tmpdir(), 'nvme-copy-'));
    const backend = new FileBackend(join(folder, 'disk'), 1 << 20);
    const flush = jest.spyOn(backend, 'flush');
    await begin({ backend });
    expect(await status(copy(100, [[0, 1]]))).toBe('00/00');
    expect(flush).toHaveBeenCalledTimes(0);
    expect(await status(copy(100, [[0, 1]], 0x4000_0000))).toBe('00/00');
    expect(flush).toHaveBeenCalledTimes(1);
    flush.mockRejectedValueOnce(new Error('EIO'));
    expect(await status(copy(100, [[0, 1]], 0x4000_0000))).toBe('02/80');
    // The volatile write cache is turned off.
    expect((await host.adminCommand({ opcode: 9, cdw10: 6, cdw11: 0 })).status).toBe('00/00');
    expect(await status(copy(100, [[0, 1]]))).toBe('00/00');
    expect(flush).toHaveBeenCalledTimes(3);
    rmSync(folder, { recursive: true });
  });

  test('ranges one behind the other, also over themselves', async () => {
    await fill(0, 1, 2, 3, 4, 5, 6, 7, 8);
    expect(
      await status(
        copy(100, [
          [4, 2],
          [0, 1],
          [7, 1],
        ]),
      ),
    ).toBe('00/00');
    expect(await content(100, 5)).toEqual([5, 6, 1, 8, 0]);
    expect(
      await status(
        copy(1, [
          [0, 3],
          [3, 3],
        ]),
      ),
    ).toBe('00/00');
    expect(await content(0, 8)).toEqual([1, 1, 2, 3, 4, 5, 6, 8]);
  });

  test.each<[string, () => Command, string]>([
    ['a source beyond the end', () => copy(0, [[32767, 2]]), '00/80 DNR'],
    ['a destination beyond the end', () => copy(32767, [[0, 2]]), '00/80 DNR'],
    ['a source range of more than MSSRL', () => copy(0, [[0, 2049]]), '01/83 DNR'],
    [
      'more than MCL',
      () =>
        copy(
          0,
          Array.from({ length: 5 }, () => [0, 2048]),
        ),
      '01/83 DNR',
    ],
    ['more than MSRC', () => ({ ...copy(0, [[0, 1]]), cdw12: 128 }), '01/83 DNR'],
    ['another format', () => copy(0, [[0, 1]], 0x100), '00/02 DNR'],
    ['protection information', () => copy(0, [[0, 1]], 0x1000), '00/02 DNR'],
    ['ranges that are not mapped', () => ({ ...copy(0, [[0, 1]]), prp1: 0x4000_0000 }), '00/04'],
  ])('%s is refused', async (_, command, expected) => {
    await fill(0, 3);
    expect(await status(command())).toBe(expected);
    expect(await content(0, 2)).toEqual([3, 0]);
  });

  test('a source that cannot be read: nothing is written, and dword 0 tells which it is', async () => {
    await fill(0, 1, 2);
    expect(await status({ opcode: WRITE_UNCORRECTABLE, cdw10: 1 })).toBe('00/00');
    expect(
      await run(
        copy(8, [
          [0, 1],
          [1, 1],
        ]),
      ),
    ).toMatchObject({ status: '02/81', dw0: 1 });
    expect(await newestError()).toMatchObject({ lba: 1n });
    expect(await content(8, 2)).toEqual([0, 0]);
    expect(
      await status(
        copy(0, [
          [0, 1],
          [8, 1],
        ]),
      ),
    ).toBe('00/00');
    expect(await content(0, 2)).toEqual([1, 0]);
  });
});

/** A backend whose accesses take a turn each. */
function slowBackend(size: number): AsynchronousBackend {
  const data = new Uint8Array(size);
  const turn = async (access: () => void): Promise<BackendResult> => {
    await new Promise(setImmediate);
    access();
    await new Promise(setImmediate);
    return BackendResult.success;
  };
  return {
    kind: 'slow',
    asynchronous: true,
    size,
    volatileCache: false,
    read: (offset, target, at, length) =>
      turn(() => {
        target.set(data.subarray(offset, offset + length), at);
      }),
    write: (offset, source, at, length) =>
      turn(() => {
        data.set(source.subarray(at, at + length), offset);
      }),
    zero: (offset, length) =>
      turn(() => {
        data.fill(0, offset, offset + length);
      }),
    deallocate: () => turn(() => undefined),
    flush: () => Promise.resolve(),
    close: () => undefined,
  };
}

describe('fused Compare and Write', () => {
  const OLD = Address.data + 0x1_0000;
  const NEW = Address.data + 0x2_0000;
  const compare: Command = { opcode: COMPARE, nsid: 1, fuse: 1, prp1: OLD, cdw10: 3 };
  const write: Command = { opcode: WRITE, nsid: 1, fuse: 2, prp1: NEW, cdw10: 3 };

  /** Submits commands together. Returns their statuses in the order of the commands. */
  async function together(...commands: Command[]): Promise<string[]> {
    const cids = commands.map((command) => host.push(queue, command));
    host.ring(queue);
    const results = new Map<number, string>();
    while (results.size < cids.length) {
      const { cid, status: ended } = await host.completion(queue);
      results.set(cid, ended);
    }
    return cids.map((cid) => results.get(cid)!);
  }

  beforeEach(async () => {
    await fill(3, 1);
    host.memory.bytes(OLD, 512).fill(1);
    host.memory.bytes(NEW, 512).fill(2);
  });

  test('writes when the blocks are as they should be, and not otherwise', async () => {
    expect(await together(compare, write)).toEqual(['00/00', '00/00']);
    expect(await content(3, 1)).toEqual([2]);
    expect(await together(compare, write)).toEqual(['02/85 DNR', '00/09 DNR']);
    expect(await content(3, 1)).toEqual([2]);
  });

  test.each<[string, Command[], string[]]>([
    ['the first alone', [compare], ['00/0a DNR']],
    ['the second alone', [write], ['00/0a DNR']],
    ['the first, and another command', [compare, { opcode: 0, nsid: 1 }], ['00/0a DNR', '00/00']],
    ['two firsts, and a second', [compare, compare, write], ['00/0a DNR', '00/00', '00/00']],
    ['the reserved value', [{ ...write, fuse: 3 }], ['00/02 DNR']],
    [
      'the wrong way round',
      [
        { ...write, fuse: 1 },
        { ...compare, fuse: 2 },
      ],
      ['00/02 DNR', '00/02 DNR'],
    ],
    ['other blocks', [compare, { ...write, cdw10: 4 }], ['00/02 DNR', '00/02 DNR']],
    ['another length', [compare, { ...write, cdw12: 1 }], ['00/02 DNR', '00/02 DNR']],
    [
      'no such blocks',
      [
        { ...compare, cdw10: 99999 },
        { ...write, cdw10: 99999 },
      ],
      ['00/80 DNR', '00/09 DNR'],
    ],
    [
      'no such namespace',
      [
        { ...compare, nsid: 40 },
        { ...write, nsid: 40 },
      ],
      ['00/0b DNR', '00/0b DNR'],
    ],
  ])('%s', async (_, commands, expected) => {
    expect(await together(...commands)).toEqual(expected);
    expect(await status({ opcode: READ, cdw10: 3 })).toBe('00/00');
  });

  test('a pair across the end of the queue', async () => {
    for (let i = 0; i < 40; i++) {
      host.memory.bytes(OLD, 512).fill(i === 0 ? 1 : i + 10);
      host.memory.bytes(NEW, 512).fill(i + 11);
      expect(await together(compare, write)).toEqual(['00/00', '00/00']);
      if (i % 3 === 0) expect(await status({ opcode: 0 })).toBe('00/00');
    }
  });

  test('of many that want the same, one has it, whatever the backend takes', async () => {
    host.close();
    await begin({ backend: slowBackend(1 << 20) });
    host.memory.bytes(NEW, 512).fill(2);
    host.memory.bytes(OLD, 512).fill(0);
    const plain = { opcode: WRITE, nsid: 1, prp1: NEW, cdw10: 200 };
    const results = await together(compare, write, plain, compare, write, plain, compare, write);
    expect(results.filter((result) => result === '02/85 DNR')).toHaveLength(2);
    expect(results.filter((result) => result === '00/09 DNR')).toHaveLength(2);
    expect(results.filter((result) => result === '00/00')).toHaveLength(4);
  });

  test('nothing comes between compare and write', async () => {
    host.close();
    await begin({ backend: slowBackend(1 << 20) });
    const second = await host.createQueues(2);
    // Others write 1 all the time; who compares with 1 writes 2, and no 2 of it may be lost to a 1 in between.
    host.memory.bytes(OLD, 512).fill(0);
    host.memory.bytes(NEW, 512).fill(2);
    const other = Address.data + 0x3_0000;
    host.memory.bytes(other, 512).fill(0);
    const before = host.push(queue, compare);
    host.push(queue, write);
    host.ring(queue);
    for (let i = 0; i < 5; i++) host.push(second, { opcode: WRITE, nsid: 1, prp1: other, cdw10: 3 });
    host.ring(second);
    expect(await host.completion(queue)).toMatchObject({ cid: before, status: '00/00' });
    expect((await host.completion(queue)).status).toBe('00/00');
    let ended = 0;
    await until(() => (host.take(second) === undefined ? ended : ++ended) === 5, 'five writes');
    expect(await content(3, 1)).toEqual([0]);
  });
});
