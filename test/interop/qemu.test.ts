// SPDX-License-Identifier: MIT
/**
 * QEMU as the client of our server. Set QEMU_BINARY to qemu-system-x86_64 of QEMU 10.1 or later.
 *
 * The tests with a guest need QEMU_KERNEL too, a Linux with its NVMe driver, and QEMU_INITRD, an initramfs whose init
 * 1. mounts devtmpfs, procfs and sysfs, and waits for /dev/nvme0n1;
 * 2. prints `guest: sha256 <hexadecimal>` of the device's first MiB to its console;
 * 3. copies the first MiB of the device to its second one, with fsync, and prints `guest: copied`;
 * 4. reads both again past its cache, and prints `guest: equal` when they are;
 * 5. powers off.
 */
import { createHash, randomBytes } from 'node:crypto';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createBackend } from '../../lib/nvme/backends';
import { NvmeControllerModel } from '../../lib/nvme/controller';
import { serve, type Client, type PciDeviceModel, type Server } from '../../lib/server';
import type { MessageTrace } from '../../lib/transport/trace';
import { until } from '../client/support';
import { startCli, Scratch } from '../cli/run-cli';
import { EduDevice } from '../server/edu-device';
import { Qtest } from './qtest';
import { Memory, QemuMachine, guestOptions, whyNoGuest, whyNoQemu } from '../support/qemu-machine';

const MIB = 2 ** 20;
const noQemu = whyNoQemu();
const noGuest = whyNoGuest();
const title = (text: string, why: string | undefined): string =>
  why === undefined ? text : `${text}: skipped, ${why}`;

/** Starts no processor: what happens is what the tests ask for. */
const STOPPED = '-S';

(noQemu === undefined ? describe : describe.skip)(title('QEMU without a guest', noQemu), () => {
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

/** The device that QEMU has too, by our model. */
(noQemu === undefined ? describe : describe.skip)(title("QEMU's edu device", noQemu), () => {
  const BAR = 0xe000_0000;
  const Register = { causes: BAR + 0x24, raise: BAR + 0x60, acknowledge: BAR + 0x64 };
  let scratch: Scratch;
  let server: Server | undefined;
  let machine: QemuMachine | undefined;
  let qtest: Qtest | undefined;

  beforeEach(() => {
    scratch = new Scratch();
  });
  afterEach(async () => {
    qtest?.close();
    await machine?.kill();
    await server?.close();
    qtest = machine = server = undefined;
    scratch.remove();
  });

  test('is a level: of three causes, one acknowledged at each interrupt, none is lost and none storms', async () => {
    const [socket, control] = [scratch.file('socket'), scratch.file('qtest')];
    server = await serve(socket, new EduDevice({ msi: false }));
    machine = await QemuMachine.start(socket, Memory.shared, STOPPED, ...Qtest.options(control));
    qtest = await Qtest.connect(control);
    await machine.writeConfig(0x10, BAR);
    await machine.writeConfig(0x04, 0x2);
    const causes: number[] = [];
    await qtest.write32(Register.raise, 0b111);
    // An interrupt handler of a guest: QEMU lowers the line at each access, and our server raises it while a cause is left.
    for (let left = 0b111; left !== 0;) {
      const { high } = qtest;
      await until(() => high.size === 1, 'the line is high');
      left = await qtest.read32(Register.causes);
      const cause = left & -left;
      if (cause !== 0) causes.push(cause);
      await qtest.write32(Register.acknowledge, cause);
      left &= ~cause;
    }
    expect(causes).toEqual([1, 2, 4]);
    const { raised } = qtest;
    expect(raised).toBeLessThan(8);
    // A signal may still be on its way; nothing follows it.
    await until(async () => {
      expect(await qtest?.read32(Register.causes)).toBe(0);
      return qtest?.high.size === 0;
    }, 'the line is low');
  });
});

const RUNNING = 120_000;

(noGuest === undefined ? describe : describe.skip)(title('QEMU with Linux', noGuest), () => {
  let scratch: Scratch;

  beforeEach(() => {
    scratch = new Scratch();
  });
  afterEach(() => {
    scratch.remove();
  });

  test(
    "the guest's driver reads and writes what `serve nvme` serves",
    async () => {
      const [file, socket, console] = ['data', 'socket', 'console'].map((name) => scratch.file(name)) as [
        string,
        string,
        string,
      ];
      const data = randomBytes(4 * MIB);
      writeFileSync(file, data);
      const serving = startCli(
        scratch,
        'serve',
        'nvme',
        '--socket',
        socket,
        '--backend',
        'file',
        '--file',
        file,
      );
      await serving.said('Ctrl-C ends it.');
      const machine = await QemuMachine.start(socket, Memory.shared, ...guestOptions(console));
      expect(await machine.ended).toBe(0);
      const said = readFileSync(console, 'latin1');
      const sha256 = createHash('sha256').update(data.subarray(0, MIB)).digest('hex');
      for (const line of [`guest: sha256 ${sha256}`, 'guest: copied', 'guest: equal'])
        expect(said).toContain(line);
      serving.kill('SIGTERM');
      expect(await serving.ended).toMatchObject({ status: 0, stderr: '' });
      data.copyWithin(MIB, 0, MIB);
      expect(readFileSync(file).equals(data)).toBe(true);
    },
    RUNNING,
  );

  test(
    'a guest without mapped doorbells stops for few of its commands',
    async () => {
      const [socket, console] = [scratch.file('socket'), scratch.file('console')];
      const errors: unknown[] = [];
      const controller = new NvmeControllerModel({
        backend: createBackend({ kind: 'memory', size: 16 * MIB }),
        mappableDoorbells: false,
      });
      const bar = controller.pci.bars?.[0];
      if (bar?.write === undefined) throw new Error('the controller has no registers');
      const write = jest.spyOn(bar as Required<typeof bar>, 'write');
      const server = await serve(socket, controller, { onError: (error) => errors.push(error) });
      const machine = await QemuMachine.start(socket, Memory.shared, ...guestOptions(console));
      try {
        expect(await machine.ended).toBe(0);
        const said = readFileSync(console, 'latin1');
        for (const line of ['guest: copied', 'guest: equal']) expect(said).toContain(line);
        const { readCommands, writeCommands } = controller.statistics;
        const rung = write.mock.calls.filter(([offset]) => offset >= 0x1008).length;
        // Without the shadows a command takes two: one for its submission, and one for its completion.
        expect(rung).toBeLessThan(readCommands + writeCommands);
        expect([controller.fault, errors, controller.statistics.badDoorbells]).toEqual([null, [], 0]);
      } finally {
        await machine.kill();
        await server.close();
        controller.close();
      }
    },
    RUNNING,
  );

  test(
    'a guest with a virtual IOMMU that is reset while it uses the drive has it again',
    async () => {
      const [socket, console] = [scratch.file('socket'), scratch.file('console')];
      const errors: unknown[] = [];
      const controller = new NvmeControllerModel({
        backend: createBackend({ kind: 'memory', size: 16 * MIB }),
        serial: 'IOMMU',
      });
      const server = await serve(socket, controller, { onError: (error) => errors.push(error) });
      const refused: MessageTrace[] = [];
      const record = (message: unknown): void => {
        if ((message as MessageTrace).errno !== undefined) refused.push(message as MessageTrace);
      };
      subscribe('vfio-user:reply', record);
      const machine = await QemuMachine.start(
        socket,
        Memory.shared,
        ...['-device', 'intel-iommu,caching-mode=on'],
        ...guestOptions(console, 'intel_iommu=on'),
      );
      try {
        const said = (text: string): number =>
          existsSync(console) ? readFileSync(console, 'latin1').split(text).length - 1 : 0;
        await until(() => said('guest: sha256') === 1, 'the guest reads the drive', RUNNING / 2);
        expect(said('DMAR: IOMMU enabled')).toBe(1);
        await machine.execute('system_reset');
        expect(await machine.ended).toBe(0);
        expect([said('DMAR: IOMMU enabled'), said('guest: sha256')]).toEqual([2, 2]);
        const text = readFileSync(console, 'latin1');
        const second = text.slice(text.lastIndexOf('DMAR: IOMMU enabled'));
        expect(second.match(/^guest: .*/gm)?.map((line) => line.trim())).toEqual(
          expect.arrayContaining(['guest: copied', 'guest: equal']),
        );
        expect(refused).toEqual([]);
        expect([controller.fault, errors]).toEqual([null, []]);
      } finally {
        unsubscribe('vfio-user:reply', record);
        await machine.kill();
        await server.close();
        controller.close();
      }
    },
    RUNNING,
  );

  test(
    'a guest whose memory is not shared: the driver gives up, and the server says why',
    async () => {
      const [socket, console] = [scratch.file('socket'), scratch.file('console')];
      const serving = startCli(scratch, 'serve', 'nvme', '--socket', socket, '--size', '4m');
      await serving.said('Ctrl-C ends it.');
      const machine = await QemuMachine.start(socket, Memory.own, ...guestOptions(console));
      const said = (): string => readFileSync(console, 'latin1');
      try {
        // Linux, drivers/nvme/host/core.c, nvme_wait_ready
        await until(() => said().includes('CSTS=0x2'), 'the driver gives up', RUNNING / 2);
      } finally {
        await machine.kill();
      }
      expect(said()).toContain('Device not ready');
      serving.kill('SIGTERM');
      expect((await serving.ended).stderr).toMatch(/CSTS\.CFS.*share=on/);
    },
    RUNNING,
  );
});
