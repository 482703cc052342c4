// SPDX-License-Identifier: MIT
import { parseArgs, type ParseArgsConfig } from 'node:util';

/** A command line that makes no sense. */
export class UsageError extends Error {}

/** The values of options, by name. */
export function readValues<Options extends NonNullable<ParseArgsConfig['options']>>(
  args: string[],
  options: Options,
): ReturnType<typeof parseArgs<{ args: string[]; options: Options }>>['values'] {
  try {
    return parseArgs({ args, options }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

export function readInteger(name: string, text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most))
    throw new UsageError(`--${name} is a whole number from ${least} to ${most}, not ${text}`);
  return value;
}

/** Runs a program, which ends with the exit code that it returns: 2 for a {@link UsageError}, 1 for any other. */
export function runMain(main: () => Promise<number>): void {
  main().then(
    (code) => process.exit(code),
    (error: unknown) => {
      console.error(error instanceof UsageError ? `${error.message}\nTry --help.` : error);
      process.exit(error instanceof UsageError ? 2 : 1);
    },
  );
}
