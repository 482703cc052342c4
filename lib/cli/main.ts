#!/usr/bin/env node
// SPDX-License-Identifier: MIT
import { bench } from './bench';
import type { Command } from './command';
import { reportFailure } from './failure';
import { info } from './info';
import { closest } from './closest';
import { UsageError } from './option-spec';
import { ignoreClosedPipe, print } from './output';
import { serveNvme } from './serve';
import { packageVersion } from './version';

const COMMANDS: readonly Command[] = [info, bench, serveNvme];

const HELP = `Usage: vfio-user <command> [arguments]

Drive, serve and benchmark PCI devices that live in another process, over the vfio-user protocol.

Commands:
${COMMANDS.map(({ spec: { name, summary } }) => `  ${name.padEnd(10)}  ${summary}`).join('\n')}

Options:
  -h, --help     Show this text; after a command, its arguments.
  -V, --version  Show the version.

An endpoint is the path of a device's socket, SPDK's directory with a socket "cntrl", or @name for an
abstract socket. Try it without any device: vfio-user bench --demo

Exit status: 0 fine, 1 the device failed or data differs, 2 wrong usage, 3 the endpoint cannot be
reached, is busy, or does not answer, 4 a benchmark was interrupted, and its report is partial.
`;

async function main(args: readonly string[]): Promise<void> {
  const [first] = args;
  if (first === undefined) throw new UsageError(`Missing command; ${names()}. --help tells more`);
  if (first === '--help' || first === '-h') {
    print(HELP);
  } else if (first === '--version' || first === '-V') {
    print(packageVersion());
  } else {
    const command = find(args);
    await command.run(args.slice(command.spec.name.split(' ').length));
  }
}

/** The command that the first words name. */
function find(args: readonly string[]): Command {
  const named = COMMANDS.find(({ spec: { name } }) =>
    name.split(' ').every((word, index) => args[index] === word),
  );
  if (named !== undefined) return named;
  const [first = '', second = ''] = args;
  if (first.startsWith('-'))
    throw new UsageError(`Unknown option ${first} before a command; --help tells more`);
  const typed = COMMANDS.some(({ spec: { name } }) => name.startsWith(`${first} `))
    ? `${first} ${second}`.trim()
    : first;
  const guess =
    COMMANDS.find(({ spec: { name } }) => name.startsWith(`${first} `))?.spec.name ??
    closest(
      typed,
      COMMANDS.map(({ spec: { name } }) => name),
    ) ??
    closest(
      `${first} ${second}`,
      COMMANDS.map(({ spec: { name } }) => name),
    );
  throw new UsageError(
    `Unknown command '${typed}'; ${guess === undefined ? names() : `did you mean '${guess}'?`}`,
  );
}

function names(): string {
  return `the commands are ${COMMANDS.map(({ spec: { name } }) => name).join(', ')}`;
}

ignoreClosedPipe(process.stdout);
ignoreClosedPipe(process.stderr);
// What a callback throws has nobody else to tell. Handlers of the exit shut down what is in use.
process.on('uncaughtException', (error) => {
  reportFailure(error);
  process.exit();
});
main(process.argv.slice(2)).catch(reportFailure);
