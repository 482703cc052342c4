// SPDX-License-Identifier: MIT
import { cli, startCli, Scratch, type Running } from '../cli/run-cli';
import { vfioUserDevice } from '../support/qemu-machine';
import { Guest, checksOf, type GuestOptions, type Host } from './guest';

/** For a guest that goes on for ever and is not silent; `Guest` sees to one that hangs. */
const LAST_RESORT = 30 * 60_000;

/** The drive's server and what its guest is to do. */
export interface Scenario extends Omit<GuestOptions, 'options' | 'host'> {
  /** Options of `vfio-user serve nvme`, beside `--socket`. */
  readonly serve?: readonly string[];
  /** Options of QEMU that come before the drive, such as a virtual IOMMU. */
  readonly machine?: readonly string[];
  /** More properties of the device of QEMU; null when the script asks for the drive. */
  readonly drive?: object | null;
  /** What the script may ask for. */
  readonly host?: (drive: ServedDrive) => Host;
}

/** The drive on the side of the host. */
export interface ServedDrive {
  /** As QEMU is told of it. */
  readonly device: object;
  /** Gives its server a command, as `vfio-user control` does. */
  readonly control: (...words: string[]) => Promise<void>;
}

/** A boot, and a test for each check of its script, which takes as long as the check does. */
export function describeGuest(title: string, scenario: Scenario): void {
  describe(title, () => {
    const skipped: string[] = [];
    let scratch: Scratch;
    let server: Running;
    let guest: Guest;

    beforeAll(async () => {
      const { serve = ['--size', '256m'], machine = [], drive = {}, host, ...options } = scenario;
      scratch = new Scratch();
      const [socket, commands] = [scratch.file('socket'), scratch.file('control')];
      server = startCli(scratch, 'serve', 'nvme', '--socket', socket, '--control', commands, ...serve);
      await server.said('Ctrl-C ends it.');
      const device = vfioUserDevice(socket, { id: 'drive', ...drive });
      const control = async (...words: string[]): Promise<void> => {
        const { status, stderr } = await cli(scratch, 'control', commands, ...words);
        if (status !== 0) throw new Error(stderr);
      };
      guest = new Guest(scratch, {
        ...options,
        options: [...machine, ...(drive === null ? [] : ['-device', JSON.stringify(device)])],
        host: host?.({ device, control }) ?? {},
      });
      await guest.start();
    });

    afterAll(async () => {
      await guest.close();
      scratch.remove();
    });

    test.each(checksOf(scenario.script))(
      '%s',
      async (check) => {
        const { result, why } = await guest.outcome(check);
        if (result === 'failed') throw new Error(why);
        if (result === 'skipped') skipped.push(`  ${title}: ${check}: skipped in the guest: ${why}\n`);
      },
      LAST_RESORT,
    );

    test(
      'the guest powers off, and its drive was served without a complaint',
      async () => {
        await guest.off();
        const boots = guest.boots.map((boot) => `  ${title}: up after ${boot}\n`);
        const notes = guest.notes.map((note) => `  ${title}: ${note}\n`);
        process.stderr.write([...boots, ...skipped, ...notes].join(''));
        server.kill('SIGTERM');
        expect(await server.ended).toMatchObject({ status: 0, stderr: '' });
      },
      LAST_RESORT,
    );
  });
}
