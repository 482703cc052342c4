// SPDX-License-Identifier: MIT
import { parseCommandLine, renderHelp, type CommandSpec, type OptionValues } from './options';
import { print } from './output';

/** A command of the tool, ready to run. */
export interface Command {
  /** As typed after the program's name. */
  readonly name: string;
  readonly summary: string;
  /** @param args what follows the name; throws what made it fail */
  run(args: readonly string[]): Promise<void>;
}

/** Joins a command's options with what it does. `--help` is answered here. */
export function defineCommand<const C extends CommandSpec>(
  spec: C,
  action: (options: OptionValues<C>, positionals: readonly string[]) => Promise<void>,
): Command {
  return {
    name: spec.name,
    summary: spec.summary,
    run: async (args) => {
      const line = parseCommandLine(spec, args);
      if (line.help) print(renderHelp(spec));
      else await action(line.options, line.positionals);
    },
  };
}
