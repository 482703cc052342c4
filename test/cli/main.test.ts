// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Scratch, cli, failure, startCli } from './run-cli';

const scratch = new Scratch();
afterAll(() => {
  scratch.remove();
});

const COMMANDS = 'the commands are info, bench, serve nvme';

test.each(['--help', '-h'])('%s names the commands on stdout', async (option) => {
  const { stdout, ...rest } = await cli(scratch, option);
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toMatch(/^Usage: vfio-user <command>/);
  for (const command of ['info', 'bench', 'serve nvme']) expect(stdout).toContain(`\n  ${command} `);
  for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(110);
});

test.each(['--version', '-V'])('%s is that of the package', async (option) => {
  const { version } = JSON.parse(readFileSync(join(__dirname, '..', '..', 'package.json'), 'utf8')) as {
    version: string;
  };
  expect(await cli(scratch, option)).toEqual({ status: 0, signal: null, stdout: `${version}\n`, stderr: '' });
});

test.each(['info', 'bench', 'serve nvme'])(
  '%s --help shows its options, and does nothing',
  async (command) => {
    const { stdout, ...rest } = await cli(scratch, ...command.split(' '), '--no-such-option=1', '--help');
    expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
    expect(stdout.startsWith(`Usage: vfio-user ${command} `)).toBe(true);
  },
);

test.each([
  [[], `Missing command; ${COMMANDS}. --help tells more`],
  [['benhc'], "Unknown command 'benhc'; did you mean 'bench'?"],
  [['xyzzy'], `Unknown command 'xyzzy'; ${COMMANDS}`],
  [['serve'], "Unknown command 'serve'; did you mean 'serve nvme'?"],
  [['serve', 'nvm'], "Unknown command 'serve nvm'; did you mean 'serve nvme'?"],
  [['sevre', 'nvme'], "Unknown command 'sevre'; did you mean 'serve nvme'?"],
  [['--json', 'info'], 'Unknown option --json before a command; --help tells more'],
  [
    ['info'],
    "Missing <endpoint>: Path of the device's socket, or SPDK's directory. Usage: vfio-user info <endpoint> [options]",
  ],
  [['info', 'a', 'b'], "Unexpected argument 'b'. Usage: vfio-user info <endpoint> [options]"],
  [['info', 'a', '--jsno'], 'Unknown option --jsno; did you mean --json?'],
  [
    ['bench', '--rw', 'ranread'],
    "Option --rw does not accept 'ranread'; it takes one of read, write, randread, randwrite, randrw; did you mean randread?",
  ],
])('%j is wrong usage', async (args, line) => {
  expect(await cli(scratch, ...args)).toEqual(failure(2, line));
});

test('a reader that closes the pipe is no error', async () => {
  const running = startCli(scratch, '--help');
  running.closeStdout();
  expect(await running.ended).toMatchObject({ status: 0, signal: null, stderr: '' });
});
