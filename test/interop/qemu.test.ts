// SPDX-License-Identifier: MIT
/** QEMU as the client of our server, without a guest. Set QEMU_BINARY to qemu-system-x86_64 of QEMU 10.1 or later. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createBackend } from '../../lib/nvme/backends';
import { NvmeControllerModel } from '../../lib/nvme/controller';
import { serve, type Client, type PciDeviceModel, type Server } from '../../lib/server';
import type { MessageTrace } from '../../lib/transport/trace';
import { until } from '../client/support';
import { Memory, QemuMachine, STOPPED, describeWith, whyNoQemu } from '../support/qemu-machine';

const MIB = 2 ** 20;

describeWith(whyNoQemu(), 'QEMU without a guest', () => {
  let folder: string;
  let socket: string;
  let server: Server | undefined;
  let machine: QemuMachine | undefined;
  let messages: MessageTrace[];
  const errors: unknown[] = [];
  const record = (message: unknown): void => {
    messages.push(message as MessageTrace);
  };

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'qemu-'));
    socket = join(folder, 'socket');
    messages = [];
    subscribe('vfio-user:request', record);
    subscribe('vfio-user:reply', record);
  });
  afterEach(async () => {
    await machine?.kill();
    await server?.close();
    machine = server = undefined;
    unsubscribe('vfio-user:request', record);
    unsubscribe('vfio-user:reply', record);
    rmSync(folder, { recursive: true });
    expect(errors.splice(0)).toEqual([]);
  });

  const onError = (error: unknown): void => {
    errors.push(error);
  };
  const count = (direction: MessageTrace['direction'], command: string): number =>
    messages.filter((message) => message.direction === direction && message.command === command).length;
  /** Commands that QEMU has sent. */
  const received = (command: string): number => count('received', command);
  /** Errors that QEMU was answered with. */
  const refused = (): MessageTrace[] => messages.filter(({ errno }) => errno !== undefined);

  describe('the NVMe controller', () => {
    let controller: NvmeControllerModel;

    beforeEach(async () => {
      const backend = createBackend({ kind: 'memory', size: 16 * MIB });
      controller = new NvmeControllerModel({ backend, serial: 'QEMU' });
      server = await serve(socket, controller, { onError });
    });
    afterEach(async () => {
      await machine?.kill();
      await server?.close();
      controller.close();
    });

    test('becomes a device of the machine', async () => {
      machine = await QemuMachine.start(socket, Memory.shared, STOPPED);
      expect(await machine.device()).toMatchObject({
        id: { vendor: 0x4e58, device: 1, 'subsystem-vendor': 0x4e58 },
        class_info: { class: 0x0108 },
        irq_pin: 1,
        regions: [
          { bar: 0, size: 0x4000 },
          { bar: 4, size: 0x2000 },
        ],
      });
      expect(machine.stderr).toBe('');
      expect(refused()).toEqual([]);
      expect(await machine.quit()).toBe(0);
    });

    test('has its registers and doorbells where the machine has put BAR 0', async () => {
      machine = await QemuMachine.start(socket, Memory.shared, STOPPED);
      await machine.writeConfig(0x10, 0xe000_0000);
      await machine.writeConfig(0x14, 0);
      await machine.writeConfig(0x04, 0x2); // memory space
      const [low, high, version] = await machine.words(0xe000_0000, 3);
      expect([low, high, version]).toEqual([0x1e01_03ff, 0x20, 0x0001_0400]);
      const reads = received('REGION_READ');
      // There are no queues yet: what these read, no specification says.
      expect(await machine.words(0xe000_1000, 4)).toEqual(Array(4).fill(0x454e_4f4e));
      expect(received('REGION_READ')).toBe(reads); // The doorbells are mapped.
      expect(refused()).toEqual([]);
    });

    test('serves the firmware, is reset with the machine, and serves the firmware again', async () => {
      machine = await QemuMachine.start(socket, Memory.shared);
      await until(() => controller.statistics.adminCommands > 0, 'the firmware identifies it', 20_000);
      const resets = received('DEVICE_RESET');
      await machine.execute('system_reset');
      await until(() => received('DEVICE_RESET') > resets, 'a reset', 20_000);
      const { adminCommands } = controller.statistics;
      const again = (): boolean => controller.statistics.adminCommands > adminCommands;
      await until(again, 'the firmware identifies it again', 20_000);
      expect(controller.fault).toBeNull();
      expect(refused()).toEqual([]);
      expect(await machine.quit()).toBe(0);
    }, 60_000);

    test('serves one machine after the other, also after one that was killed', async () => {
      for (let i = 0; i < 2; i++) {
        machine = await QemuMachine.start(socket, Memory.shared, STOPPED);
        await machine.kill();
        await until(() => server?.client === null);
      }
      machine = await QemuMachine.start(socket, Memory.shared, STOPPED);
      expect((await machine.device()).id.vendor).toBe(0x4e58);
    });

    test('a machine outlives its server', async () => {
      machine = await QemuMachine.start(socket, Memory.shared, STOPPED);
      await server?.close();
      await machine.writeConfig(0x04, 0x2);
      expect(await machine.execute('query-status')).toMatchObject({ running: false });
      expect(await machine.quit()).toBe(0);
    });
  });

  describe('a card with DMA', () => {
    let client: Client | undefined;

    beforeEach(async () => {
      const bar2 = {
        size: 0x1000,
        read: (offset: number, data: Uint8Array) => {
          for (const i of data.keys()) data[i] = offset + i;
        },
      };
      const card: PciDeviceModel = {
        name: 'card',
        pci: {
          vendorId: 0x494f,
          deviceId: 0x0dc8,
          classCode: 0x118000,
          interruptPin: 1,
          bars: { 2: { kind: 'memory32', ...bar2 } },
        },
        attach: (newClient) => {
          client = newClient;
        },
      };
      server = await serve(socket, card, { onError });
    });

    const pattern = Uint8Array.from({ length: 3 * MIB }, (_, i) => (i >> 12) + i);
    const ADDRESS = 0x123_4ffd;
    const word = (at: number): number => new DataView(pattern.buffer).getUint32(at - ADDRESS, true);

    test('is read by the machine', async () => {
      machine = await QemuMachine.start(socket, Memory.shared, STOPPED);
      expect(await machine.device()).toMatchObject({
        id: { vendor: 0x494f, device: 0x0dc8 },
        irq_pin: 1,
        regions: [{ bar: 2, size: 0x1000 }],
      });
      await machine.writeConfig(0x18, 0xe000_0000);
      await machine.writeConfig(0x04, 0x2);
      expect(await machine.words(0xe000_0010, 2)).toEqual([0x1312_1110, 0x1716_1514]);
      expect(refused()).toEqual([]);
    });

    test.each([
      ['that is shared: nothing is sent', Memory.shared],
      ['of its own: by DMA_WRITE and DMA_READ', Memory.own],
    ])("writes and reads the machine's memory %s", async (_, memory) => {
      machine = await QemuMachine.start(socket, memory, STOPPED);
      await machine.writeConfig(0x04, 0x6); // memory space, bus master
      const ram = client?.memory.ranges.find(({ iova }) => iova === 0n);
      expect(ram?.buffer === null).toBe(memory === Memory.own);
      await client?.memory.write(ADDRESS, pattern);
      for (const at of [0x123_5000, 0x143_4000])
        expect(await machine.words(at, 2)).toEqual([word(at), word(at + 4)]);
      const read = await client?.memory.read(ADDRESS, pattern.length);
      expect(Buffer.compare(read ?? new Uint8Array(), pattern)).toBe(0);
      // QEMU takes 1 MiB with a message, but sends no more than what fits into its socket.
      const sent = ['DMA_WRITE', 'DMA_READ'].map((command) => count('sent', command));
      expect(sent).toEqual(memory === Memory.own ? [3, 96] : [0, 0]);
      expect(refused()).toEqual([]);
    });

    test('a card that is not bus master may not touch memory of its own', async () => {
      machine = await QemuMachine.start(socket, Memory.own, STOPPED);
      await expect(client?.memory.read(ADDRESS, 16)).rejects.toMatchObject({ command: 'DMA_READ' });
      await expect(client?.memory.write(ADDRESS, new Uint8Array(16))).rejects.toMatchObject({
        command: 'DMA_WRITE',
      });
      await machine.writeConfig(0x04, 0x4);
      await expect(client?.memory.read(ADDRESS, 16)).resolves.toEqual(new Uint8Array(16));
    });
  });
});
