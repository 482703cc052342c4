// SPDX-License-Identifier: MIT
import { parseArgs } from 'node:util';
import type { ParseArgsConfig } from 'node:util';
import { parseCount, parseDuration, parseSize } from '../bench/units';

/** A command line that makes no sense. The message is one line and says what is allowed; the process ends with {@link exitCode}. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  /** Exit status for wrong usage. */
  readonly exitCode = 2;
}

interface OptionBase {
  /** One sentence for `--help`. */
  readonly help: string;
  /** One letter, without the dash. */
  readonly short?: string;
}

interface ValueBase extends OptionBase {
  /** Value when the option is not given, as it would be written on the command line. */
  readonly default?: string;
}

/** An option with any text. */
export interface StringOption extends ValueBase {
  readonly type: 'string';
  /** What the value is, for `--help`: `path`. */
  readonly placeholder?: string;
}

/**
 * An option with a number: `size` in bytes (`4k`), `count` (`10k`), `duration` in seconds (`500ms`),
 * `integer` (decimal, or hexadecimal with `0x`).
 */
export interface NumberOption extends ValueBase {
  readonly type: 'size' | 'count' | 'duration' | 'integer';
  /** Smallest and largest value allowed, in bytes, seconds or units. */
  readonly min?: number;
  readonly max?: number;
}

/** An option with one of a few words. */
export interface ChoiceOption extends ValueBase {
  readonly type: 'choice';
  readonly choices: readonly string[];
}

/** An option that is given or not. */
export interface BooleanOption extends OptionBase {
  readonly type: 'boolean';
}

/** How an option is written and what it accepts. */
export type OptionSpec = StringOption | NumberOption | ChoiceOption | BooleanOption;

/** An argument without a name. Optional ones come last, and the last may come several times. */
export interface PositionalSpec {
  readonly name: string;
  readonly help: string;
  readonly optional?: boolean;
  /** Any number of them; only the last may be so. */
  readonly many?: boolean;
}

/** A command with its arguments and options. Write it `as const satisfies CommandSpec`, so that the values get their types. */
export interface CommandSpec {
  /** As typed after the program's name: `bench`, `nvme id-ctrl`. */
  readonly name: string;
  /** One sentence for `--help`. */
  readonly summary: string;
  readonly positionals?: readonly PositionalSpec[];
  /** By long name, without dashes. `help` is reserved. */
  readonly options: Readonly<Record<string, OptionSpec>>;
}

type RawValue<O extends OptionSpec> = O extends BooleanOption
  ? boolean
  : O extends ChoiceOption
    ? O['choices'][number]
    : O extends NumberOption
      ? number
      : string;

type Value<O extends OptionSpec> = O extends BooleanOption
  ? boolean
  : O extends { readonly default: string }
    ? RawValue<O>
    : RawValue<O> | undefined;

/** The values of a command's options by long name. Options without default that were not given are undefined, booleans false. */
export type OptionValues<C extends CommandSpec> = { [K in keyof C['options']]: Value<C['options'][K]> };

/** What {@link parseCommandLine} returns: either a wish for help, or the values. */
export type CommandLine<C extends CommandSpec> =
  | { readonly help: true }
  | {
      readonly help: false;
      readonly options: OptionValues<C>;
      /** As many as were given, at least those that are not optional. */
      readonly positionals: readonly string[];
    };

const PROGRAM = 'vfio-user';
const HELP_OPTION: BooleanOption = { type: 'boolean', short: 'h', help: 'Show this text.' };
const HELP_WIDTH = 100;

/**
 * Reads the arguments of a command. Options may stand anywhere, as `--bs 4k`, `--bs=4k` or by their letter; the last of several wins; after `--` everything is
 * positional. `--help` and `-h` are understood by every command and make everything else irrelevant.
 *
 * @param args the arguments after the command's name
 * @throws UsageError
 */
export function parseCommandLine<const C extends CommandSpec>(
  command: C,
  args: readonly string[],
): CommandLine<C> {
  const specs: Record<string, OptionSpec> = { ...command.options, help: HELP_OPTION };
  const config: NonNullable<ParseArgsConfig['options']> = {};
  for (const [name, spec] of Object.entries(specs)) {
    config[name] = {
      type: spec.type === 'boolean' ? 'boolean' : 'string',
      ...(spec.short === undefined ? {} : { short: spec.short }),
    };
  }
  // Not strict: the tokens are checked here, for messages that name what is allowed.
  const { tokens } = parseArgs({
    args: [...args],
    options: config,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  if (tokens.some((token) => token.kind === 'option' && token.name === 'help')) return { help: true };

  const given = new Map<string, string | true>();
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value);
    if (token.kind === 'option') {
      given.set(token.name, optionText(specs, token.name, token.rawName, token.value, token.inlineValue));
    }
  }
  checkPositionals(command, positionals);
  const options = Object.fromEntries(
    Object.entries(command.options).map(([name, spec]) => [name, optionValue(name, spec, given.get(name))]),
  ) as OptionValues<C>;
  return { help: false, options, positionals };
}

function optionText(
  specs: Readonly<Record<string, OptionSpec>>,
  name: string,
  rawName: string,
  value: string | undefined,
  inline: boolean | undefined,
): string | true {
  const spec = Object.hasOwn(specs, name) ? specs[name] : undefined;
  if (spec === undefined) {
    const guess = rawName.startsWith('--') ? closest(name, Object.keys(specs)) : undefined;
    throw new UsageError(
      `Unknown option ${rawName}${guess === undefined ? '; --help lists the options' : `; did you mean --${guess}?`}`,
    );
  }
  if (spec.type === 'boolean') {
    if (value !== undefined)
      throw new UsageError(`Option ${rawName} takes no value, but was given '${value}'`);
    return true;
  }
  const looksLikeOption = inline !== true && value !== undefined && /^-./.test(value);
  if (value === undefined || looksLikeOption) {
    const found = value === undefined ? '' : ` (write --${name}=${value} if that is the value)`;
    throw new UsageError(`Option ${rawName} needs a value: ${allowed(spec)}${found}`);
  }
  return value;
}

function optionValue(
  name: string,
  spec: OptionSpec,
  given: string | true | undefined,
): string | number | boolean | undefined {
  if (spec.type === 'boolean') return given === true;
  const text = typeof given === 'string' ? given : spec.default;
  if (text === undefined || spec.type === 'string') return text;
  if (spec.type === 'choice') {
    if (spec.choices.includes(text)) return text;
    const guess = closest(text, spec.choices);
    throw badValue(name, text, `${allowed(spec)}${guess === undefined ? '' : `; did you mean ${guess}?`}`);
  }
  const number = parseNumber(spec, text);
  if (Number.isNaN(number) || number < (spec.min ?? -Infinity) || number > (spec.max ?? Infinity)) {
    throw badValue(name, text, allowed(spec));
  }
  return number;
}

function badValue(name: string, text: string, expected: string): UsageError {
  return new UsageError(`Option --${name} does not accept '${text}'; it takes ${expected}`);
}

/** NaN when the text is not a number of the kind. */
function parseNumber(spec: NumberOption, text: string): number {
  try {
    if (spec.type === 'size') return parseSize(text);
    if (spec.type === 'count') return parseCount(text);
    if (spec.type === 'duration') return parseDuration(text);
  } catch {
    return NaN;
  }
  const number = /^(-?\d+|0x[\da-f]+)$/i.test(text) ? Number(text) : NaN;
  return Number.isSafeInteger(number) ? number : NaN;
}

function allowed(spec: Exclude<OptionSpec, BooleanOption>): string {
  switch (spec.type) {
    case 'string':
      return `<${spec.placeholder ?? 'text'}>`;
    case 'choice':
      return `one of ${spec.choices.join(', ')}`;
    case 'size':
      return `a size such as 512, 4k or 1m${range(spec, ' bytes')}`;
    case 'count':
      return `a whole number such as 32 or 10k${range(spec, '')}`;
    case 'duration':
      return `a duration such as 5, 500ms or 2m${range(spec, ' s')}`;
    case 'integer':
      return `a whole number${range(spec, '')}`;
  }
}

function range({ min, max }: NumberOption, unit: string): string {
  if (min !== undefined && max !== undefined) return `, from ${min} to ${max}${unit}`;
  if (min !== undefined) return `, at least ${min}${unit}`;
  return max === undefined ? '' : `, at most ${max}${unit}`;
}

function checkPositionals(command: CommandSpec, found: readonly string[]): void {
  const specs = command.positionals ?? [];
  const missing = specs.find((spec, index) => index >= found.length && spec.optional !== true);
  if (missing !== undefined) {
    throw new UsageError(`Missing <${missing.name}>: ${missing.help} Usage: ${usage(command)}`);
  }
  if (specs.at(-1)?.many === true) return;
  const surplus = found[specs.length];
  if (surplus !== undefined) {
    throw new UsageError(`Unexpected argument '${surplus}'. Usage: ${usage(command)}`);
  }
}

/** The text that `--help` prints for a command, at most 100 columns wide; ends in a line feed. */
export function renderHelp(command: CommandSpec): string {
  const rows: [string, string][] = Object.entries({ ...command.options, help: HELP_OPTION }).map(
    ([name, spec]) => [
      `${spec.short === undefined ? '    ' : `-${spec.short}, `}--${name}${placeholder(spec)}`,
      optionHelp(spec),
    ],
  );
  const positionals = command.positionals ?? [];
  return [
    `Usage: ${usage(command)}`,
    '',
    ...wrapText(command.summary, HELP_WIDTH),
    ...(positionals.length === 0
      ? []
      : ['', 'Arguments:', ...columns(positionals.map(({ name, help }) => [`<${name}>`, help]))]),
    '',
    'Options:',
    ...columns(rows),
    '',
  ].join('\n');
}

function usage(command: CommandSpec): string {
  const positionals = (command.positionals ?? []).map(({ name, optional, many }) => {
    const text = many === true ? `${name}...` : name;
    return optional === true ? `[${text}]` : `<${text}>`;
  });
  return [PROGRAM, command.name, ...positionals, '[options]'].join(' ');
}

function placeholder(spec: OptionSpec): string {
  if (spec.type === 'boolean') return '';
  if (spec.type === 'string') return ` <${spec.placeholder ?? 'text'}>`;
  return spec.type === 'choice' ? ' <word>' : ` <${spec.type}>`;
}

function optionHelp(spec: OptionSpec): string {
  if (spec.type === 'boolean') return spec.help;
  const choices = spec.type === 'choice' ? ` One of ${spec.choices.join(', ')}.` : '';
  const fallback = spec.default === undefined ? '' : ` Default: ${spec.default}.`;
  return `${spec.help}${choices}${fallback}`;
}

function columns(rows: readonly (readonly [string, string])[]): string[] {
  const left = Math.max(...rows.map(([head]) => head.length)) + 4;
  return rows.flatMap(([head, text]) =>
    wrapText(text, HELP_WIDTH - left).map(
      (line, index) => (index === 0 ? `  ${head}` : '').padEnd(left) + line,
    ),
  );
}

function wrapText(text: string, width: number): string[] {
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

/** The candidate that a mistyped word most likely meant: at most a third of it, and two letters at most, are wrong. */
export function closest(word: string, candidates: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.min(2, Math.max(1, Math.floor(word.length / 3))) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(word, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

/**
 * Letters to insert, delete, replace, or swap with their neighbour, to turn one word into the other.
 *
 * @internal Exported for its test.
 */
export function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const same = from[row - 1] === to[column - 1];
      const at = (line: readonly number[], index: number): number => line[index] ?? Infinity;
      let distance = Math.min(
        at(last, column) + 1,
        at(current, column - 1) + 1,
        at(last, column - 1) + (same ? 0 : 1),
      );
      if (row > 1 && column > 1 && from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1]) {
        distance = Math.min(distance, at(beforeLast, column - 2) + 1);
      }
      current.push(distance);
    }
    beforeLast = last;
    last = current;
  }
  return last[to.length] as number;
}
