// SPDX-License-Identifier: MIT
/** Compare and Write as one operation (NVMe base 2.0, 3.4.2). */
import { type AsynchronousBackend, BackendResult } from '../../../lib/nvme/backends';
import type { Command } from '../../../lib/nvme/spec';
import { Address, until } from './support';
import { useHost } from './use-host';

const [WRITE, READ, COMPARE] = [1, 2, 5];

const t = useHost();

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
    const cids = commands.map((command) => t.host.push(t.queue, command));
    t.host.ring(t.queue);
    const results = new Map<number, string>();
    while (results.size < cids.length) {
      const { cid, status: ended } = await t.host.completion(t.queue);
      results.set(cid, ended);
    }
    return cids.map((cid) => results.get(cid)!);
  }

  beforeEach(async () => {
    await t.fill(3, 1);
    t.host.memory.bytes(OLD, 512).fill(1);
    t.host.memory.bytes(NEW, 512).fill(2);
  });

  test('writes when the blocks are as they should be, and not otherwise', async () => {
    expect(await together(compare, write)).toEqual(['00/00', '00/00']);
    expect(await t.content(3, 1)).toEqual([2]);
    expect(await together(compare, write)).toEqual(['02/85 DNR', '00/09 DNR']);
    expect(await t.content(3, 1)).toEqual([2]);
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
    expect(await t.status({ opcode: READ, cdw10: 3 })).toBe('00/00');
  });

  test('a pair across the end of the queue', async () => {
    for (let i = 0; i < 40; i++) {
      t.host.memory.bytes(OLD, 512).fill(i === 0 ? 1 : i + 10);
      t.host.memory.bytes(NEW, 512).fill(i + 11);
      expect(await together(compare, write)).toEqual(['00/00', '00/00']);
      if (i % 3 === 0) expect(await t.status({ opcode: 0 })).toBe('00/00');
    }
  });

  test('of many that want the same, one has it, whatever the backend takes', async () => {
    await t.begin({ backend: slowBackend(1 << 20) });
    t.host.memory.bytes(NEW, 512).fill(2);
    t.host.memory.bytes(OLD, 512).fill(0);
    const plain = { opcode: WRITE, nsid: 1, prp1: NEW, cdw10: 200 };
    const results = await together(compare, write, plain, compare, write, plain, compare, write);
    expect(results.filter((result) => result === '02/85 DNR')).toHaveLength(2);
    expect(results.filter((result) => result === '00/09 DNR')).toHaveLength(2);
    expect(results.filter((result) => result === '00/00')).toHaveLength(4);
  });

  test('nothing comes between compare and write', async () => {
    await t.begin({ backend: slowBackend(1 << 20) });
    const second = await t.host.createQueues(2);
    // Others write 1 all the time; who compares with 1 writes 2, and no 2 of it may be lost to a 1 in between.
    t.host.memory.bytes(OLD, 512).fill(0);
    t.host.memory.bytes(NEW, 512).fill(2);
    const other = Address.data + 0x3_0000;
    t.host.memory.bytes(other, 512).fill(0);
    const before = t.host.push(t.queue, compare);
    t.host.push(t.queue, write);
    t.host.ring(t.queue);
    for (let i = 0; i < 5; i++) t.host.push(second, { opcode: WRITE, nsid: 1, prp1: other, cdw10: 3 });
    t.host.ring(second);
    expect(await t.host.completion(t.queue)).toMatchObject({ cid: before, status: '00/00' });
    expect((await t.host.completion(t.queue)).status).toBe('00/00');
    let ended = 0;
    await until(() => (t.host.take(second) === undefined ? ended : ++ended) === 5, 'five writes');
    expect(await t.content(3, 1)).toEqual([0]);
  });
});
