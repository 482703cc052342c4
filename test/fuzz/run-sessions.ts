// SPDX-License-Identifier: MIT
import { readFileSync, readdirSync } from 'node:fs';
import { Mapping } from '../../lib/native';
import { Random } from './random';
import { Violation, type Fixture, type Role, type Tally } from './role';
import { turns } from './waiting';

/** How long a run goes on: until one of these is reached. */
export interface RunLimits {
  readonly seconds: number;
  readonly messages: number;
}

/** What a process holds. Sizes in MiB. */
export interface Holdings {
  readonly fds: number;
  readonly mappings: number;
  readonly heap: number;
  readonly rss: number;
}

/** Sessions between two counts of what is held, at first; more and more, since a count takes its time. */
const FIRST_ROUND = 100;
/** Counts before the one that the others are compared with: caches fill up, code is compiled. */
const WARM_UP = 2;
/** What the heap may grow by, in MiB: code and caches of V8. A leak of 1 KiB a session is above it after 40,000 sessions. */
const HEAP_GROWTH = 40;
/** And the resident memory, which V8 gives back late. */
const RSS_GROWTH = 160;

/**
 * Runs generated sessions.
 *
 * @param begin called before each session, with its number
 * @throws Violation and what the fuzzed side throws; the number of the session is that of the last `begin`
 */
export async function runSessions(
  role: Role,
  tally: Tally,
  seed: number,
  limits: RunLimits,
  begin: (session: number) => void = () => undefined,
): Promise<{ sessions: number; first: Holdings; last: Holdings }> {
  const fixture = await role.open(tally);
  const end = performance.now() + limits.seconds * 1000;
  let sessions = 0;
  let round = FIRST_ROUND;
  let nextCount = FIRST_ROUND;
  let first: Holdings | undefined;
  let last: Holdings | undefined;
  for (let counts = 0; ;) {
    const over = performance.now() >= end || tally.messages >= limits.messages;
    if (over || sessions >= nextCount) {
      last = await holdings(fixture);
      if (counts++ < WARM_UP || first === undefined) first = last;
      else compare(first, last, sessions);
      nextCount = sessions + (round = Math.min(round * 2, 20_000));
    }
    if (over) break;
    begin(sessions);
    await fixture.run(role.generate(new Random(seed, sessions)));
    sessions++;
  }
  await fixture.close();
  return { sessions, first: first as Holdings, last: last as Holdings };
}

async function holdings(fixture: Fixture): Promise<Holdings> {
  await fixture.rest();
  for (let i = 0; i < 4; i++) {
    globalThis.gc?.();
    await turns(2);
  }
  const { heapUsed, external, rss } = process.memoryUsage();
  return {
    fds: readdirSync('/proc/self/fd').length,
    mappings: Mapping.count,
    heap: Math.round((heapUsed + external) / 2 ** 20),
    rss: Math.round(rss / 2 ** 20),
  };
}

function compare(first: Holdings, last: Holdings, sessions: number): void {
  const grown =
    last.fds > first.fds ||
    last.mappings > first.mappings ||
    (globalThis.gc !== undefined && last.heap > first.heap + HEAP_GROWTH) ||
    (!underSanitizer() && last.rss > first.rss + RSS_GROWTH);
  if (grown)
    throw new Violation(
      `leaks: ${JSON.stringify(last)} after ${sessions} sessions, ${JSON.stringify(first)} before`,
    );
}

/** Sanitizers keep memory that was freed for a while. */
function underSanitizer(): boolean {
  return readFileSync('/proc/self/maps', 'utf8').includes('libasan');
}
