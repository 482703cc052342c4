// SPDX-License-Identifier: MIT
/** `npm run fuzz`: see HELP. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { readCase, saveCase, type Case } from './cases';
import { Random } from './random';
import { ROLE_NAMES, type RoleName, type Step } from './role';
import { ROLES } from './roles';
import { supervise, type Outcome } from './supervisor';

const HELP = `Fuzzes one side of the package with a generated peer.

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

/** Tries to make a failing case shorter. */
const SHRINK_TRIES = 60;

interface Options {
  readonly role: RoleName;
  readonly seconds: number;
  readonly messages: number;
  readonly seed: number;
  readonly corpus: string;
  readonly replay: string | undefined;
}

class UsageError extends Error {}

function readOptions(args: string[]): Options | null {
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
  const role = replay === undefined ? values.role : readCase(replay).role;
  if (role === undefined || !(ROLE_NAMES as readonly string[]).includes(role))
    throw new UsageError(`--role is one of ${ROLE_NAMES.join(', ')}${role === undefined ? '' : `, not ${role}`}`);
  const messages = readNumber('messages', values.messages, 1, Infinity);
  return {
    role: role as RoleName,
    seconds: readNumber('seconds', values.seconds, 1, messages === undefined ? 60 : Infinity) ?? Infinity,
    messages: messages ?? Infinity,
    seed: readNumber('seed', values.seed, 0, undefined) ?? Math.floor(Math.random() * 2 ** 32),
    corpus,
    replay,
  };
}

function readNumber(name: string, text: string | undefined, least: number, absent: number | undefined) {
  if (text === undefined) return absent === Infinity ? undefined : absent;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least || text.trim() === '')
    throw new UsageError(`--${name} is an integer from ${least} on, not ${text}`);
  return value;
}

function summarize(role: RoleName, seed: number, seconds: number, outcome: Extract<Outcome, { kind: 'done' }>): void {
  const { messages, connections, sessions, first, last } = outcome;
  const seen = new Map(outcome.seen);
  for (const [what, count] of [...seen].sort()) console.log(`  ${String(count).padStart(10)}  ${what}`);
  const never = ROLES[role].wanted.filter((what) => !seen.has(what));
  console.log(`never seen: ${never.length === 0 ? 'nothing that should be' : never.join(', ')}`);
  if (first !== null && last !== null) {
    console.log(
      `held after warm-up and at the end: descriptors ${first.fds} and ${last.fds}, mappings ${first.mappings} and ${last.mappings}, ` +
        `heap ${first.heap} and ${last.heap} MiB, resident ${first.rss} and ${last.rss} MiB`,
    );
  }
  console.log(
    `${role}: ${messages} messages, ${Math.round(messages / seconds)} a second, ${connections} connections, ` +
      `${sessions} sessions, ${Math.round(seconds)} s, seed ${seed}: nothing found`,
  );
}

/** Runs steps alone in a new process; why they fail, or undefined when they do not. */
async function tryAlone(role: RoleName, steps: readonly Step[], directory: string): Promise<string | undefined> {
  const replay = saveCase(directory, 'try', { role, note: '', steps });
  const outcome = await supervise({ role, seed: 0, limits: { seconds: 0, messages: 0 }, replay });
  return outcome.kind === 'failure' ? outcome.text : undefined;
}

/** Leaves out steps, ever smaller groups of them, as long as what is left fails. */
async function shrink(role: RoleName, steps: readonly Step[], directory: string): Promise<readonly Step[]> {
  let shortest = steps;
  let tries = 0;
  for (let group = Math.ceil(steps.length / 2); group >= 1; group = Math.floor(group / 2)) {
    for (let at = 0; at < shortest.length && tries < SHRINK_TRIES;) {
      const shorter = [...shortest.slice(0, at), ...shortest.slice(at + group)];
      tries++;
      if ((await tryAlone(role, shorter, directory)) === undefined) at += group;
      else shortest = shorter;
    }
  }
  return shortest;
}

/** Saves the session that failed, as short as it can be made. */
async function keep({ role, seed, corpus }: Options, session: number, text: string): Promise<void> {
  const note = `seed ${seed}, session ${session}: ${text.split('\n')[0] ?? ''}`;
  const steps = ROLES[role].generate(new Random(seed, session));
  const directory = mkdtempSync(join(tmpdir(), 'vfio-user-fuzz-'));
  let one: Case = { role, note: `${note} (does not fail alone)`, steps };
  try {
    const alone = await tryAlone(role, steps, directory);
    if (alone !== undefined) one = { role, note, steps: await shrink(role, steps, directory) };
    console.log(alone === undefined ? 'alone, the session does not fail' : `alone, the session fails too; ${one.steps.length} of its ${steps.length} steps do`);
  } finally {
    rmSync(directory, { recursive: true });
  }
  console.log(`saved as ${saveCase(corpus, `${role}-${seed}-${session}`, one)}`);
}

async function main(): Promise<number> {
  let options;
  try {
    options = readOptions(process.argv.slice(2));
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\nTry --help.`);
    return 2;
  }
  if (options === null) {
    console.log(HELP);
    return 0;
  }
  const { role, seconds, messages, seed, replay } = options;
  console.log(replay === undefined ? `fuzzing ${role}, seed ${seed}` : `replaying ${replay}`);
  const start = performance.now();
  const outcome = await supervise({ role, seed, limits: { seconds, messages }, replay }, (count) => {
    if (process.stderr.isTTY) process.stderr.write(`\r${count} messages `);
  });
  if (outcome.kind === 'failure') {
    console.log(outcome.text);
    console.log(`${role}: found in session ${outcome.session} of seed ${seed}`);
    if (replay === undefined) await keep(options, outcome.session, outcome.text);
    return 1;
  }
  summarize(role, seed, (performance.now() - start) / 1000, outcome);
  return 0;
}

void main().then((code) => {
  process.exitCode = code;
});
