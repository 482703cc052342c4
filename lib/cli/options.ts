// SPDX-License-Identifier: MIT
import { parseArgs } from 'node:util';
import type { ParseArgsConfig } from 'node:util';
import { closest } from '../closest';
import {
  HELP_OPTION,
  UsageError,
  canonical,
  optionNames,
  type CommandSpec,
  type OptionSpec,
  type OptionTable,
  type OptionValues,
} from './option-spec';
import { allowed, readOption } from './option-value';
import { usage } from './help';

/** What {@link parseCommandLine} returns: either a wish for help, or the values. */
export type CommandLine<C extends CommandSpec> =
  | { readonly help: true }
  | {
      readonly help: false;
      readonly options: OptionValues<C>;
      /** The texts of the options that were given, by name; true for a flag that stands alone. */
      readonly given: ReadonlyMap<string, string | true>;
      /** As many as were given, at least those that are not optional. */
      readonly positionals: readonly string[];
    };

/**
 * Reads the arguments of a command. Options may stand anywhere, as `--bs 4k`, `--bs=4k` or by their letter, each once unless its
 * declaration has `many`; in their names dashes and underscores are the same; after `--` everything is positional. `--help` and `-h` are understood by every
 * command and make everything else irrelevant.
 *
 * @param args the arguments after the command's name
 * @throws UsageError
 */
export function parseCommandLine<const C extends CommandSpec>(
  command: C,
  args: readonly string[],
): CommandLine<C> {
  const table: OptionTable = { ...command.options, help: HELP_OPTION };
  const names = optionNames(table);
  // Not strict: the tokens are checked here, for messages that name what is allowed.
  const { tokens } = parseArgs({
    args: withCanonicalNames(args),
    options: parserOptions(table, names),
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const nameOf = (written: string): string | undefined => names.get(written);
  if (tokens.some((token) => token.kind === 'option' && nameOf(token.name) === 'help')) return { help: true };

  const given = new Map<string, string | true>();
  const lists = new Map<string, string[]>(
    Object.entries(command.options).flatMap(([name, spec]) => (takesMany(spec) ? [[name, []]] : [])),
  );
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') positionals.push(token.value);
    if (token.kind !== 'option') continue;
    const name = nameOf(token.name);
    const written = token.rawName.startsWith('--')
      ? (args[token.index]?.split('=')[0] ?? token.rawName)
      : token.rawName;
    if (name === undefined) throw unknownOption(command, table, written);
    const text = optionText(table, name, written, token.value, token.inlineValue);
    const list = lists.get(name);
    list?.push(String(text));
    if (list === undefined && given.has(name)) throw repeated(written, given.get(name), text);
    given.set(name, text);
  }
  checkPositionals(command, positionals);
  const options = readTable(command.options, (name) => [`Option --${name}`, given.get(name)]);
  const values = { ...options, ...Object.fromEntries(lists) };
  return { help: false, options: values as OptionValues<C>, given, positionals };
}

function takesMany(spec: OptionSpec): boolean {
  return spec.type === 'string' && spec.many === true;
}

/**
 * The values of a table.
 *
 * @param textOf what to call an option in messages, and its text: true when it stands alone, undefined when it is not given
 * @throws UsageError
 */
export function readTable(
  table: OptionTable,
  textOf: (name: string) => readonly [subject: string, text: string | true | undefined],
): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(table).map(([name, spec]) => {
      const [subject, text] = textOf(name);
      return [name, readOption(subject, spec, text)];
    }),
  );
}

/** Long names with underscores, up to the two dashes after which everything is positional. */
function withCanonicalNames(args: readonly string[]): string[] {
  const end = args.indexOf('--');
  return args.map((arg, index) => {
    if (!/^--[^-]/.test(arg) || (end >= 0 && index > end)) return arg;
    const [name = ''] = arg.slice(2).split('=');
    return `--${canonical(name)}${arg.slice(2 + name.length)}`;
  });
}

function parserOptions(
  table: OptionTable,
  names: ReadonlyMap<string, string>,
): NonNullable<ParseArgsConfig['options']> {
  return Object.fromEntries(
    Array.from(names, ([written, name]) => {
      const { type, short } = table[name] ?? HELP_OPTION;
      const parsed = type === 'boolean' ? ('boolean' as const) : ('string' as const);
      // An alias has no letter of its own.
      const letter = short !== undefined && written === canonical(name) ? { short } : {};
      return [written, { type: parsed, ...letter }];
    }),
  );
}

function unknownOption(command: CommandSpec, table: OptionTable, written: string): UsageError {
  const own = command.foreign?.[written.replace(/^-/, '')];
  if (own !== undefined)
    return new UsageError(`Unknown option ${written}; what other tools call so is --${own} here`);
  const guess = written.startsWith('--') ? closest(written.slice(2), Object.keys(table)) : undefined;
  return new UsageError(
    `Unknown option ${written}${guess === undefined ? '; --help lists the options' : `; did you mean --${guess}?`}`,
  );
}

function repeated(written: string, before: string | true | undefined, now: string | true): UsageError {
  const values =
    typeof before === 'string' && typeof now === 'string' ? `, as '${before}' and as '${now}'` : '';
  return new UsageError(`Option ${written} is given twice${values}; give it once`);
}

function optionText(
  table: OptionTable,
  name: string,
  written: string,
  value: string | undefined,
  inline: boolean | undefined,
): string | true {
  const spec = table[name] ?? HELP_OPTION;
  if (spec.type === 'boolean') return value ?? true;
  const looksLikeOption = inline !== true && value !== undefined && /^-./.test(value);
  if (value === undefined || looksLikeOption) {
    const found = value === undefined ? '' : ` (write --${name}=${value} if that is the value)`;
    throw new UsageError(`Option ${written} needs a value: ${allowed(spec)}${found}`);
  }
  return value;
}

function checkPositionals(command: CommandSpec, found: readonly string[]): void {
  const specs = command.positionals ?? [];
  const missing = specs.find((spec, index) => index >= found.length && spec.optional !== true);
  if (missing !== undefined)
    throw new UsageError(`Missing <${missing.name}>: ${missing.help} Usage: ${usage(command)}`);
  if (specs.at(-1)?.many === true) return;
  const surplus = found[specs.length];
  if (surplus !== undefined)
    throw new UsageError(`Unexpected argument '${surplus}'. Usage: ${usage(command)}`);
}
