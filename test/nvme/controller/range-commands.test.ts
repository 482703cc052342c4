// SPDX-License-Identifier: MIT
/** Dataset Management, Verify and Write Uncorrectable. */
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createBackend } from '../../../lib/nvme/backends';
import { BadBlocks } from '../../../lib/nvme/controller/bad-blocks';
import { type Command, decodeIdentifyController, decodeIdentifyNamespace } from '../../../lib/nvme/spec';
import { Address } from './support';
import { useHost } from './use-host';

const [WRITE, READ, WRITE_UNCORRECTABLE, COMPARE, WRITE_ZEROES] = [1, 2, 4, 5, 8];
const [DATASET, VERIFY] = [9, 0x0c];
const LIST = Address.data + 0x10_0000;

const t = useHost();

test('Identify tells of all of them, and of their limits', async () => {
  expect((await t.host.adminCommand({ opcode: 6, cdw10: 1 })).status).toBe('00/00');
  const controller = decodeIdentifyController(t.host.memory.bytes(Address.data, 4096));
  // Compare, Write Uncorrectable, Dataset Management, Write Zeroes, Save and Select, Timestamp, Verify, Copy
  expect([controller.oncs, controller.fuses, controller.ocfs, controller.acwu]).toEqual([0x1df, 1, 1, 0]);
  expect((await t.host.adminCommand({ opcode: 6, nsid: 1 })).status).toBe('00/00');
  expect(decodeIdentifyNamespace(t.host.memory.bytes(Address.data, 4096))).toMatchObject({
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
      t.host.memory.words(LIST + 16 * i, 4).set([0, blocks, lba, Math.floor(lba / 2 ** 32)]);
    });
    return { opcode: DATASET, prp1: LIST, cdw10: list.length - 1 };
  }

  test('deallocated blocks are zeros, and the others stay', async () => {
    await t.fill(0, ...Array<number>(40).fill(7));
    expect(await t.status({ ...ranges([8, 16], [39, 1], [0, 0]), cdw11: 4, opcode: DATASET })).toBe('00/00');
    const expected = Array<number>(40).fill(7).fill(0, 8, 24);
    const found = await t.content(0, 40);
    // A part of a page may be left as it is.
    expect(found.slice(0, 39)).toEqual(expected.slice(0, 39));
    expect([0, 7]).toContain(found[39]);
  });

  test('without AD the ranges are hints', async () => {
    await t.fill(8, 1, 2, 3, 4, 5, 6, 7, 8);
    expect(await t.status({ ...ranges([8, 8]), cdw11: 3, opcode: DATASET })).toBe('00/00');
    expect(await t.content(8, 8)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
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
    await t.fill(0, ...Array<number>(8).fill(5));
    expect(await t.status({ ...ranges(...list), cdw11: 4, opcode: DATASET, ...more })).toBe(expected);
    expect(await t.content(0, 8)).toEqual(Array(8).fill(5));
  });

  test('256 ranges, through a list of two pages', async () => {
    const list: [number, number][] = Array.from({ length: 256 }, (_, i) => [i * 16, 8]);
    await t.fill(16, 1, 1, 1, 1, 1, 1, 1, 1, 2);
    ranges(...list);
    const result = await t.status({
      opcode: DATASET,
      cdw10: 255,
      cdw11: 4,
      prp1: LIST + 0x800,
      prp2: Address.data + 0x2000,
    });
    expect(result).toBe('00/00');
    // The first 128 ranges were at LIST + 0x800 of the list, which are those from block 2048 on.
    expect(await t.content(16, 9)).toEqual([1, 1, 1, 1, 1, 1, 1, 1, 2]);
    expect(await t.status({ opcode: DATASET, cdw10: 255, cdw11: 4, prp1: LIST, prp2: 0 })).toBe('00/00');
    expect(await t.content(16, 9)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 2]);
  });

  test('a file gets holes, and Write Zeroes makes some too if it may', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'trim-'));
    const file = join(folder, 'drive');
    writeFileSync(file, new Uint8Array(1 << 20).fill(9));
    await t.begin({ backend: createBackend({ kind: 'file', path: file }) });
    const used = (): number => statSync(file).blocks;
    const full = used();
    expect(await t.status({ ...ranges([0, 1024]), cdw11: 4, opcode: DATASET })).toBe('00/00');
    expect(used()).toBe(full - 1024);
    expect(await t.status({ opcode: WRITE_ZEROES, cdw10: 1024, cdw12: 511 })).toBe('00/00');
    expect(used()).toBe(full - 1024);
    expect(await t.status({ opcode: WRITE_ZEROES, cdw10: 1024, cdw12: 511 | (1 << 25) })).toBe('00/00');
    expect(used()).toBe(full - 1536);
    expect(await t.content(1500, 60)).toEqual([...Array<number>(36).fill(0), ...Array<number>(24).fill(9)]);
    rmSync(folder, { recursive: true });
  });
});

describe('Verify and Write Uncorrectable', () => {
  test('blocks are bad until they are written, and the error log has the first of them', async () => {
    await t.fill(10, 1, 2, 3, 4, 5);
    expect(await t.status({ opcode: WRITE_UNCORRECTABLE, cdw10: 12, cdw12: 1 })).toBe('00/00');
    expect(await t.content(10, 5)).toEqual([1, 2, '02/81', '02/81', 5]);
    for (const opcode of [READ, COMPARE, VERIFY]) {
      expect(await t.status({ opcode, cdw10: 10, cdw12: 7 })).toBe('02/81');
      expect(await t.newestError()).toMatchObject({ lba: 12n, nsid: 1, sqid: 1, status_field: 0x281 });
    }
    await t.fill(13, 9);
    expect(await t.content(10, 5)).toEqual([1, 2, '02/81', 9, 5]);
    expect(await t.status({ opcode: WRITE_ZEROES, cdw10: 12 })).toBe('00/00');
    expect(await t.content(10, 5)).toEqual([1, 2, 0, 9, 5]);
    expect(await t.status({ opcode: VERIFY, cdw10: 0, cdw12: 32767 })).toBe('00/00');
    expect(t.host.controller.statistics.mediaErrors).toBe(6);
  });

  test('deallocation makes them readable too', async () => {
    expect(await t.status({ opcode: WRITE_UNCORRECTABLE, cdw10: 0, cdw12: 15 })).toBe('00/00');
    t.host.memory.words(LIST, 4).set([0, 16, 0, 0]);
    expect(await t.status({ opcode: DATASET, prp1: LIST, cdw11: 4 })).toBe('00/00');
    expect(await t.content(0, 16)).toEqual(Array(16).fill(0));
  });

  test.each([VERIFY, WRITE_UNCORRECTABLE])('opcode %i beyond the end', async (opcode) => {
    expect(await t.status({ opcode, cdw10: 32767, cdw12: 1 })).toBe('00/80 DNR');
    expect(await t.status({ opcode, nsid: 5 })).toBe('00/02 DNR');
    expect(await t.status({ opcode, nsid: 33 })).toBe('00/0b DNR');
    expect(await t.content(32767, 1)).toEqual([0]);
  });

  test('only commands for bad blocks take the way that looks for them', async () => {
    expect(await t.status({ opcode: WRITE_UNCORRECTABLE, cdw10: 100, cdw12: 1 })).toBe('00/00');
    const slow = (): number => t.host.controller.statistics.slowCommands;
    const before = slow();
    for (const opcode of [WRITE, READ, COMPARE, WRITE_ZEROES]) {
      for (const [lba, blocks] of [
        [92, 8],
        [102, 8],
      ] as const) {
        expect(await t.status({ opcode, cdw10: lba, cdw12: blocks - 1 })).toBe('00/00');
      }
    }
    expect(slow()).toBe(before);
    expect(await t.status({ opcode: READ, cdw10: 99, cdw12: 1 })).toBe('02/81');
    expect(await t.status({ opcode: READ, cdw10: 101 })).toBe('02/81');
    expect(await t.status({ opcode: WRITE, cdw10: 101 })).toBe('00/00');
    expect(slow()).toBe(before + 3);
    expect(await t.content(99, 4)).toEqual([
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
