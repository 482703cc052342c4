// SPDX-License-Identifier: MIT
/** `npm run fuzz`; see `HELP` of options.ts. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { saveCase, type Case } from './cases';
import { HELP, readOptions, type Options } from './options';
import { Random } from './random';
import type { RoleName, Step } from './role';
import { ROLES } from './roles';
import { supervise, type Outcome } from './supervisor';

/** Tries to make a failing case shorter. */
const SHRINK_TRIES = 60;

function summarize(
  role: RoleName,
  seed: number,
  seconds: number,
  outcome: Extract<Outcome, { kind: 'done' }>,
): void {
  const { messages, connections, sessions, first, last } = outcome;
  const seen = new Map(outcome.seen);
  for (const [what, count] of [...seen].sort()) console.log(`  ${String(count).padStart(10)}  ${what}`);
  if (first === null || last === null) return;
  const never = ROLES[role].wanted.filter((what) => !seen.has(what));
  console.log(`never seen: ${never.length === 0 ? 'nothing that should be' : never.join(', ')}`);
  console.log(
    `held after warm-up and at the end: descriptors ${first.fds} and ${last.fds}, mappings ${first.mappings} and ${last.mappings}, ` +
      `heap ${first.heap} and ${last.heap} MiB, resident ${first.rss} and ${last.rss} MiB`,
  );
  console.log(
    `${role}: ${messages} messages, ${Math.round(messages / seconds)} a second, ${connections} connections, ` +
      `${sessions} sessions, ${Math.round(seconds)} s, seed ${seed}: nothing found`,
  );
}

/** Runs steps alone in a new process; why they fail, or undefined when they do not. */
async function tryAlone(
  role: RoleName,
  steps: readonly Step[],
  directory: string,
): Promise<string | undefined> {
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
    console.log(
      alone === undefined
        ? 'alone, the session does not fail'
        : `alone, the session fails too; ${one.steps.length} of its ${steps.length} steps do`,
    );
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
