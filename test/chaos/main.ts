// SPDX-License-Identifier: MIT
/** `npm run chaos`: see the help. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atEnd } from './children';
import { describe, plan } from './plan';
import { machine, report } from './report';
import { ROLES, ROLE_NAMES, type RoleName } from './roles';
import { Tally } from './tally';
import { UsageError, readInteger, readValues, runMain } from './usage';
import type { Lie } from '../support/failing-storage';

function help(): string {
  const kinds = ROLE_NAMES.map((name) => {
    const { summary, kinds: those } = ROLES[name];
    const lines = Object.entries(those).map(([kind, text]) => `    ${kind.padEnd(14)}${text}`);
    return `  ${name}: ${summary}\n${lines.join('\n')}`;
  });
  return `Injects faults under a verified load: every block that is written holds its address, a generation and a checksum.

  npm run chaos -- --role ROLE [options]

  --role ROLE      what the faults befall: ${ROLE_NAMES.join(', ')}
  --rounds N       each kind of fault is injected once in a round (default 10)
  --seed S         0 to 4294967295 (default: random)
  --faults A,B     these kinds only
  --plan           prints the faults, and injects none
  --lie WHAT       role storage: the storage drops a write in 50, or flushes nothing (write, flush), which must be found
  --help

Faults:
${kinds.join('\n')}

The seed gives the same faults, in the same order, at the same place of the load, with the same numbers. What it does not give
is the timing: which commands are in flight then, and how far each has come.

Ctrl-C ends the run after the fault at hand, with the table of what was done.

Exit codes: 0 nothing was lost, reported wrongly or leaked; 1 something was; 2 wrong usage.
`;
}

interface Options {
  readonly role: RoleName;
  readonly kinds: readonly string[];
  readonly rounds: number;
  readonly seed: number;
  readonly planOnly: boolean;
  readonly lie: Lie;
}

function readOptions(args: string[]): Options | null {
  const values = readValues(args, {
    role: { type: 'string' },
    rounds: { type: 'string', default: '10' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 32)) },
    faults: { type: 'string' },
    plan: { type: 'boolean', default: false },
    lie: { type: 'string', default: 'none' },
    help: { type: 'boolean', default: false },
  });
  if (values.help) return null;
  const role = ROLE_NAMES.find((name) => name === values.role);
  if (role === undefined)
    throw new UsageError(
      `--role is one of ${ROLE_NAMES.join(', ')}${values.role === undefined ? '' : `, not ${values.role}`}`,
    );
  const known = Object.keys(ROLES[role].kinds);
  const kinds = values.faults?.split(',') ?? known;
  const unknown = kinds.find((kind) => !known.includes(kind));
  if (unknown !== undefined)
    throw new UsageError(`--faults of role ${role} are ${known.join(', ')}, not ${unknown}`);
  const { lie } = values;
  if (lie !== 'none' && lie !== 'write' && lie !== 'flush')
    throw new UsageError(`--lie is write or flush, not ${lie}`);
  if (lie !== 'none' && role !== 'storage') throw new UsageError('--lie goes with --role storage');
  return {
    role,
    kinds,
    rounds: readInteger('rounds', values.rounds, 1, 1e6),
    seed: readInteger('seed', values.seed, 0, 2 ** 32 - 1),
    planOnly: values.plan,
    lie,
  };
}

async function main(): Promise<number> {
  const options = readOptions(process.argv.slice(2));
  if (options === null) {
    console.log(help());
    return 0;
  }
  const { role: name, rounds, seed, kinds, lie } = options;
  const role = ROLES[name];
  const faults = [...plan(kinds, rounds, seed)];
  if (options.planOnly) {
    for (const fault of faults) console.log(describe(fault));
    return 0;
  }
  console.log(
    `chaos --role ${name} --rounds ${rounds} --seed ${seed} --faults ${kinds.join(',')}\n${machine()}`,
  );
  const folder = mkdtempSync(join(tmpdir(), 'vfio-user-chaos-'));
  const remove = atEnd(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const tally = new Tally();
  try {
    await role.run({ faults, seed, tally, folder, lie });
  } catch (error) {
    tally.mistake('broken', error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  console.log(report(tally, role.gap));
  remove();
  return tally.mistakes === 0 ? 0 : 1;
}

runMain(main);
