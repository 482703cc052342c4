// SPDX-License-Identifier: MIT
import { connect } from '../../lib/client';
import { NvmeController } from '../../lib/nvme/host';
import type { DmaMemory } from '../../lib/pci';
import type { SpdkTarget } from '../../bench/spdk-target';

/** A driver of an endpoint, with memory. */
interface Session {
  readonly nvme: NvmeController;
  readonly memory: DmaMemory;
  readonly bytes: Uint8Array;
}

async function at<T>(endpoint: string, use: (session: Session) => Promise<T>): Promise<T> {
  await using device = await connect(endpoint);
  await using nvme = await NvmeController.attach(device);
  const memory = await device.dma.allocate(1 << 20);
  return await use({ nvme, memory, bytes: new Uint8Array(memory.buffer) });
}

/** Tests of the commands that compare, copy, format and manage namespaces, on a target that runs. */
export function testCommands(target: () => SpdkTarget): void {
  test('blocks are compared, and written if they are as expected', () =>
    at(target().malloc, async ({ nvme, memory, bytes }) => {
      const namespace = nvme.namespace(1);
      const range = { lba: 3, blocks: 1 };
      const [same, zeros] = [memory, { ...memory, iova: memory.iova + 4096 }];
      bytes.fill(5, 0, 1024);
      await namespace.write(memory, range);
      await namespace.compare(memory, range);
      await namespace.compareAndWrite(same, zeros, range);
      const differs = {
        message: expect.stringMatching(/Compare failure \(02\/85\)$/) as string,
        sct: 2,
        sc: 0x85,
      };
      await expect(namespace.compare(same, range)).rejects.toMatchObject(differs);
      await expect(namespace.compareAndWrite(same, same, range)).rejects.toMatchObject(differs);
      await namespace.read(memory, { ...range, offset: 8192 });
      expect(bytes.subarray(8192, 8192 + 512).every((byte) => byte === 0)).toBe(true);
      // More blocks than it promises (NACWU) are compared, but not together with a write.
      expect(namespace.identify).toMatchObject({ nacwu: 0 });
      await namespace.compare(zeros, { lba: 50, blocks: 2 });
      await expect(namespace.compareAndWrite(zeros, same, { lba: 50, blocks: 2 })).rejects.toMatchObject({
        message: 'Compare (LBA 50, 2 blocks) failed: Internal error (00/06)',
      });
    }));

  test('blocks are copied, each range by a command of its own, as the target takes no more', () =>
    at(target().malloc, async ({ nvme, memory, bytes }) => {
      const namespace = nvme.namespace(1);
      expect(namespace.identify).toMatchObject({ msrc: 0 });
      for (let block = 0; block < 8; block++) bytes.fill(block + 1, block * 512, (block + 1) * 512);
      await namespace.write(memory, { lba: 0, blocks: 8 });
      const ranges = [
        { lba: 6, blocks: 2 },
        { lba: 1, blocks: 3 },
      ];
      await namespace.copy(ranges, { lba: 100 });
      await namespace.read(memory, { lba: 100, blocks: 5, offset: 8192 });
      expect([0, 1, 2, 3, 4].map((block) => bytes[8192 + block * 512])).toEqual([7, 8, 2, 3, 4]);
      await expect(namespace.copy([{ lba: 0, blocks: 1 }], { lba: namespace.blocks })).rejects.toThrow(
        RangeError,
      );
    }));

  test('what the target does not have is refused in words', () =>
    at(target().malloc, async ({ nvme: { admin } }) => {
      // Format NVM and Namespace Management are bits 1 and 3.
      expect((await admin.identifyController()).oacs & 0x0a).toBe(0);
      const invalid = (command: string): object => ({
        message: `${command} failed: Invalid command opcode (00/01)`,
        sct: 0,
        sc: 1,
      });
      await expect(admin.format(1)).rejects.toMatchObject(invalid('Format NVM'));
      await expect(admin.createNamespace({ blocks: 8 })).rejects.toMatchObject(
        invalid('Namespace Management'),
      );
      await expect(admin.deleteNamespace(1)).rejects.toMatchObject(invalid('Namespace Management'));
      await expect(admin.attachNamespace(1, [1])).rejects.toMatchObject(invalid('Namespace Attachment'));
      await expect(admin.detachNamespace(1, [1])).rejects.toMatchObject(invalid('Namespace Attachment'));
    }));

  test('namespaces that come, grow and go are found by a rescan', () =>
    at(target().null, async ({ nvme }) => {
      const nqn = target().nqn('null');
      const found = async (): Promise<(readonly [number, number])[]> =>
        (await nvme.rescan()).map(({ id, size }) => [id, size] as const);
      const MIB = 1 << 20;
      expect(await found()).toEqual([[1, 1024 * MIB]]);
      // One without a write cache, as the controller has told that it has none.
      await target().call('bdev_null_create', { name: 'Null1', num_blocks: 2048, block_size: 512 });
      await target().call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'Null1', nsid: 3 } });
      await target().call('bdev_null_resize', { name: 'Null0', new_size: 2048 });
      expect(await found()).toEqual([
        [1, 2048 * MIB],
        [3, MIB],
      ]);
      await target().call('nvmf_subsystem_remove_ns', { nqn, nsid: 3 });
      expect(await found()).toEqual([[1, 2048 * MIB]]);
      expect(() => nvme.namespace(3)).toThrow();
    }));
}
