// SPDX-License-Identifier: MIT

/** A command line that makes no sense. */
export class UsageError extends Error {}

export function readInteger(name: string, text: string, least: number, most: number): number {
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most))
    throw new UsageError(`--${name} is a whole number from ${least} to ${most}, not ${text}`);
  return value;
}

/** Tells of a {@link UsageError}; the exit code. Any other error is thrown again. */
export function wrongUsage(error: unknown): number {
  if (!(error instanceof UsageError)) throw error;
  console.error(`${error.message}\nTry --help.`);
  return 2;
}
