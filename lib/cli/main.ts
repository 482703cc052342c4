#!/usr/bin/env node
// SPDX-License-Identifier: MIT
import { bench } from './bench';
import { bind, unbind } from './bind';
import { control } from './control';
import { closest } from '../closest';
import { printHelp, type Command } from './command';
import { devices } from './devices';
import { reportFailure } from './failure';
import { PROGRAM, wrapText } from './help';
import { helpCommands } from './help-command';
import { info } from './info';
import { UsageError } from './option-spec';
import { ignoreClosedPipe, print } from './output';
import { EXIT_CODES } from './reference';
import { report } from './report';
import { serveNvme } from './serve';
import { serveVfio } from './serve-vfio';
import { bold, columnsOf, styleOf } from './style';
import { packageVersion } from './version';

const DOING: readonly Command[] = [info, bench, report, serveNvme, serveVfio, control, devices, bind, unbind];
const COMMANDS: readonly Command[] = [...DOING, ...helpCommands(DOING, overview, helpOf)];

/** What the program is, its commands, and what its exit status means. */
function overview(): void {
  const width = Math.max(40, Math.min(columnsOf(process.stdout) ?? 100, 100));
  const heading = (text: string): string => bold(`${text}:`, styleOf(process.stdout));
  const list = (rows: readonly (readonly [string, string])[]): string[] => {
    const left = Math.max(...rows.map(([head]) => head.length)) + 4;
    return rows.flatMap(([head, text]) =>
      wrapText(text, width - left).map((line, index) => (index === 0 ? `  ${head}` : '').padEnd(left) + line),
    );
  };
  print(
    [
      `${heading('Usage')} ${PROGRAM} <command> [arguments]`,
      '',
      ...wrapText(
        'Drive, serve and benchmark PCI devices that live in another process, over the vfio-user protocol, or in this machine, through the kernel.',
        width,
      ),
      '',
      heading('Commands'),
      ...list(COMMANDS.map(({ spec: { name, summary } }) => [name, summary])),
      '',
      heading('Options'),
      ...list([
        ['-h, --help', 'Show this text; after a command, its arguments.'],
        ['-V, --version', 'Show the version.'],
      ]),
      '',
      ...wrapText(
        `An endpoint is the path of a device's socket, SPDK's directory with a socket "cntrl", @name for an abstract socket, the PCI address of a device bound to vfio-pci, or the UUID of a mediated device. Try it without any device: ${PROGRAM} bench --demo`,
        width,
      ),
      '',
      heading('Exit status'),
      ...list(EXIT_CODES),
      '',
    ].join('\n'),
  );
}

async function main(args: readonly string[]): Promise<void> {
  const [first, second] = args;
  if (first === undefined) throw new UsageError(`Missing command; ${names()}. --help tells more`);
  if (first === '--help' || first === '-h') {
    overview();
  } else if (first === '--version' || first === '-V') {
    print(packageVersion());
  } else {
    // `serve --help` asks for all commands that begin so.
    if (begunBy(first).length > 0 && (second === '--help' || second === '-h')) {
      for (const { spec } of begunBy(first)) printHelp(spec);
      return;
    }
    const command = find(args);
    await command.run(args.slice(command.spec.name.split(' ').length));
  }
}

/** The commands of several words of which this is the first: those of `serve`. */
function begunBy(first: string): readonly Command[] {
  return COMMANDS.filter(({ spec: { name } }) => name.startsWith(`${first} `));
}

/** The commands that somebody wants to read about: the one that the words name, or all that begin with the only word. */
function helpOf(words: readonly string[]): readonly Command[] {
  const [first = '', second] = words;
  const begun = second === undefined ? begunBy(first) : [];
  return begun.length > 0 ? begun : [find(words)];
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
  const [begun] = begunBy(first);
  const typed = begun === undefined ? first : `${first} ${second}`.trim();
  const all = COMMANDS.map(({ spec: { name } }) => name);
  const guess = begun?.spec.name ?? closest(typed, all) ?? closest(`${first} ${second}`, all);
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
