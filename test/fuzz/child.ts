// SPDX-License-Identifier: MIT
/** The process in which the fuzzed side runs, with the generated peer: it may crash or hang, which the supervisor sees. */
import { writeSync } from 'node:fs';
import { inspect } from 'node:util';
import { readCase } from './cases';
import type { ChildTask, ChildReport } from './child-messages';
import { PROGRESS_FD } from './child-messages';
import { Tally } from './role';
import { ROLES } from './roles';
import { runSessions } from './run-sessions';

const progress = new Float64Array(3);
const bytes = new Uint8Array(progress.buffer);
const tally = new Tally();
tally.alive = () => {
  progress[1] = tally.messages;
  progress[2] = (progress[2] as number) + 1;
  writeSync(PROGRESS_FD, bytes, 0, bytes.length, 0);
};

function report(message: ChildReport): void {
  process.send?.(message, () => process.exit(message.kind === 'done' ? 0 : 1));
}

function fail(error: unknown, how = ''): void {
  const text = error instanceof Error ? (error.stack ?? error.message) : inspect(error);
  report({ kind: 'failure', session: progress[0] as number, text: how + text });
}

process.on('uncaughtException', (error, origin) => {
  fail(error, `${origin}: `);
});

async function work({ role: name, seed, limits, replay }: ChildTask): Promise<void> {
  const role = ROLES[name];
  if (replay === undefined) {
    const { sessions, first, last } = await runSessions(role, tally, seed, limits, (session) => {
      progress[0] = session;
      tally.alive();
    });
    const { messages, connections, seen } = tally;
    report({ kind: 'done', messages, connections, sessions, seen: [...seen], first, last });
    return;
  }
  const fixture = await role.open(tally);
  await fixture.run(readCase(replay).steps);
  await fixture.close();
  const { messages, connections, seen } = tally;
  report({ kind: 'done', messages, connections, sessions: 1, seen: [...seen], first: null, last: null });
}

process.once('message', (task: ChildTask) => {
  work(task).catch(fail);
});
