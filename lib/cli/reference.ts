// SPDX-License-Identifier: MIT
/** The same tables as `--help`, for other readers: a manual page, and the tables of docs/cli.md. */
import { PROGRAM, optionGroups, optionHelp, optionWithValue, usage } from './help';
import { type CommandSpec, type OptionSpec } from './option-spec';

/** What the exit status of the tool means. */
export const EXIT_CODES: readonly (readonly [code: string, meaning: string])[] = [
  ['0', 'fine'],
  ['1', 'the device failed, an NVMe command failed, or data read back differ'],
  ['2', 'wrong usage: an option, a size, a path to a file'],
  ['3', 'the endpoint cannot be reached, is busy, broke the protocol, or does not answer'],
  ['4', 'a benchmark was interrupted; its report has what was measured until then'],
  ['128 + n', 'signal n ended the command before there was anything to tell'],
];

/** The options of a command as a table of Markdown, for docs/cli.md. @internal Exported for its test. */
export function optionTable({ options }: CommandSpec): string {
  const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('<', '\\<');
  const rows = optionGroups(options).flatMap(([title, group], index) => [
    ...(index === 0 && title === 'Options' ? [] : [`| **${cell(title)}** | | |`]),
    ...group.map(
      ([name, spec]) =>
        `| \`${optionWithValue(name, spec)}\` | ${cell(range(spec))} | ${cell(optionHelp(spec))} |`,
    ),
  ]);
  return ['| option | range | meaning |', '| --- | --- | --- |', ...rows].join('\n');
}

function range(spec: OptionSpec): string {
  if (spec.type === 'boolean' || spec.type === 'string' || spec.type === 'form' || spec.type === 'choice')
    return '';
  const unit = spec.type === 'size' ? ' bytes' : spec.type === 'duration' ? ' s' : '';
  const { min, max } = spec;
  if (min === undefined) return max === undefined ? '' : `up to ${max}${unit}`;
  return max === undefined ? `from ${min}${unit}` : `${min} to ${max}${unit}`;
}

/** A manual page for all commands, in the language of man(7). */
export function manualPage(specs: readonly CommandSpec[]): string {
  const list = (entries: readonly (readonly [head: string, text: string])[]): string[] =>
    entries.flatMap(([head, text]) => ['.TP', `.B ${roff(head)}`, roff(text)]);
  return [
    `.TH VFIO\\-USER 1 "" "${PROGRAM}" "User Commands"`,
    '.SH NAME',
    `vfio\\-user \\- drive, serve and benchmark PCI devices that live in another process`,
    '.SH SYNOPSIS',
    ...specs.flatMap((spec) => [`.B ${roff(usage(spec))}`, '.br']),
    '.SH DESCRIPTION',
    roff(
      'Devices are reached over the vfio-user protocol. An endpoint is the path of a device’s socket, SPDK’s directory with a socket cntrl, @name for an abstract socket, the PCI address of a device of this machine that is bound to vfio-pci, or the UUID of a mediated device.',
    ),
    ...specs.flatMap((spec) => [
      `.SH ${roff(spec.name.toUpperCase())}`,
      roff(spec.summary),
      ...list((spec.positionals ?? []).map(({ name, help }) => [`<${name}>`, help])),
      ...optionGroups(spec.options).flatMap(([title, options]) => [
        `.SS ${roff(title)}`,
        ...list(options.map(([name, option]) => [optionWithValue(name, option), optionHelp(option)])),
      ]),
      ...(spec.examples === undefined
        ? []
        : [
            '.SS Examples',
            ...spec.examples.flatMap(([line, what]) => [
              '.PP',
              roff(what),
              '.PP',
              `.B ${roff(`${PROGRAM} ${line}`)}`,
            ]),
          ]),
    ]),
    '.SH EXIT STATUS',
    ...list(EXIT_CODES),
    '.SH ENVIRONMENT',
    ...list([
      [
        'NODE_DEBUG',
        'With vfio-user, errors have their stack, and every message of the protocol is printed.',
      ],
      ['NO_COLOR', 'If it is not empty, nothing is shown in colours.'],
      ['COLUMNS', 'Width of reports and help where the output is not a terminal.'],
    ]),
    '.SH SEE ALSO',
    '.BR fio (1)',
    '',
  ].join('\n');
}

/** Text as man(7) takes it: no line begins with a control character, and dashes and backslashes are themselves. */
function roff(text: string): string {
  const escaped = text.replaceAll('\\', '\\e').replaceAll('-', '\\-').replaceAll('’', "'");
  return /^[.']/.test(escaped) ? `\\&${escaped}` : escaped;
}
