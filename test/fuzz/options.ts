// SPDX-License-Identifier: MIT
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { readCase } from './cases';
import { ROLE_NAMES, type RoleName } from './role';

const DEFAULT_SECONDS = 60;

export const HELP = `Fuzzes one side of the package with a generated peer.

  npm run fuzz -- --role ROLE [options]
  npm run fuzz -- --replay FILE

  --role ROLE      what is fuzzed: server, client, nvme-host (the driver) or nvme-controller
  --seconds N      how long (default 60; without a limit when only --messages is given)
  --messages N     ends after so many generated messages
  --seed S         0 to 4294967295 (default: random). A seed gives the same sessions each time
  --corpus DIR     where a failing case is saved (default test/fuzz/corpus)
  --replay FILE    runs the case of a file, instead of generated ones
  --help

The fuzzed side runs in a process of its own. A crash, an uncaught error, a hang, a leak, or an answer that breaks the protocol
ends the run; its session is then run alone, made shorter as long as it still fails, and saved.

Exit codes: 0 nothing was found, 1 something was found, 2 wrong usage.
`;

export interface Options {
  readonly role: RoleName;
  readonly seconds: number;
  readonly messages: number;
  readonly seed: number;
  readonly corpus: string;
  readonly replay: string | undefined;
}

/** Wrong usage of the command line. */
class UsageError extends Error {}

/** @returns null when help is asked for */
export function readOptions(args: string[]): Options | null {
  let values;
  try {
    ({ values } = parseArgs({
      args,
      options: {
        role: { type: 'string' },
        seconds: { type: 'string' },
        messages: { type: 'string' },
        seed: { type: 'string' },
        corpus: { type: 'string', default: resolve('test/fuzz/corpus') },
        replay: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }));
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
  if (values.help) return null;
  const { replay, corpus } = values;
  if (replay !== undefined && values.role !== undefined)
    throw new UsageError('--replay takes the role from its file; leave out --role');
  const role = replay === undefined ? values.role : readCase(replay).role;
  if (!isRole(role))
    throw new UsageError(
      `--role is one of ${ROLE_NAMES.join(', ')}${role === undefined ? '' : `, not ${role}`}`,
    );
  const messages = readInteger('messages', values.messages, 1, Number.MAX_SAFE_INTEGER);
  const seconds = readInteger('seconds', values.seconds, 1, Number.MAX_SAFE_INTEGER);
  return {
    role,
    seconds: seconds ?? (messages === undefined ? DEFAULT_SECONDS : Infinity),
    messages: messages ?? Infinity,
    seed: readInteger('seed', values.seed, 0, 2 ** 32 - 1) ?? Math.floor(Math.random() * 2 ** 32),
    corpus,
    replay,
  };
}

function isRole(name: string | undefined): name is RoleName {
  return (ROLE_NAMES as readonly (string | undefined)[]).includes(name);
}

function readInteger(
  name: string,
  text: string | undefined,
  least: number,
  most: number,
): number | undefined {
  if (text === undefined) return undefined;
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && value <= most))
    throw new UsageError(`--${name} is an integer from ${least} to ${most}, not ${text}`);
  return value;
}
