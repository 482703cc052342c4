// SPDX-License-Identifier: MIT

/** A command line that makes no sense. The message is one line and says what is allowed; the process ends with {@link exitCode}. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
  /** Exit status for wrong usage. */
  readonly exitCode = 2;
}

interface OptionBase {
  /** One or a few sentences for `--help`. */
  readonly help: string;
  /** One letter, without the dash. */
  readonly short?: string;
  /** Other names, without dashes. */
  readonly aliases?: readonly string[];
  /** Heading under which `--help` lists the option. Default: `Options`. */
  readonly group?: string;
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
  /** May be given several times; its value is a list, which is empty without any. It has no default then. */
  readonly many?: true;
}

/**
 * An option with a number: `size` in bytes (`4k`), `count` (`10k`), `duration` in seconds (`500ms`), `number` (decimal, with
 * fractions), `integer` (decimal, or hexadecimal with `0x`).
 */
export interface NumberOption extends ValueBase {
  readonly type: 'size' | 'count' | 'duration' | 'number' | 'integer';
  /** Smallest and largest value allowed, in bytes, seconds or units. */
  readonly min?: number;
  readonly max?: number;
  /** The unit of a duration that is written without one. The value is in seconds all the same. Default: seconds. */
  readonly unit?: 'us' | 's';
}

/** An option with one of a few words. */
export interface ChoiceOption extends ValueBase {
  readonly type: 'choice';
  readonly choices: readonly string[];
}

/** An option whose text has a form of its own. */
export interface FormOption extends ValueBase {
  readonly type: 'form';
  readonly placeholder: string;
  /** What is accepted, for messages: `random, or zipf:<skew>`. */
  readonly expected: string;
  /** The value that a text means; undefined for a text that does not have the form. */
  readonly parse: (text: string) => unknown;
}

/** An option that is given or not; or `=1` or `=0`, as in fio. */
export interface BooleanOption extends OptionBase {
  readonly type: 'boolean';
  /** `1` for an option that is on unless it is given as `=0`. */
  readonly default?: '1';
}

/** How an option is written and what it accepts. */
export type OptionSpec = StringOption | NumberOption | ChoiceOption | FormOption | BooleanOption;

/** Options by long name, without dashes. The name may be given with dashes for underscores, and the other way round. */
export type OptionTable = Readonly<Record<string, OptionSpec>>;

/** An argument without a name. Optional ones come last, and the last may come several times. */
export interface PositionalSpec {
  readonly name: string;
  readonly help: string;
  readonly optional?: boolean;
  /** Any number of them; only the last may be so. */
  readonly many?: boolean;
  /** Words that are suggested while typing. Default: files. */
  readonly choices?: readonly string[];
}

/** A command with its arguments and options. Write it `as const satisfies CommandSpec`, so that the values get their types. */
export interface CommandSpec {
  /** As typed after the program's name: `bench`, `serve nvme`. */
  readonly name: string;
  /** One sentence for `--help`. */
  readonly summary: string;
  readonly positionals?: readonly PositionalSpec[];
  /** `help` is reserved. */
  readonly options: OptionTable;
  /** Command lines to begin with, without the program's name, and what each does. */
  readonly examples?: readonly (readonly [line: string, what: string])[];
  /** Letters that people know from other tools, and the option that they mean here. */
  readonly foreign?: Readonly<Record<string, string>>;
}

type RawValue<O extends OptionSpec> = O extends BooleanOption
  ? boolean
  : O extends ChoiceOption
    ? O['choices'][number]
    : O extends FormOption
      ? NonNullable<ReturnType<O['parse']>>
      : O extends NumberOption
        ? number
        : string;

type Value<O extends OptionSpec> = O extends { readonly many: true }
  ? readonly string[]
  : O extends BooleanOption
    ? boolean
    : O extends { readonly default: string }
      ? RawValue<O>
      : RawValue<O> | undefined;

/** The values of a table by long name. Options without default that were not given are undefined, booleans false. */
export type TableValues<T extends OptionTable> = { [K in keyof T]: Value<T[K]> };

/** The values of a command's options; see {@link TableValues}. */
export type OptionValues<C extends Pick<CommandSpec, 'options'>> = TableValues<C['options']>;

/** The option that `--help` stands for, in every command. */
export const HELP_OPTION: BooleanOption = { type: 'boolean', short: 'h', help: 'Show this text.' };

/** A name as options are compared: `--ramp-time` is `ramp_time`. */
export function canonical(name: string): string {
  return name.replaceAll('-', '_');
}

/** Options by all their names in {@link canonical} form, with the name under which each is declared. */
export function optionNames(options: OptionTable): Map<string, string> {
  return new Map(
    Object.entries(options).flatMap(([name, { aliases = [] }]) =>
      [name, ...aliases].map((each) => [canonical(each), name] as const),
    ),
  );
}
