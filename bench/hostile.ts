// SPDX-License-Identifier: MIT
/**
 * Attacks servers of its own as a hostile client, and prints what each attack costs them:
 * `npm run bench:hostile -- [--attacks NAME,…] [--json FILE]`. Exits with 1 when one costs more than it may.
 *
 * Times by the clock mean something on an idle machine only; what other processes take is not in the processor's time.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ATTACKS } from './hostile-attacks';
import type { Cost, Question } from './hostile-server';

/** What one client may cost: bytes, and milliseconds of a turn of the event loop. */
const MOST_MEMORY = 256 << 20;
const LONGEST_TURN = 20;

interface Row extends Cost {
  readonly attack: string;
  readonly step: string;
  /** How long the step took for the client, in milliseconds. */
  readonly time: number;
}

/** Sends a question to a server, and waits for the answer. */
async function ask(server: ChildProcess, question: Question): Promise<Cost> {
  const answer = once(server, 'message');
  server.send(question);
  const [cost] = (await answer) as [Cost];
  return cost;
}

async function carryOut(attack: string): Promise<Row[]> {
  const chosen = ATTACKS[attack];
  if (chosen === undefined)
    throw new Error(`There is no attack ${attack}; there are ${Object.keys(ATTACKS).join(', ')}`);
  const path = `@vfio-user-hostile-${process.pid}-${attack}`;
  const server = fork(join(__dirname, 'hostile-server.js'), [chosen.served, path]);
  const ended = once(server, 'exit');
  try {
    await once(server, 'message');
    const rows: Row[] = [];
    const rest = chosen.steps(path);
    for (let step = rest.next(); step.done !== true;) {
      const name = step.value;
      await ask(server, 'begin');
      const start = performance.now();
      step = rest.next();
      const time = performance.now() - start;
      const row = { attack, step: name, time, ...(await ask(server, 'tell')) };
      rows.push(row);
      print(row);
    }
    return rows;
  } finally {
    server.disconnect();
    await ended;
  }
}

function print({ step, time, memory, turn, processor }: Row): void {
  const cells = [
    step.padEnd(72),
    `${time.toFixed(0)} ms`.padStart(9),
    `${(memory / 2 ** 20).toFixed(1)} MiB`.padStart(10),
    `${turn.toFixed(1)} ms`.padStart(10),
    `${processor.toFixed(1)} ms`.padStart(10),
  ];
  console.log(cells.join(' | '));
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { attacks: { type: 'string' }, json: { type: 'string' } } });
  const rows: Row[] = [];
  console.log(`${'what the client does'.padEnd(72)} |      time |     memory |       turn |  processor`);
  for (const attack of values.attacks?.split(',') ?? Object.keys(ATTACKS))
    rows.push(...(await carryOut(attack)));
  if (values.json !== undefined) writeFileSync(values.json, JSON.stringify(rows, null, 2));
  const exceeding = rows.filter(({ memory, processor }) => memory > MOST_MEMORY || processor > LONGEST_TURN);
  for (const { step } of exceeding) console.log(`too much: ${step}`);
  if (exceeding.length > 0) process.exitCode = 1;
}

void main();
