// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Scratch, cli, failure, startCli } from './run-cli';

const scratch = new Scratch();
afterAll(() => {
  scratch.remove();
});

const COMMANDS =
  'the commands are info, bench, report, serve nvme, serve vfio, control, devices, bind, unbind, completion, help';

test.each(['--help', '-h'])('%s names the commands on stdout', async (option) => {
  const { stdout, ...rest } = await cli(scratch, option);
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout).toMatch(/^Usage: vfio-user <command>/);
  for (const command of ['info', 'bench', 'report', 'serve nvme', 'completion', 'help'])
    expect(stdout).toContain(`\n  ${command} `);
  for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(110);
});

test.each(['--version', '-V'])('%s is that of the package', async (option) => {
  const { version } = JSON.parse(readFileSync(join(__dirname, '..', '..', 'package.json'), 'utf8')) as {
    version: string;
  };
  expect(await cli(scratch, option)).toEqual({ status: 0, signal: null, stdout: `${version}\n`, stderr: '' });
});

test.each([
  'info',
  'bench',
  'report',
  'serve nvme',
  'control',
  'devices',
  'bind',
  'unbind',
  'completion',
  'help',
])('%s --help shows its options, and does nothing', async (command) => {
  const { stdout, ...rest } = await cli(scratch, ...command.split(' '), '--no-such-option=1', '--help');
  expect(rest).toEqual({ status: 0, signal: null, stderr: '' });
  expect(stdout.startsWith(`Usage: vfio-user ${command} `)).toBe(true);
});

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
    "Missing <endpoint>: Path of the device's socket, or SPDK's directory; the PCI address of a device bound to vfio-pci; or the UUID of a mediated device. Usage: vfio-user info <endpoint> [options]",
  ],
  [['info', 'a', 'b'], "Unexpected argument 'b'. Usage: vfio-user info <endpoint> [options]"],
  [['info', 'a', '--jsno'], 'Unknown option --jsno; did you mean --json?'],
  [
    ['bench', '--rw', 'ranread'],
    "Option --rw does not accept 'ranread'; it takes one of read, write, trim, rw, trimwrite, randread, randwrite, randtrim, randrw, randtrimwrite, readwrite; did you mean randread?",
  ],
])('%j is wrong usage', async (args, line) => {
  expect(await cli(scratch, ...args)).toEqual(failure(2, line));
});

test('help COMMAND is COMMAND --help, and of serve that of both commands that begin so', async () => {
  for (const command of ['bench', 'serve nvme', 'serve vfio']) {
    const asked = await cli(scratch, 'help', ...command.split(' '));
    expect(asked).toEqual(await cli(scratch, ...command.split(' '), '--help'));
  }
  const both = await cli(scratch, 'serve', '--help');
  for (const command of ['serve nvme', 'serve vfio'])
    expect(both.stdout).toContain(`Usage: vfio-user ${command} `);
  expect(await cli(scratch, 'help', 'serve')).toEqual(both);
  expect(await cli(scratch, 'help')).toEqual(await cli(scratch, '--help'));
  expect(await cli(scratch, 'help', 'serve', 'nvm')).toEqual(
    failure(2, "Unknown command 'serve nvm'; did you mean 'serve nvme'?"),
  );
  expect(await cli(scratch, 'help', 'benhc')).toEqual(
    failure(2, "Unknown command 'benhc'; did you mean 'bench'?"),
  );
  expect(await cli(scratch, 'help', 'bench', '--man')).toEqual(
    failure(2, '--man prints the manual page of all commands; leave out the command'),
  );
  expect(await cli(scratch, 'completion', 'tcsh')).toEqual(
    failure(2, "There is no completion for 'tcsh'; there is one for bash, zsh, fish"),
  );
});

test('a reader that closes the pipe is no error', async () => {
  const running = startCli(scratch, '--help');
  running.closeStdout();
  expect(await running.ended).toMatchObject({ status: 0, signal: null, stderr: '' });
});
