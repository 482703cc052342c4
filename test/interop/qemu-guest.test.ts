// SPDX-License-Identifier: MIT
/** QEMU with Linux as the client of our server. GuestDrive tells what environment it needs. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { existsSync, readFileSync } from 'node:fs';
import { createBackend } from '../../lib/nvme/backends';
import { NvmeControllerModel } from '../../lib/nvme/controller';
import { serve } from '../../lib/server';
import type { MessageTrace } from '../../lib/transport/trace';
import { until } from '../client/support';
import { startCli, Scratch } from '../cli/run-cli';
import { Memory, QemuMachine, describeWith, guestOptions, whyNoGuest } from '../support/qemu-machine';
import { GuestDrive } from './guest-drive';

const MIB = 2 ** 20;
const RUNNING = 120_000;

describeWith(whyNoGuest(), 'QEMU with Linux', () => {
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
      const drive = await GuestDrive.serve(scratch, scratch.file('socket'));
      await drive.boot(drive.socket);
      await drive.end();
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
