// SPDX-License-Identifier: MIT
import { startCli, Scratch, type Running } from '../cli/run-cli';
import { vfioUserDevice } from '../support/qemu-machine';
import { Guest, checksOf, type GuestOptions, type Host } from './guest';

/** A boot takes 5 to 10 s where the processor is emulated, and much more on a busy machine. */
const MINUTES = 60_000;

/** The drive's server and what its guest is to do. */
export interface Scenario extends Omit<GuestOptions, 'options' | 'host'> {
  /** Options of `vfio-user serve nvme`, beside `--socket`. */
  readonly serve?: readonly string[];
  /** Options of QEMU that come before the drive, such as a virtual IOMMU. */
  readonly machine?: readonly string[];
  /** More properties of the device of QEMU; null when the script asks for the drive. */
  readonly drive?: object | null;
  /** What the script may ask for, with the drive that can be plugged. */
  readonly host?: (drive: object) => Host;
}

/** A boot, and a test for each check of its script. */
export function describeGuest(title: string, scenario: Scenario): void {
  describe(title, () => {
    let scratch: Scratch;
    let server: Running;
    let guest: Guest;
    let trouble: string | undefined;

    beforeAll(async () => {
      const { serve = ['--size', '256m'], machine = [], drive = {}, host, ...options } = scenario;
      scratch = new Scratch();
      const socket = scratch.file('socket');
      server = startCli(scratch, 'serve', 'nvme', '--socket', socket, ...serve);
      await server.said('Ctrl-C ends it.');
      const device = vfioUserDevice(socket, { id: 'drive', ...drive });
      guest = new Guest(scratch, {
        ...options,
        options: [...machine, ...(drive === null ? [] : ['-device', JSON.stringify(device)])],
        host: host?.(device) ?? {},
      });
      trouble = await guest.run(5 * MINUTES);
    }, 6 * MINUTES);

    afterAll(async () => {
      await guest.close();
      scratch.remove();
    });

    test.each(checksOf(scenario.script))('%s', (check) => {
      const outcome = guest.outcomes.get(check);
      if (outcome === undefined)
        throw new Error(`the guest did not come to it: ${trouble ?? guest.consoleEnd()}`);
      if (outcome.result === 'failed') throw new Error(outcome.why);
    });

    test('the guest powers off, and its drive was served without a complaint', async () => {
      const lines = guest.boots.map((boot) => `  ${title}: up after ${boot}\n`);
      for (const [check, { result, why }] of guest.outcomes)
        if (result === 'skipped') lines.push(`  ${title}: ${check}: skipped in the guest: ${why}\n`);
      process.stderr.write(lines.join(''));
      expect(trouble).toBeUndefined();
      server.kill('SIGTERM');
      expect(await server.ended).toMatchObject({ status: 0, stderr: '' });
    });
  });
}
