// SPDX-License-Identifier: MIT
/**
 * Measures registers, interrupts, DMA maps and codecs against small C programs (bench/c), in turn, in one run, and prints
 * the ratios: `npm run bench:micro -- [--rounds 5] [--rows ID,…] [--json FILE] [--endpoint PATH] [--quick]`.
 *
 * Client and server get a processor each. On a machine with other work the figures mean nothing; how idle it was is told.
 * With `--endpoint`, the rows that only read configuration space are measured at that server's socket instead.
 */
import { writeFileSync } from 'node:fs';
import { constants, cpus, release } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { FULL, QUICK, deviceCases, messageCases, serverCases, type Case } from './micro-cases';
import { measureCodecs } from './micro-codecs';
import { Programs } from './micro-programs';
import { Rounds, warningOfStolen, type Round } from './rounds';
import { median, timeText } from './statistics';

/** Nanoseconds. */
interface Row {
  readonly id: string;
  readonly name: string;
  readonly bar: number | null;
  readonly ours: number;
  readonly c: number;
  /** Median of the ratios of the rounds. */
  readonly ratio: number;
  readonly met: boolean | null;
  readonly samples: readonly Round<number>[];
}

const CODEC_CALLS = { full: 200_000, quick: 100 };
/** Rounds before those that count, unless a row says otherwise. */
const WARM_UP = 8;
/** Microseconds that the server which is awake looks for a message: longer than a client takes to send the next. */
const LOOK = 100;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '5' },
      json: { type: 'string' },
      endpoint: { type: 'string' },
      rows: { type: 'string' },
      quick: { type: 'boolean', default: false },
    },
  });
  const rounds = Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1)
    throw new Error(`--rounds is a number from 1 on, got ${values.rounds}`);

  const programs = new Programs(!values.quick);
  process.once('exit', () => {
    programs.close();
  });
  programs.compile();
  const idle = await idleShare();
  const machine = {
    cpu: cpus()[0]?.model ?? 'unknown processor',
    cores: cpus().length,
    kernel: release(),
    node: process.version,
    idle,
    bound: programs.bound,
  };
  const where = programs.bound ? 'client and server on a processor each' : 'client and server not bound';
  console.log(
    `${machine.cpu}, ${machine.cores} cores, ${(idle * 100).toFixed(0)} % idle, Linux ${machine.kernel}, Node ${machine.node}`,
  );
  console.log(`medians of ${rounds} rounds, ${where}; ratio: ours / C`);

  const counts = values.quick ? QUICK : FULL;
  const { endpoint } = values;
  const path = endpoint ?? (await programs.serve());
  const awakePath = endpoint === undefined ? await programs.serve(LOOK) : undefined;
  const cases = messageCases(programs, path, counts, awakePath);
  if (endpoint === undefined) {
    cases.push(...deviceCases(programs, path, counts));
    const samples = process.env['VFIO_USER_SAMPLES'];
    const servers = {
      sleeping: await programs.serveOurs(0),
      adaptive: await programs.serveOurs(),
      c:
        samples === undefined
          ? { path, region: 0 }
          : { path: await programs.serveSample(samples), region: 2 },
    };
    if (samples === undefined)
      console.log('VFIO_USER_SAMPLES is not set: our server is compared with that of bench/c');
    cases.push(...serverCases(programs, servers, counts));
  }
  const wanted = values.rows?.split(',') ?? cases.map(({ id }) => id);
  const unknown = wanted.find((id) => !cases.some((measured) => measured.id === id));
  if (unknown !== undefined)
    throw new Error(`--rows knows ${cases.map(({ id }) => id).join(', ')}, but not ${unknown}`);
  const rows = await measure(
    cases.filter(({ id }) => wanted.includes(id)),
    rounds,
    values.quick ? () => 1 : ({ warmUp = WARM_UP }) => warmUp,
  );
  printRows(rows);
  const warning = warningOfStolen(rows.flatMap(({ samples }) => samples));
  if (warning !== undefined) console.log(warning);
  const codecs = measureCodecs(rounds, values.quick ? CODEC_CALLS.quick : CODEC_CALLS.full);
  for (const { name, nanoseconds } of codecs)
    console.log(`${name.padEnd(44)}${timeText(nanoseconds).padStart(10)}`);
  if (values.json !== undefined)
    writeFileSync(values.json, JSON.stringify({ machine, rounds, rows, codecs }, null, 2));
}

/** All rows in each round, so that what else the machine does meets all. Some rounds before them warm up both sides. */
async function measure(
  cases: readonly Case[],
  rounds: number,
  warmUpOf: (measured: Case) => number,
): Promise<Row[]> {
  for (let left = Math.max(...cases.map(warmUpOf)); left > 0; left--) {
    for (const measured of cases.filter((each) => left <= warmUpOf(each))) {
      await measured.ours();
      await measured.c();
    }
  }
  const all = cases.map((measured) => ({ measured, rounds: new Rounds<number>(rounds) }));
  for (let left = all; left.length > 0; left = left.filter((each) => !each.rounds.done))
    for (const { measured, rounds: those } of left) await those.run(measured.ours, measured.c);
  return all.map(({ measured: { id, name, bar }, rounds: { best } }) => {
    const ratio = median(best.map(({ ours, peer }) => ours / peer));
    return {
      id,
      name,
      bar,
      ours: median(best.map(({ ours }) => ours)),
      c: median(best.map(({ peer }) => peer)),
      ratio,
      met: bar === null ? null : ratio <= bar,
      samples: best,
    };
  });
}

function printRows(rows: readonly Row[]): void {
  const line = (name: string, ...columns: string[]): void => {
    console.log(name.padEnd(44) + columns.map((column) => column.padStart(10)).join(''));
  };
  line('', 'ours', 'C', 'ratio', 'bar');
  for (const { name, ours, c, ratio, bar, met } of rows) {
    const limit = bar === null ? '' : `<= ${bar}${met === true ? '' : ' !'}`;
    line(name, timeText(ours), timeText(c), ratio.toFixed(2), limit);
  }
}

/** Share of the processors' time that nobody used just now, 0 to 1. */
async function idleShare(): Promise<number> {
  const sum = (): { idle: number; all: number } => {
    const times = cpus().map((cpu) => cpu.times);
    return {
      idle: times.reduce((part, { idle }) => part + idle, 0),
      all: times.reduce((part, { user, nice, sys, idle, irq }) => part + user + nice + sys + idle + irq, 0),
    };
  };
  const before = sum();
  await sleep(300);
  const after = sum();
  return Math.min(1, (after.idle - before.idle) / Math.max(1, after.all - before.all));
}

// Ends through the handlers of the exit, which remove what is left.
for (const name of SIGNALS) process.on(name, () => process.exit(128 + constants.signals[name]));

main().then(
  () => process.exit(),
  (error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  },
);
