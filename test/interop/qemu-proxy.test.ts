// SPDX-License-Identifier: MIT
/** QEMU with Linux on a device behind a proxy. GuestDrive tells what environment it needs. */
import { readFileSync } from 'node:fs';
import { Scratch, startCli } from '../cli/run-cli';
import { describeWith, whyNoGuest } from '../support/qemu-machine';
import { GuestDrive, endQuietly } from './guest-drive';

const RUNNING = 240_000;

describeWith(whyNoGuest(), 'QEMU with Linux on a proxy', () => {
  let scratch: Scratch;
  beforeEach(() => {
    scratch = new Scratch();
  });
  afterEach(() => {
    scratch.remove();
  });

  /** Has the guest use a drive behind a proxy with these options. */
  async function useDrive(...options: string[]): Promise<void> {
    const [upstream, socket] = [scratch.file('device'), scratch.file('proxy')];
    const drive = await GuestDrive.serve(scratch, upstream);
    const proxy = startCli(scratch, 'serve', 'vfio', upstream, '--socket', socket, ...options);
    await proxy.said('Ctrl-C ends it.');
    await drive.boot(socket);
    await endQuietly(proxy);
    await drive.end();
  }

  test(
    'the guest’s driver reads and writes a drive behind one whose registers are mapped',
    () => useDrive(),
    RUNNING,
  );

  test(
    'the guest’s driver reads and writes a drive behind one that writes down what the guest does',
    async () => {
      const trace = scratch.file('trace');
      await useDrive('--trace', trace);
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
});
