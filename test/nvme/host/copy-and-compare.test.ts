// SPDX-License-Identifier: MIT
/** Copy, and Compare and Write: of the driver against the emulated controller. */
import { NvmeNamespace, type IoQueue } from '../../../lib/nvme/host';
import { MediaStatus, StatusCodeType } from '../../../lib/nvme/spec';
import { attached } from './support';

const BLOCK = 512;

async function setup(options: Parameters<typeof attached>[0] = {}) {
  const world = await attached(options);
  const memory = await world.device.dma.allocate(64 * BLOCK);
  const bytes = new Uint8Array(memory.buffer);
  const ns = world.nvme.namespace(1);
  /** Fills blocks from the first on with a byte each. */
  const fill = async (lba: number, ...values: number[]): Promise<void> => {
    values.forEach((value, i) => bytes.fill(value, i * BLOCK, (i + 1) * BLOCK));
    await ns.write(memory, { lba, blocks: values.length });
  };
  /** The byte that each block begins with. */
  const content = async (lba: number, blocks: number): Promise<number[]> => {
    bytes.fill(0xee);
    await ns.read(memory, { lba, blocks });
    return Array.from({ length: blocks }, (_, i) => bytes[i * BLOCK]!);
  };
  return { ...world, ns, memory, bytes, fill, content };
}

describe('copy', () => {
  test('puts ranges one behind the other', async () => {
    const { ns, fill, content } = await setup();
    await fill(0, 1, 2, 3, 4, 5, 6, 7, 8);
    await ns.copy(
      [
        { lba: 6, blocks: 2 },
        { lba: 0, blocks: 3 },
      ],
      { lba: 100, forceUnitAccess: true },
    );
    expect(await content(100, 6)).toEqual([7, 8, 1, 2, 3, 0]);
    await ns.copy([], { lba: 0 });
    expect(await content(0, 2)).toEqual([1, 2]);
  });

  test('is split where the controller has a limit', async () => {
    const { nvme, ns, fill, content, model } = await setup();
    await fill(0, 1, 2, 3, 4, 5, 6, 7, 8);
    // MSRC is 0's based.
    const identify = { ...ns.identify, mssrl: 2, mcl: 3, msrc: 1 };
    const limited = new NvmeNamespace(nvme, 1, identify);
    const before = model.statistics.otherCommands;
    await limited.copy(
      [
        { lba: 0, blocks: 5 },
        { lba: 7, blocks: 1 },
      ],
      { lba: 50 },
    );
    expect(await content(50, 7)).toEqual([1, 2, 3, 4, 5, 8, 0]);
    // 2 and 1 blocks, 2, and 1.
    expect(model.statistics.otherCommands - before).toBe(2);
  });

  test('what makes no sense is refused before anything is sent', async () => {
    const { nvme, ns, model } = await setup();
    await expect(ns.copy([{ lba: ns.blocks, blocks: 1 }], { lba: 0 })).rejects.toThrow(RangeError);
    await expect(ns.copy([{ lba: 0, blocks: 2 }], { lba: ns.blocks - 1 })).rejects.toThrow(RangeError);
    const without = new NvmeNamespace(nvme, 1, { ...ns.identify, mssrl: 0, mcl: 0, msrc: 0 });
    await expect(without.copy([{ lba: 0, blocks: 1 }], { lba: 1 })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_UNSUPPORTED',
      message: 'the controller of namespace 1 has no Copy: read the blocks and write them',
    });
    expect(model.statistics.errors).toBe(0);
  });
});

describe('compareAndWrite', () => {
  test('writes blocks that are as expected, and no others', async () => {
    const { ns, device, memory, bytes, fill, content } = await setup();
    await fill(8, 1, 2);
    const other = await device.dma.allocate(4 * BLOCK);
    new Uint8Array(other.buffer).fill(9);
    bytes.fill(1, 0, BLOCK).fill(2, BLOCK, 2 * BLOCK);
    await ns.compareAndWrite(memory, other, { lba: 8, blocks: 2 });
    expect(await content(8, 3)).toEqual([9, 9, 0]);
    bytes.fill(1);
    await expect(ns.compareAndWrite(memory, other, { lba: 8, blocks: 2 })).rejects.toMatchObject({
      sct: StatusCodeType.media,
      sc: MediaStatus.compareFailure,
      operation: 'Compare',
    });
    expect(await content(8, 2)).toEqual([9, 9]);
  });

  test('of which some wait for their turn, among others', async () => {
    const { nvme, ns, memory, model } = await setup();
    const queue: IoQueue = await nvme.createIoQueue(3);
    const blocks = 1;
    await Promise.all([
      ns.read(memory, { lba: 0, blocks, queue }),
      ns.read(memory, { lba: 1, blocks, queue }),
      ns.compareAndWrite(memory, memory, { lba: 0, blocks, queue }),
      ns.read(memory, { lba: 2, blocks, queue }),
      ns.compareAndWrite(memory, memory, { lba: 0, blocks, queue }),
      ns.read(memory, { lba: 3, blocks, queue }),
    ]);
    expect(model.statistics.errors).toBe(0);
    await queue.close();
  });

  test('what makes no sense is refused', async () => {
    const { nvme, ns, device, memory } = await setup();
    const small = await device.dma.allocate(BLOCK);
    await expect(ns.compareAndWrite(memory, small, { lba: 0, blocks: 2, offset: 4096 })).rejects.toThrow(
      RangeError,
    );
    await expect(ns.compareAndWrite(memory, memory, { lba: ns.blocks, blocks: 1 })).rejects.toThrow(
      RangeError,
    );
    const large = await device.dma.allocate(nvme.maxTransferSize + BLOCK);
    const blocks = nvme.maxTransferSize / BLOCK + 1;
    await expect(ns.compareAndWrite(large, large, { lba: 0, blocks })).rejects.toThrow(
      `${blocks} blocks are more than the controller transfers at once, ${nvme.maxTransferSize} bytes: Compare and Write cannot be split`,
    );
    const queue = await nvme.createIoQueue(1);
    await expect(ns.compareAndWrite(memory, memory, { lba: 0, blocks: 1, queue })).rejects.toThrow(
      'a queue of depth 1 has no room for the two commands of Compare and Write',
    );
    await queue.close();
    await expect(ns.compareAndWrite(memory, memory, { lba: 0, blocks: 1, queue })).rejects.toBeInstanceOf(
      Error,
    );
  });

  test('a controller that is gone fails both', async () => {
    const { nvme, ns, memory, model } = await setup();
    model.faults.add({ on: 'compare', hang: true });
    const running = ns.compareAndWrite(memory, memory, { lba: 0, blocks: 1 });
    running.catch(() => undefined);
    await nvme.close();
    await expect(running).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  });
});
