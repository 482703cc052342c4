// SPDX-License-Identifier: MIT
import { renderHelp } from './help';
import type { CommandSpec, OptionValues } from './option-spec';
import { parseCommandLine } from './options';
import { print } from './output';
import { columnsOf, styleOf } from './style';

/** A command of the tool, ready to run. */
export interface Command {
  readonly spec: CommandSpec;
  /** @param args what follows the name; throws what made it fail */
  run(args: readonly string[]): Promise<void>;
}

/**
 * Joins a command's options with what it does. `--help` is answered here.
 *
 * @param action is given the values, the arguments, and the texts of the options that were given
 */
export function defineCommand<const C extends CommandSpec>(
  spec: C,
  action: (
    options: OptionValues<C>,
    positionals: readonly string[],
    given: ReadonlyMap<string, string | true>,
  ) => Promise<void> | void,
): Command {
  return {
    spec,
    run: async (args) => {
      const line = parseCommandLine(spec, args);
      if (line.help) printHelp(spec);
      else await action(line.options, line.positionals, line.given);
    },
  };
}

/** Prints the help of a command, as wide as the terminal. */
export function printHelp(spec: CommandSpec): void {
  print(renderHelp(spec, columnsOf(process.stdout), styleOf(process.stdout)));
}
