// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FileBackend } from '../../../lib/nvme/backends';
import type { Command } from '../../../lib/nvme/spec';
import { Address } from './support';
import { useHost } from './use-host';

const [WRITE_UNCORRECTABLE, COPY] = [4, 0x19];
const LIST = Address.data + 0x10_0000;

const t = useHost();

describe('Copy', () => {
  /** Stores source ranges of format 0 (NVM command set 1.0, 3.2.2). */
  function copy(to: number, list: [lba: number, blocks: number][], cdw12 = 0): Command {
    list.forEach(([lba, blocks], i) => {
      t.host.memory.words(LIST + 32 * i, 8).set([0, 0, lba, Math.floor(lba / 2 ** 32), blocks - 1, 0, 0, 0]);
    });
    return { opcode: COPY, prp1: LIST, cdw10: to, cdw12: (list.length - 1) | cdw12 };
  }

  test('with FUA it is durable when it is done, and fails when it cannot be', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'nvme-copy-'));
    const backend = new FileBackend(join(folder, 'disk'), 1 << 20);
    const flush = jest.spyOn(backend, 'flush');
    await t.begin({ backend });
    expect(await t.status(copy(100, [[0, 1]]))).toBe('00/00');
    expect(flush).toHaveBeenCalledTimes(0);
    expect(await t.status(copy(100, [[0, 1]], 0x4000_0000))).toBe('00/00');
    expect(flush).toHaveBeenCalledTimes(1);
    flush.mockRejectedValueOnce(new Error('EIO'));
    expect(await t.status(copy(100, [[0, 1]], 0x4000_0000))).toBe('02/80');
    // The volatile write cache is turned off.
    expect((await t.host.adminCommand({ opcode: 9, cdw10: 6, cdw11: 0 })).status).toBe('00/00');
    expect(await t.status(copy(100, [[0, 1]]))).toBe('00/00');
    expect(flush).toHaveBeenCalledTimes(3);
    rmSync(folder, { recursive: true });
  });

  test('ranges one behind the other, also over themselves', async () => {
    await t.fill(0, 1, 2, 3, 4, 5, 6, 7, 8);
    expect(
      await t.status(
        copy(100, [
          [4, 2],
          [0, 1],
          [7, 1],
        ]),
      ),
    ).toBe('00/00');
    expect(await t.content(100, 5)).toEqual([5, 6, 1, 8, 0]);
    expect(
      await t.status(
        copy(1, [
          [0, 3],
          [3, 3],
        ]),
      ),
    ).toBe('00/00');
    expect(await t.content(0, 8)).toEqual([1, 1, 2, 3, 4, 5, 6, 8]);
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
    await t.fill(0, 3);
    expect(await t.status(command())).toBe(expected);
    expect(await t.content(0, 2)).toEqual([3, 0]);
  });

  test('a source that cannot be read: nothing is written, and dword 0 tells which it is', async () => {
    await t.fill(0, 1, 2);
    expect(await t.status({ opcode: WRITE_UNCORRECTABLE, cdw10: 1 })).toBe('00/00');
    expect(
      await t.run(
        copy(8, [
          [0, 1],
          [1, 1],
        ]),
      ),
    ).toMatchObject({ status: '02/81', dw0: 1 });
    expect(await t.newestError()).toMatchObject({ lba: 1n });
    expect(await t.content(8, 2)).toEqual([0, 0]);
    expect(
      await t.status(
        copy(0, [
          [0, 1],
          [8, 1],
        ]),
      ),
    ).toBe('00/00');
    expect(await t.content(0, 2)).toEqual([1, 0]);
  });
});
