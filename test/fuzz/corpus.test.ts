// SPDX-License-Identifier: MIT
/** Replays the cases that are kept, and a fixed number of generated messages for each role. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { readCase } from './cases';
import { ROLE_NAMES, Tally } from './role';
import { ROLES } from './roles';
import { runSessions } from './run-sessions';

const CORPUS = join(__dirname, 'corpus');
const SEED = 1;
const MESSAGES = 10_000;

jest.setTimeout(60_000);

test.each(readdirSync(CORPUS))('%s', async (name) => {
  const { role, steps } = readCase(join(CORPUS, name));
  const tally = new Tally();
  const fixture = await ROLES[role].open(tally);
  await fixture.run(steps);
  await fixture.close();
  expect(tally.messages).toBeGreaterThan(0);
});

test.each(ROLE_NAMES)(`${MESSAGES} generated messages: %s`, async (name) => {
  const tally = new Tally();
  await runSessions(ROLES[name], tally, SEED, { seconds: Infinity, messages: MESSAGES });
  expect(tally.messages).toBeGreaterThanOrEqual(MESSAGES);
});

test.each(ROLE_NAMES)('a session is named for what it sees: %s', (name) => {
  // Names that are given twice would hide one of them.
  const { wanted } = ROLES[name];
  expect(new Set(wanted).size).toBe(wanted.length);
});
