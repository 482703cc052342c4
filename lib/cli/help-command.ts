// SPDX-License-Identifier: MIT
import { defineCommand, printHelp, type Command } from './command';
import { SHELLS, completionScript } from './completion';
import { UsageError, type CommandSpec } from './option-spec';
import { print } from './output';
import { manualPage } from './reference';

const HELP_SPEC = {
  name: 'help',
  summary: 'Show what a command does and its options, or the manual page of all.',
  positionals: [{ name: 'command', help: 'The command, such as bench.', optional: true, many: true }],
  options: { man: { type: 'boolean', help: 'Print the manual page, for man -l -.' } },
  examples: [
    ['help bench', 'Shows the options of bench.'],
    ['help --man | man -l -', 'Shows the manual page.'],
  ],
} as const satisfies CommandSpec;

const COMPLETION_SPEC = {
  name: 'completion',
  summary: 'Print a script that completes commands and options in a shell.',
  positionals: [{ name: 'shell', help: `One of ${SHELLS.join(', ')}.`, choices: SHELLS }],
  options: {},
  examples: [
    ['completion bash > ~/.local/share/bash-completion/completions/vfio-user', 'For bash.'],
    ['completion fish > ~/.config/fish/completions/vfio-user.fish', 'For fish.'],
    ['completion zsh > ~/.zfunc/_vfio-user', 'For zsh, with ~/.zfunc in its fpath.'],
  ],
} as const satisfies CommandSpec;

/**
 * `vfio-user help` and `vfio-user completion`.
 *
 * @param others the other commands
 * @param overview prints what the program is and its commands
 * @param helpOf the commands that some words mean; throws UsageError for others
 */
export function helpCommands(
  others: readonly Command[],
  overview: () => void,
  helpOf: (words: readonly string[]) => readonly Command[],
): Command[] {
  const specs = (): CommandSpec[] => [...others.map(({ spec }) => spec), COMPLETION_SPEC, HELP_SPEC];
  return [
    defineCommand(COMPLETION_SPEC, (_, [shell = '']) => {
      const known = SHELLS.find((each) => each === shell);
      if (known === undefined)
        throw new UsageError(`There is no completion for '${shell}'; there is one for ${SHELLS.join(', ')}`);
      print(completionScript(known, specs()));
    }),
    defineCommand(HELP_SPEC, ({ man }, words) => {
      if (man && words.length > 0)
        throw new UsageError('--man prints the manual page of all commands; leave out the command');
      if (man) print(manualPage(specs()));
      else if (words.length === 0) overview();
      else for (const { spec } of helpOf(words)) printHelp(spec);
    }),
  ];
}
