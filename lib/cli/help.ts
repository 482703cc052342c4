// SPDX-License-Identifier: MIT
import { HELP_OPTION, type CommandSpec, type OptionSpec, type OptionTable } from './option-spec';
import { bold, type Style } from './style';

/** Name of the program. */
export const PROGRAM = 'vfio-user';
/** Widest text of help, in columns. */
const MOST_COLUMNS = 100;
/** Heading of options that are in no group. */
const DEFAULT_GROUP = 'Options';
/** From this width of the names on, the text of an option begins below its name. */
const WIDEST_NAMES = 34;

/** The text that `--help` prints for a command, at most `columns` and 100 columns wide; ends in a line feed. */
export function renderHelp(command: CommandSpec, columns = MOST_COLUMNS, style?: Style): string {
  const width = Math.max(40, Math.min(columns, MOST_COLUMNS));
  const heading = (text: string): string => bold(`${text}:`, style);
  const positionals = command.positionals ?? [];
  const groups = optionGroups({ ...command.options, help: HELP_OPTION });
  const dashed = Object.keys(command.options).some((name) => name.includes('_'));
  return [
    ...wrapText(`${heading('Usage')} ${usage(command)}`, width),
    '',
    ...wrapText(command.summary, width),
    ...(positionals.length === 0
      ? []
      : [
          '',
          heading('Arguments'),
          ...rows(
            positionals.map(({ name, help }) => [`<${name}>`, help]),
            width,
          ),
        ]),
    ...groups.flatMap(([title, options]) => [
      '',
      heading(title),
      ...rows(
        options.map(([name, spec]) => [optionHead(name, spec), optionHelp(spec)]),
        width,
      ),
    ]),
    ...(dashed ? ['', ...wrapText('Underscores in names of options may be written as dashes.', width)] : []),
    ...(command.examples === undefined
      ? []
      : [
          '',
          heading('Examples'),
          ...command.examples.flatMap(([line, what]) => [
            ...wrapText(what, width - 4).map((text) => `  # ${text}`),
            `  ${PROGRAM} ${line}`,
          ]),
        ]),
    '',
  ].join('\n');
}

/** The options by the headings of their groups, in the order of the table. */
export function optionGroups(
  table: OptionTable,
): (readonly [title: string, options: readonly (readonly [name: string, spec: OptionSpec])[]])[] {
  const groups = new Map<string, [string, OptionSpec][]>();
  for (const [name, spec] of Object.entries(table)) {
    const title = spec.group ?? DEFAULT_GROUP;
    const group = groups.get(title) ?? [];
    group.push([name, spec]);
    groups.set(title, group);
  }
  return [...groups];
}

/** How a command is typed: `vfio-user info <endpoint> [options]`. */
export function usage(command: CommandSpec): string {
  const positionals = (command.positionals ?? []).map(({ name, optional, many }) => {
    const text = many === true ? `${name}...` : name;
    return optional === true ? `[${text}]` : `<${text}>`;
  });
  return [PROGRAM, command.name, ...positionals, '[options]'].join(' ');
}

/** An option with its value: `--bs <size>`. */
export function optionWithValue(name: string, spec: OptionSpec): string {
  return `--${name}${placeholder(spec)}`;
}

function optionHead(name: string, spec: OptionSpec): string {
  return `${spec.short === undefined ? '    ' : `-${spec.short}, `}${optionWithValue(name, spec)}`;
}

function placeholder(spec: OptionSpec): string {
  switch (spec.type) {
    case 'boolean':
      return '';
    case 'string':
    case 'form':
      return ` <${spec.placeholder ?? 'text'}>`;
    case 'choice':
      return ' <word>';
    case 'size':
    case 'count':
    case 'duration':
    case 'number':
    case 'integer':
      return ` <${spec.type}>`;
  }
}

/** What an option is for, what it accepts, and its default. */
export function optionHelp(spec: OptionSpec): string {
  const choices = spec.type === 'choice' ? ` One of ${spec.choices.join(', ')}.` : '';
  const fallback = spec.default === undefined || spec.type === 'boolean' ? '' : ` Default: ${spec.default}.`;
  const also =
    spec.aliases === undefined ? '' : ` Also ${spec.aliases.map((name) => `--${name}`).join(', ')}.`;
  const many = spec.type === 'string' && spec.many === true ? ' May be given several times.' : '';
  return `${spec.help}${choices}${fallback}${many}${also}`;
}

/** A list with names on the left. Where names are wide and the terminal is not, the text stands below them. */
function rows(list: readonly (readonly [string, string])[], width: number): string[] {
  const left = Math.max(...list.map(([head]) => head.length)) + 4;
  if (left > WIDEST_NAMES && left > width / 2)
    return list.flatMap(([head, text]) => [
      `  ${head}`,
      ...wrapText(text, width - 10).map((line) => `          ${line}`),
    ]);
  return list.flatMap(([head, text]) =>
    wrapText(text, width - left).map((line, index) => (index === 0 ? `  ${head}` : '').padEnd(left) + line),
  );
}

/** A text in lines of at most so many characters, words permitting. */
export function wrapText(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}
