// SPDX-License-Identifier: MIT
/** Data that faults damage on its way, or lose, as a host sees it in its memory and in what is stored. */
import { BackendResult, createBackend, customBackend } from '../../../lib/nvme/backends';
import { Address, turns } from './support';
import { useHost } from './use-host';

const [WRITE, READ, COMPARE, WRITE_ZEROES] = [1, 2, 5, 8];

const t = useHost();

function fill(length: number, value: number): Uint8Array {
  return t.host.memory.bytes(Address.data, length).fill(value).slice();
}

/** Reads blocks without faults. */
async function stored(lba: number, blocks: number): Promise<Uint8Array> {
  const at = Address.data + 0x4000;
  expect(await t.status({ opcode: READ, cdw10: lba, cdw12: blocks - 1, prp1: at, prp2: at + 0x1000 })).toBe(
    '00/00',
  );
  return t.host.memory.bytes(at, blocks * 512).slice();
}

function differingBits(one: Uint8Array, other: Uint8Array): number {
  let count = 0;
  for (const [i, byte] of one.entries()) {
    for (let rest = byte ^ other[i]!; rest !== 0; rest &= rest - 1) count++;
  }
  return count;
}

/** The memory backend, and one that takes its time. */
describe.each(['synchronous', 'asynchronous'])('data of a backend that is %s', (kind) => {
  beforeEach(async () => {
    if (kind === 'synchronous') return;
    const memory = createBackend({ kind: 'memory', size: 16 << 20 });
    await t.begin({
      backend: customBackend({
        size: memory.size,
        read: async (offset, target) => {
          await turns(1);
          expect(memory.read(offset, target, 0, target.length)).toBe(BackendResult.success);
        },
        write: async (offset, source) => {
          await turns(1);
          expect(memory.write(offset, source, 0, source.length)).toBe(BackendResult.success);
        },
      }),
    });
  });

  test('flip: what a read brings differs by so many bits from what is stored', async () => {
    const written = fill(4096, 0x5a);
    expect(await t.status({ opcode: WRITE, cdw10: 16, cdw12: 7 })).toBe('00/00');
    t.host.controller.faults.add('on=read,nth=1,flip=3,seed=1');
    expect(await t.status({ opcode: READ, cdw10: 16, cdw12: 7 })).toBe('00/00');
    expect(differingBits(t.host.memory.bytes(Address.data, 4096), written)).toBe(3);
    expect(await stored(16, 8)).toEqual(written);
  });

  test('flip: what a write stores differs, and the buffer of the host does not change', async () => {
    const written = fill(4096, 0x5a);
    t.host.controller.faults.add('on=write,nth=1,flip,seed=1');
    // In two parts that do not lie together.
    t.host.memory.bytes(Address.data + 0x8000, 2048).fill(0x5a);
    const prp1 = Address.data + 2048;
    expect(await t.status({ opcode: WRITE, cdw10: 16, cdw12: 7, prp1, prp2: Address.data + 0x8000 })).toBe(
      '00/00',
    );
    expect(t.host.memory.bytes(Address.data, 4096)).toEqual(written);
    expect(differingBits(await stored(16, 8), written)).toBe(1);
  });

  test('torn: the first blocks land, and success is told', async () => {
    fill(4096, 1);
    expect(await t.status({ opcode: WRITE, cdw10: 16, cdw12: 7 })).toBe('00/00');
    fill(4096, 2);
    t.host.controller.faults.add('on=write,torn=3,count=1');
    expect(await t.status({ opcode: WRITE, cdw10: 16, cdw12: 7 })).toBe('00/00');
    expect([...(await stored(16, 8))].filter((_, i) => i % 512 === 0)).toEqual([2, 2, 2, 1, 1, 1, 1, 1]);
    t.host.controller.faults.add('on=write-zeroes,torn=1,count=1');
    expect(await t.status({ opcode: WRITE_ZEROES, cdw10: 16, cdw12: 7 })).toBe('00/00');
    expect([...(await stored(16, 8))].filter((_, i) => i % 512 === 0)).toEqual([0, 2, 2, 1, 1, 1, 1, 1]);
    fill(4096, 3);
    t.host.controller.faults.add('torn=0,count=1');
    expect(await t.status({ opcode: WRITE, cdw10: 16, cdw12: 7 })).toBe('00/00');
    expect((await stored(16, 1))[0]).toBe(0);
  });

  test('lost: nothing lands, and success is told', async () => {
    fill(512, 1);
    expect(await t.status({ opcode: WRITE, cdw10: 5 })).toBe('00/00');
    fill(512, 2);
    t.host.controller.faults.add('lost,count=1');
    expect(await t.status({ opcode: WRITE, cdw10: 5 })).toBe('00/00');
    expect((await stored(5, 1))[0]).toBe(1);
    expect(await t.status({ opcode: COMPARE, cdw10: 5 })).toBe('02/85 DNR');
    expect(await t.status({ opcode: WRITE, cdw10: 5 })).toBe('00/00');
    expect(await t.status({ opcode: COMPARE, cdw10: 5 })).toBe('00/00');
  });

  test('the same seed flips the same bits', async () => {
    const damaged = async (seed: number): Promise<Uint8Array> => {
      t.host.controller.faults.add(`on=read,nth=1,flip=5,seed=${seed}`);
      fill(4096, 0);
      expect(await t.status({ opcode: READ, cdw12: 7 })).toBe('00/00');
      return t.host.memory.bytes(Address.data, 4096).slice();
    };
    const first = await damaged(9);
    expect(await damaged(9)).toEqual(first);
    expect(await damaged(10)).not.toEqual(first);
  });

  test('a command that is wrong fails as it does without faults', async () => {
    t.host.controller.faults.add('flip');
    expect(await t.status({ opcode: READ, cdw10: 32768 })).toBe('00/80 DNR');
    expect(await t.status({ opcode: READ, nsid: 2 })).toBe('00/02 DNR');
    expect(await t.status({ opcode: READ, prp1: 0x4000_0000 })).toBe('00/04');
  });
});

test('flip and torn of data that goes by message', async () => {
  const distant = t.host.memory.add(0x100_0000, 0x1000, { distant: true }).bytes;
  const command = { cdw12: 7, prp1: 0x100_0000 };
  distant.fill(9);
  t.host.controller.faults.add('on=write,torn=2');
  expect(await t.status({ opcode: WRITE, ...command })).toBe('00/00');
  t.host.controller.faults.add('on=read,nth=1,flip=2');
  expect(await t.status({ opcode: READ, ...command })).toBe('00/00');
  expect(differingBits(distant, new Uint8Array(4096).fill(9, 0, 1024))).toBe(2);
});
