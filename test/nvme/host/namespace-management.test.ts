// SPDX-License-Identifier: MIT
/** Format, and namespaces that are made, attached, detached and deleted: the words, and the emulated controller. */
import { memoryNamespaceStore } from '../../../lib/nvme';
import {
  attachmentCommand,
  createCommand,
  deleteCommand,
  formatCommand,
} from '../../../lib/nvme/host/namespace-commands';
import { attached } from './support';

const MIB = 1 << 20;

describe('the words of', () => {
  test('Format NVM', () => {
    expect(formatCommand(3, {})).toEqual({ opcode: 0x80, nsid: 3, cdw10: 0 });
    // LBAFU 1, SES 1, LBAFL 2 (NVMe base 2.0, figure "Format NVM - Command Dword 10").
    expect(formatCommand(1, { format: 18, secureErase: 'userData' })).toMatchObject({ cdw10: 0x1202 });
    expect(formatCommand(1, { secureErase: 'cryptographic' })).toMatchObject({ cdw10: 0x0400 });
  });

  test('Namespace Management', () => {
    const { write, ...words } = createCommand({
      blocks: 0x1_0000_0002,
      capacity: 3,
      format: 33,
      shared: true,
    });
    expect(words).toEqual({ opcode: 0x0d, cdw10: 0 });
    expect(write).toHaveLength(4096);
    const bytes = Object.fromEntries([...write!.entries()].filter(([, byte]) => byte !== 0));
    // NSZE, NCAP, FLBAS with the upper bits at 6:5, NMIC.
    expect(bytes).toEqual({ 0: 2, 4: 1, 8: 3, 26: 0x41, 30: 1 });
    expect(deleteCommand(0xffff_ffff)).toEqual({ opcode: 0x0d, nsid: 0xffff_ffff, cdw10: 1 });
  });

  test('Namespace Attachment', () => {
    const { write, ...words } = attachmentCommand('detach', 7, [1, 0x203]);
    expect(words).toEqual({ opcode: 0x15, nsid: 7, cdw10: 1 });
    expect(write).toHaveLength(4096);
    expect(write!.subarray(0, 8)).toEqual(Uint8Array.of(2, 0, 1, 0, 3, 2, 0, 0));
    expect(attachmentCommand('attach', 7, [])).toMatchObject({ cdw10: 0 });
  });

  test.each([
    [() => formatCommand(1, { format: 64 }), 'The index of an LBA format is an integer from 0 to 63, got 64'],
    [
      () => formatCommand(1, { format: 0.5 }),
      'The index of an LBA format is an integer from 0 to 63, got 0.5',
    ],
    [() => createCommand({ blocks: 0 }), 'blocks of a namespace is an integer from 1 on, got 0'],
    [
      () => createCommand({ blocks: 1, capacity: -1 }),
      'capacity of a namespace is an integer from 1 on, got -1',
    ],
    [() => attachmentCommand('attach', 1, [0x1_0000]), '65536 is not a controller id'],
    [() => attachmentCommand('attach', 1, Array<number>(2048).fill(1)), 'a list takes at most 2047'],
  ])('%s is refused', (make, message) => {
    expect(make).toThrow(message);
    expect(make).toThrow(RangeError);
  });
});

describe('the emulated controller', () => {
  test('formats a namespace with larger blocks', async () => {
    const { nvme, device } = await attached();
    const before = nvme.namespace(1);
    const memory = await device.dma.allocate(4096);
    new Uint8Array(memory.buffer).fill(7);
    await before.write(memory, { lba: 0, blocks: 8 });
    await nvme.admin.format(1, { format: 1, secureErase: 'userData' });
    expect(await nvme.rescan()).toBe(nvme.namespaces);
    const after = nvme.namespace(1);
    expect([before.blockSize, after.blockSize, after.size]).toEqual([512, 4096, before.size]);
    await after.read(memory, { lba: 0, blocks: 1 });
    expect(new Uint8Array(memory.buffer).every((byte) => byte === 0)).toBe(true);
    await expect(nvme.admin.format(1, { secureErase: 'cryptographic' })).rejects.toMatchObject({
      message: 'Format NVM failed: Invalid field in command (00/02)',
      sct: 0,
      sc: 2,
    });
    await expect(nvme.admin.format(1, { format: 2 })).rejects.toMatchObject({ sct: 1, sc: 0x0a });
  });

  test('has namespaces made, attached, used, detached and deleted', async () => {
    const { nvme, device } = await attached({
      namespaces: [],
      namespaceStore: memoryNamespaceStore(8 * MIB),
    });
    const { admin } = nvme;
    expect(nvme.namespaces).toEqual([]);
    expect((await admin.identifyController()).unvmcap).toBe(BigInt(8 * MIB));
    expect((await admin.identifyNamespace(0xffff_ffff)).lbafs.map(({ ds }) => ds)).toEqual([9, 12]);
    const nsid = await admin.createNamespace({ blocks: 256, format: 1 });
    expect(nsid).toBe(1);
    expect(await nvme.rescan()).toEqual([]);
    await admin.attachNamespace(nsid);
    await nvme.rescan();
    const namespace = nvme.namespace(nsid);
    expect([namespace.blockSize, namespace.size]).toEqual([4096, MIB]);
    const memory = await device.dma.allocate(4096);
    await namespace.write(memory, { lba: 255, blocks: 1 });
    await expect(admin.attachNamespace(nsid, [1])).rejects.toMatchObject({
      message: 'Namespace Attachment failed: Namespace already attached (01/18)',
    });
    await admin.detachNamespace(nsid);
    await expect(namespace.read(memory, { lba: 0, blocks: 1 })).rejects.toMatchObject({ sct: 0, sc: 2 });
    await expect(admin.createNamespace({ blocks: 8 * MIB })).rejects.toMatchObject({
      message: 'Namespace Management failed: Namespace insufficient capacity (01/15)',
    });
    await admin.deleteNamespace(nsid);
    expect((await admin.identifyController()).unvmcap).toBe(BigInt(8 * MIB));
    await expect(admin.deleteNamespace(nsid)).rejects.toMatchObject({ sct: 0, sc: 2 });
  });

  test('without a store tells that there is no such command', async () => {
    const { nvme } = await attached();
    await expect(nvme.admin.createNamespace({ blocks: 8 })).rejects.toMatchObject({
      message: 'Namespace Management failed: Invalid command opcode (00/01)',
      doNotRetry: true,
    });
  });
});
