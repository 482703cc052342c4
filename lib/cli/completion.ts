// SPDX-License-Identifier: MIT
import { HELP_OPTION, type CommandSpec, type OptionSpec, type OptionTable } from './option-spec';
import { PROGRAM } from './help';

/** The shells that are known. */
export const SHELLS = ['bash', 'zsh', 'fish'] as const;

/** One of {@link SHELLS}. */
export type Shell = (typeof SHELLS)[number];

/**
 * A script that completes the commands, options and words of the tool in a shell.
 *
 * @param specs all commands
 */
export function completionScript(shell: Shell, specs: readonly CommandSpec[]): string {
  switch (shell) {
    case 'bash':
      return bash(specs);
    case 'zsh':
      // zsh runs completions for bash, once it is told to.
      return `#compdef ${PROGRAM}\nautoload -U +X bashcompinit && bashcompinit\n${bash(specs)}`;
    case 'fish':
      return fish(specs);
  }
}

/** First words of commands, each once. */
function firstWords(specs: readonly CommandSpec[]): string[] {
  return [...new Set(specs.map(({ name }) => name.split(' ')[0] ?? name))];
}

function optionWords({ options }: CommandSpec): string {
  return Object.keys({ ...options, help: HELP_OPTION })
    .map((name) => `--${name}`)
    .join(' ');
}

/** The words that an option takes; undefined for any text. */
function choicesOf(spec: OptionSpec): readonly string[] | undefined {
  return spec.type === 'choice' ? spec.choices : undefined;
}

function bash(specs: readonly CommandSpec[]): string {
  const commands = specs.map((spec) => {
    const [first = '', second] = spec.name.split(' ');
    const values = Object.entries(spec.options).flatMap(([name, option]) => {
      const words = choicesOf(option);
      if (words !== undefined) return [`      --${name}) words='${words.join(' ')}'; files= ;;`];
      return option.type === 'boolean' ? [] : [`      --${name}) words=; files=yes ;;`];
    });
    const positional = spec.positionals?.[0]?.choices ?? [];
    const words = [optionWords(spec), second ?? '', ...positional].filter((each) => each !== '').join(' ');
    return [
      `    ${first})`,
      `      words='${words}'`,
      `      case $previous in`,
      ...values,
      `      esac`,
      `      ;;`,
    ].join('\n');
  });
  return `# Completion of ${PROGRAM}. Put it where bash looks for completions, or: source <(${PROGRAM} completion bash)
_vfio_user() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]}
  local words files=yes
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    words='${firstWords(specs).join(' ')} --help --version'
    files=
  else
    case \${COMP_WORDS[1]} in
${commands.join('\n')}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [ -n "$files" ] && [ "\${current#-}" = "$current" ]; then
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
}
complete -o filenames -F _vfio_user ${PROGRAM}
`;
}

function fish(specs: readonly CommandSpec[]): string {
  const quote = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
  const lines = specs.flatMap((spec) => {
    const [first = '', second] = spec.name.split(' ');
    const seen = `-n ${quote(`__fish_seen_subcommand_from ${first}`)}`;
    const table: OptionTable = { ...spec.options, help: HELP_OPTION };
    const options = Object.entries(table).map(([name, option]) => {
      const words = choicesOf(option);
      const value =
        option.type === 'boolean' ? '' : words === undefined ? ' -r' : ` -x -a ${quote(words.join(' '))}`;
      return `complete -c ${PROGRAM} ${seen} -l ${name}${value} -d ${quote(option.help)}`;
    });
    const own = [...(second === undefined ? [] : [second]), ...(spec.positionals?.[0]?.choices ?? [])];
    return [
      `complete -c ${PROGRAM} -n __fish_use_subcommand -f -a ${first} -d ${quote(spec.summary)}`,
      ...(own.length === 0 ? [] : [`complete -c ${PROGRAM} ${seen} -f -a ${quote(own.join(' '))}`]),
      ...options,
    ];
  });
  return `# Completion of ${PROGRAM}. Put it into ~/.config/fish/completions/${PROGRAM}.fish\n${lines.join('\n')}\n`;
}
