// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DmaMemory } from '../../../lib/pci';
import { createBackend } from '../../../lib/nvme';
import { NvmeController, type NvmeNamespace } from '../../../lib/nvme/host';
import { NvmOpcode } from '../../../lib/nvme/spec';
import { atEnd } from '../../client/support';
import { NAMESPACE_BYTES, attached, type World } from './support';

const PAGE = 4096;
const BLOCK = 512;
const MDTS = 131072;

interface Setup extends World {
  readonly ns: NvmeNamespace;
  readonly memory: DmaMemory;
  readonly bytes: Uint8Array;
}

async function setup(
  size = 2 * MDTS,
  options: Parameters<typeof attached>[0] = {},
): Promise<Setup & Awaited<ReturnType<typeof attached>>> {
  const world = await attached(options);
  const memory = await world.device.dma.allocate(size);
  return { ...world, ns: world.nvme.namespace(1), memory, bytes: new Uint8Array(memory.buffer) };
}

/** Bytes that name their place. */
function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let index = 0; index < length; index++)
    bytes[index] = (index * 7 + (index >>> 8) * 13 + seed * 31) & 0xff;
  return bytes;
}

const same = (one: Uint8Array, other: Uint8Array): boolean => Buffer.compare(one, other) === 0;

test('write, flush, read', async () => {
  const { model, ns, memory, bytes } = await setup();
  bytes.set(pattern(BLOCK * 3, 1));
  await ns.write(memory, { lba: 5, blocks: 3 });
  await ns.flush();
  bytes.fill(0);
  await ns.read(memory, { lba: 6, blocks: 1, offset: PAGE });
  expect(same(bytes.subarray(PAGE, PAGE + BLOCK), pattern(BLOCK * 3, 1).subarray(BLOCK, 2 * BLOCK))).toBe(
    true,
  );
  expect(bytes.subarray(0, PAGE).every((byte) => byte === 0)).toBe(true);
  expect(model.statistics).toMatchObject({
    writeCommands: 1,
    readCommands: 1,
    otherCommands: 1,
    errors: 0,
    slowCommands: 0,
  });
});

describe.each([
  ['SGL descriptors', true],
  ['PRP lists', false],
])('with %s', (_, sgl) => {
  beforeEach(() => {
    const takesSgl = jest.spyOn(NvmeController.prototype, 'takesSgl', 'get');
    if (!sgl) takesSgl.mockReturnValue(false);
  });
  afterEach(() => {
    jest.restoreAllMocks();
  });

  test('which is what the controller is asked for', async () => {
    const { nvme } = await setup();
    expect(nvme.takesSgl).toBe(sgl);
  });

  test.each([0, 4, 512, PAGE - 4])(
    'transfers of every number of pages, at offset %s of a page',
    async (offset) => {
      const { model, ns, memory, bytes } = await setup();
      for (let length = PAGE; length <= MDTS; length += PAGE) {
        // A page more or less than the length, when the offset is not 0: all shapes of data pointers.
        const data = pattern(length - BLOCK, length / PAGE + offset);
        const range = { lba: (length / PAGE) * 8, blocks: (length - BLOCK) / BLOCK, offset };
        bytes.set(data, offset);
        await ns.write(memory, range);
        bytes.fill(0xee);
        await ns.read(memory, range);
        expect([length, same(bytes.subarray(offset, offset + data.length), data)]).toEqual([length, true]);
        // Not a byte before or behind.
        expect(bytes[offset + data.length]).toBe(0xee);
        if (offset > 0) expect(bytes[offset - 1]).toBe(0xee);
      }
      await ns.read(memory, { lba: 0, blocks: MDTS / BLOCK, offset });
      expect(model.statistics).toMatchObject({ errors: 0, slowCommands: 0, readCommands: MDTS / PAGE + 1 });
    },
  );

  test('with every list in flight at once, each in its own', async () => {
    const { nvme, ns, memory, bytes } = await setup(20 * 0x1_0000);
    const data = pattern(bytes.length, 9);
    bytes.set(data);
    const parts = Array.from({ length: 20 }, (_, index) => ({
      lba: index * 128,
      blocks: 128,
      offset: index * 0x1_0000,
    }));
    for (const depth of [1, 3, 10, 20]) {
      const queue = await nvme.createIoQueue(depth);
      await Promise.all(parts.map((part) => ns.write(memory, { ...part, queue })));
      bytes.fill(0);
      await Promise.all(parts.map((part) => ns.read(memory, { ...part, queue })));
      expect(same(bytes, data)).toBe(true);
      await queue.close();
    }
  });
});

test('transfers above the limit are split', async () => {
  const { model, ns, memory, bytes } = await setup(1 << 20);
  const data = pattern(bytes.length, 3);
  bytes.set(data);
  await ns.write(memory, { lba: 1, blocks: (1 << 20) / BLOCK });
  expect(model.statistics).toMatchObject({ writeCommands: 8, bytesWritten: 1 << 20 });
  bytes.fill(0);
  await ns.read(memory, { lba: 1, blocks: (MDTS + BLOCK) / BLOCK, offset: BLOCK });
  expect(model.statistics.readCommands).toBe(2);
  expect(same(bytes.subarray(BLOCK, MDTS + 2 * BLOCK), data.subarray(0, MDTS + BLOCK))).toBe(true);
});

test('a controller without a limit gets what one page of PRP list describes', async () => {
  const { nvme, ns, memory, model } = await setup(2 << 20, { maxTransfer: 1 << 20 });
  expect(nvme.maxTransferSize).toBe(1 << 20);
  await ns.write(memory, { lba: 0, blocks: (2 << 20) / BLOCK });
  expect(model.statistics.writeCommands).toBe(2);
});

test('several queues at once', async () => {
  const { nvme, ns, memory, bytes, model } = await setup();
  const queues = await Promise.all([nvme.createIoQueue(4), nvme.createIoQueue(4), nvme.createIoQueue(4)]);
  bytes.set(pattern(300 * BLOCK, 5));
  const io = (what: 'read' | 'write'): Promise<unknown> =>
    Promise.all(
      Array.from({ length: 300 }, (_, index) =>
        ns[what](memory, { lba: index, blocks: 1, offset: index * BLOCK, queue: queues[index % 3]! }),
      ),
    );
  await io('write');
  bytes.fill(0);
  await io('read');
  expect(same(bytes.subarray(0, 300 * BLOCK), pattern(300 * BLOCK, 5))).toBe(true);
  expect(model.statistics).toMatchObject({ readCommands: 300, writeCommands: 300, errors: 0 });
  expect(queues.map((queue) => queue.outstanding)).toEqual([0, 0, 0]);
});

test('compare tells of a difference', async () => {
  const { ns, memory, bytes } = await setup();
  bytes.set(pattern(BLOCK * 4, 3));
  await ns.write(memory, { lba: 2, blocks: 4 });
  await ns.compare(memory, { lba: 2, blocks: 4 });
  await ns.compare(memory, { lba: 3, blocks: 3, offset: BLOCK });
  bytes[BLOCK * 4 - 1]! ^= 1;
  await expect(ns.compare(memory, { lba: 2, blocks: 4 })).rejects.toMatchObject({
    sct: 2,
    sc: 0x85,
    message: expect.stringMatching(/^Compare \(LBA 2, 4 blocks\) failed/) as string,
  });
});

test('write zeroes, in parts of 65536 blocks', async () => {
  const size = 40 << 20;
  const { ns, memory, bytes, model } = await setup(2 * MDTS, {
    backend: createBackend({ kind: 'memory', size }),
  });
  bytes.fill(0xff);
  const last = size / BLOCK - 1;
  for (const lba of [0, 1, 0xffff, 0x1_0000, last]) await ns.write(memory, { lba, blocks: 1 });
  await ns.writeZeroes({ lba: 1, blocks: last - 1, deallocate: true });
  expect(model.statistics.otherCommands).toBe(2);
  const found = [0, 1, 0xffff, 0x1_0000, last].map(async (lba, index) => {
    await ns.read(memory, { lba, blocks: 1, offset: index * BLOCK });
    return bytes[index * BLOCK];
  });
  expect(await Promise.all(found)).toEqual([0xff, 0, 0, 0, 0xff]);
  await ns.writeZeroes({ lba: last, blocks: 1, forceUnitAccess: true });
  await ns.read(memory, { lba: last, blocks: 1 });
  expect(bytes[0]).toBe(0);
});

test('blocks that are made unreadable are found by verify, and are readable once they are written', async () => {
  const { ns, memory, bytes } = await setup(2 * MDTS);
  bytes.fill(7);
  await ns.write(memory, { lba: 0, blocks: 8 });
  await ns.verify({ lba: 0, blocks: ns.blocks });
  await ns.writeUncorrectable({ lba: 2, blocks: 2 });
  const unreadable = { sct: 2, sc: 0x81 };
  await expect(ns.verify({ lba: 0, blocks: 8 })).rejects.toMatchObject(unreadable);
  await expect(ns.read(memory, { lba: 3, blocks: 1 })).rejects.toMatchObject(unreadable);
  await ns.verify({ lba: 4, blocks: 4 });
  await ns.write(memory, { lba: 2, blocks: 2 });
  await ns.verify({ lba: 0, blocks: 8 });
  for (const command of ['verify', 'writeUncorrectable'] as const) {
    await expect(ns[command]({ lba: ns.blocks, blocks: 1 })).rejects.toMatchObject({
      code: 'ERR_OUT_OF_RANGE',
    });
  }
});

test('what the controller does not have is refused by it', async () => {
  const { nvme } = await setup();
  await using queue = await nvme.createIoQueue(4);
  await expect(queue.submit(NvmOpcode.reservationReport, 1, 0, 0, 0, 0)).rejects.toMatchObject({
    sct: 0,
    sc: 1,
    operation: 'Reservation Report',
  });
});

test('deallocated blocks read as zeros', async () => {
  const { ns, memory, bytes } = await setup(2 * MDTS);
  bytes.fill(7);
  await ns.write(memory, { lba: 0, blocks: 24 });
  await ns.deallocate([{ lba: 8, blocks: 8 }]);
  await ns.read(memory, { lba: 0, blocks: 24 });
  const found = Array.from({ length: 24 }, (_, block) => bytes[block * BLOCK]);
  expect(found).toEqual(Array(24).fill(7).fill(0, 8, 16));
});

test('a write with FUA is durable when it is done', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'vfio-user-fua-'));
  atEnd(() => {
    rmSync(directory, { recursive: true });
  });
  const backend = createBackend({ kind: 'file', path: join(directory, 'disk'), size: NAMESPACE_BYTES });
  const flush = jest.spyOn(backend, 'flush');
  const { ns, memory, nvme } = await setup(2 * MDTS, { backend });
  expect(nvme.identify.vwc & 1).toBe(1);
  await ns.write(memory, { lba: 0, blocks: 1 });
  expect(flush).toHaveBeenCalledTimes(0);
  await ns.write(memory, { lba: 0, blocks: 1, forceUnitAccess: true });
  expect(flush).toHaveBeenCalledTimes(1);
  await ns.flush();
  expect(flush).toHaveBeenCalledTimes(2);
});

describe('nothing is sent', () => {
  const last = NAMESPACE_BYTES / BLOCK;
  test.each([
    ['behind the end', { lba: last, blocks: 1 }],
    ['across the end', { lba: last - 1, blocks: 2 }],
    ['no block', { lba: 0, blocks: 0 }],
    ['a negative LBA', { lba: -1, blocks: 1 }],
    ['half a block', { lba: 0, blocks: 0.5 }],
    ['no LBA', { lba: NaN, blocks: 1 }],
    ['more than the buffer', { lba: 0, blocks: 600 }],
    ['beyond the buffer', { lba: 0, blocks: 1, offset: 2 * MDTS - 508 }],
    ['an offset that is not aligned', { lba: 0, blocks: 1, offset: 2 }],
    ['a negative offset', { lba: 0, blocks: 1, offset: -4 }],
  ])('%s', async (_what, range) => {
    const { model, ns, memory } = await setup();
    await expect(ns.read(memory, range)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    await expect(ns.write(memory, range)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    await expect(ns.compare(memory, range)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    expect(model.statistics).toMatchObject({ readCommands: 0, writeCommands: 0 });
  });
});

test.each([
  ['behind the end', { lba: NAMESPACE_BYTES / BLOCK, blocks: 1 }],
  ['no block', { lba: 0, blocks: 0 }],
  ['half a block', { lba: 0, blocks: 0.5 }],
])('nothing is sent without data either: %s', async (_what, range) => {
  const { model, ns } = await setup();
  await expect(ns.writeZeroes(range)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
  await expect(ns.deallocate([{ lba: 0, blocks: 1 }, range])).rejects.toMatchObject({
    code: 'ERR_OUT_OF_RANGE',
  });
  expect(model.statistics).toMatchObject({ otherCommands: 0, errors: 0 });
});

test('the last block', async () => {
  const { ns, memory, bytes } = await setup();
  const data = pattern(ns.blockSize, 3);
  bytes.set(data);
  await ns.write(memory, { lba: ns.blocks - 1, blocks: 1 });
  bytes.fill(0);
  await ns.read(memory, { lba: ns.blocks - 1, blocks: 1 });
  expect(same(bytes.subarray(0, ns.blockSize), data)).toBe(true);
});

test('an error status names the command and the blocks; the queue goes on', async () => {
  const { ns, memory } = await setup();
  // Memory that the controller does not know.
  await expect(ns.read({ iova: 0x7000_0000_0000, size: PAGE }, { lba: 3, blocks: 2 })).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_NVME_STATUS',
    operation: 'Read',
    message: expect.stringMatching(/^Read \(LBA 3, 2 blocks\) failed: /) as string,
  });
  await ns.read(memory, { lba: 3, blocks: 2 });
});

test('a split transfer fails as a whole, after all of its parts', async () => {
  const { nvme, ns, memory, model } = await setup();
  // The first half is mapped, the second is not.
  const queue = await nvme.defaultQueue();
  const buffer = { iova: memory.iova + memory.size - MDTS, size: 2 * MDTS };
  await expect(ns.read(buffer, { lba: 0, blocks: (2 * MDTS) / BLOCK })).rejects.toMatchObject({
    code: 'ERR_VFIO_USER_NVME_STATUS',
    message: expect.stringContaining('LBA 256, 256 blocks') as string,
  });
  expect(queue.outstanding).toBe(0);
  expect(model.statistics.readCommands).toBeGreaterThanOrEqual(1);
});
