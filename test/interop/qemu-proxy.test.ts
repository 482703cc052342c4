// SPDX-License-Identifier: MIT
/** QEMU with Linux on a device behind a proxy. The environment is that of qemu.test.ts. */
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { Scratch, startCli } from '../cli/run-cli';
import { Memory, QemuMachine, guestOptions, whyNoGuest } from '../support/qemu-machine';

const MIB = 2 ** 20;
const RUNNING = 240_000;
const noGuest = whyNoGuest();

(noGuest === undefined ? describe : describe.skip)(
  `QEMU with Linux on a proxy${noGuest === undefined ? '' : `: skipped, ${noGuest}`}`,
  () => {
    let scratch: Scratch;
    beforeEach(() => {
      scratch = new Scratch();
    });
    afterEach(() => {
      scratch.remove();
    });

    test.each([
      ['whose registers are mapped', []],
      ['that writes down what the guest does', ['--trace', 'trace']],
    ])(
      'the guest’s driver reads and writes a drive behind one %s',
      async (_, more) => {
        const [upstream, socket, console] = [
          scratch.file('device'),
          scratch.file('proxy'),
          scratch.file('console'),
        ];
        const [file, trace] = [scratch.file('data'), scratch.file('trace')];
        const data = randomBytes(4 * MIB);
        writeFileSync(file, data);
        const device = startCli(
          scratch,
          'serve',
          'nvme',
          '--socket',
          upstream,
          '--backend',
          'file',
          '--file',
          file,
        );
        await device.said('Ctrl-C ends it.');
        const options = more.map((word) => (word === 'trace' ? trace : word));
        const proxy = startCli(scratch, 'serve', 'vfio', upstream, '--socket', socket, ...options);
        await proxy.said('Ctrl-C ends it.');
        const machine = await QemuMachine.start(socket, Memory.shared, ...guestOptions(console));
        expect(await machine.ended).toBe(0);
        const said = readFileSync(console, 'latin1');
        const sha256 = createHash('sha256').update(data.subarray(0, MIB)).digest('hex');
        for (const line of [`guest: sha256 ${sha256}`, 'guest: copied', 'guest: equal'])
          expect(said).toContain(line);
        for (const each of [proxy, device]) {
          each.kill('SIGTERM');
          expect(await each.ended).toMatchObject({ status: 0, stderr: '' });
        }
        data.copyWithin(MIB, 0, MIB);
        expect(readFileSync(file).equals(data)).toBe(true);
        if (more.length === 0) return;
        const steps = readFileSync(trace, 'utf8');
        for (const step of [
          / write {2}bar0 0x1000\+4 /,
          / irqs {3}msix .*by eventfd/,
          / signal msix 0\n/,
          / map {4}0x0\+/,
        ])
          expect(steps).toMatch(step);
      },
      RUNNING,
    );
  },
);
