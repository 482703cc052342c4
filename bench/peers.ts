// SPDX-License-Identifier: MIT
/**
 * Measures SPDK's vfio-user endpoints with `vfio-user bench` and with `spdk_nvme_perf`, and the controller of this package
 * with `spdk_nvme_perf`, in turn, in one run, and prints the ratios:
 *
 *     npm run bench:peers -- --spdk-dir DIR [--rounds 5] [--seconds 1] [--json FILE] [--scaling] [--only TEXT]
 *     npm run bench:peers -- --spdk-dir DIR --malloc DIR,NQN --null DIR,NQN
 *
 * The second form uses a target that runs already. The target polls core 0, clients are bound to core 1; on a machine with
 * other work the figures mean nothing. With `--scaling` it measures how the cost grows instead.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { Rounds, warningOfStolen, type Round } from './rounds';
import { median } from './statistics';
import {
  OurServer,
  countMessages,
  runOurs,
  runPromises,
  runSpdkPerf,
  type Endpoints,
  type Measured,
  type Workload,
} from './peers-clients';
import { measureScaling } from './peers-scaling';
import { SpdkTarget, whyNoSpdk } from './spdk-target';

/** Two things to measure in turn. */
interface Comparison {
  readonly name: string;
  /** Least ratio of I/Os per second, ours to SPDK's. */
  readonly bar: number;
  /** Largest ratio of the 99.9th percentile. */
  readonly p999Bar?: number;
  readonly ours: () => Measured | Promise<Measured>;
  readonly spdk: () => Measured;
}

interface Row {
  readonly name: string;
  readonly bar: number;
  readonly met: boolean;
  readonly iopsRatio: number;
  readonly p999Ratio: number;
  readonly ours: Measured;
  readonly spdk: Measured;
  readonly rounds: readonly Round<Measured>[];
}

/** Messages of the shortest bring-up that is known (VERSION, one region info, one map, 8 register accesses). */
const LEAST_MESSAGES = 11;
/** As large as the target's malloc bdev. */
const SERVER_SIZE = '64m';
/** Writes all of the server's memory in a fraction of a second. */
const FILL: Workload = { rw: 'write', blockSize: 131072, depth: 32 };
/** Block size and depth of what spdk_nvme_perf does with both controllers, this package's and SPDK's. */
const SERVED = [512, 4096, 131072].flatMap((blockSize) =>
  [1, 32, 128].map((depth) => [blockSize, depth] as const),
);

function* comparisons(directory: string, endpoints: Endpoints, seconds: number): Generator<Comparison> {
  const pair = (bdev: 'malloc' | 'null', workload: Workload, bar: number, p999Bar?: number): Comparison => {
    const { path, nqn } = endpoints[bdev];
    const { rw, blockSize, depth } = workload;
    return {
      name: `${bdev}, ${rw} ${blockSize}, depth ${depth}`,
      bar,
      ...(p999Bar === undefined ? {} : { p999Bar }),
      ours: () => runOurs([path], workload, seconds),
      spdk: () => runSpdkPerf(directory, path, nqn, workload, seconds),
    };
  };
  const randread = (blockSize: number, depth: number): Workload => ({ rw: 'randread', blockSize, depth });
  yield pair('malloc', randread(4096, 1), 1.2, 1.2);
  yield pair('malloc', randread(4096, 32), 1);
  yield pair('malloc', randread(4096, 128), 1);
  for (const blockSize of [512, 4096]) {
    yield pair('null', randread(blockSize, 1), 1.3);
    yield pair('null', randread(blockSize, 32), 1);
    yield pair('null', randread(blockSize, 128), 1);
  }
  yield pair('malloc', { rw: 'read', blockSize: 131072, depth: 16 }, 1);
  const { path, nqn } = endpoints.malloc;
  yield {
    name: 'malloc, await read() 4096, depth 32',
    bar: 0.35,
    ours: () => runPromises(path, 32, seconds),
    spdk: () => runSpdkPerf(directory, path, nqn, randread(4096, 32), seconds),
  };
  const { target } = endpoints;
  if (target === undefined) {
    console.log("the controller of this package is not measured: SPDK's target would share its core");
    return;
  }
  for (const backend of ['memory', 'null'] as const) {
    const other = endpoints[backend === 'memory' ? 'malloc' : 'null'];
    for (const [blockSize, depth] of SERVED) {
      const workload = randread(blockSize, depth);
      yield {
        name: `serve nvme ${backend}, randread ${blockSize}, depth ${depth}`,
        bar: 1,
        ...(backend === 'memory' ? { p999Bar: 1.2 } : {}),
        ours: async () => {
          // The target polls the same core without pause.
          target.pause();
          const server = await OurServer.start(backend, SERVER_SIZE);
          try {
            // Memory that was never written is not there, and quick to read.
            if (backend === 'memory') runSpdkPerf(directory, server.folder, server.nqn, FILL, 1);
            return runSpdkPerf(directory, server.folder, server.nqn, workload, seconds);
          } finally {
            await server.stop();
            target.resume();
          }
        },
        spdk: () => runSpdkPerf(directory, other.path, other.nqn, workload, seconds),
      };
    }
  }
}

async function compare({ name, bar, p999Bar = Infinity, ...both }: Comparison, rounds: number): Promise<Row> {
  const all = new Rounds<Measured>(rounds);
  while (!all.done) await all.run(both.ours, both.spdk);
  const { best } = all;
  const of = (pick: (round: Round<Measured>) => number): number => median(best.map(pick));
  const side = (which: 'ours' | 'peer'): Measured => ({
    iops: of((each) => each[which].iops),
    p999: of((each) => each[which].p999),
    cpu: of((each) => each[which].cpu),
  });
  const iopsRatio = of(({ ours, peer }) => ours.iops / peer.iops);
  const p999Ratio = of(({ ours, peer }) => ours.p999 / peer.p999);
  return {
    name,
    bar,
    met: iopsRatio >= bar && (p999Bar === Infinity || p999Ratio <= p999Bar),
    iopsRatio,
    p999Ratio,
    ours: side('ours'),
    spdk: side('peer'),
    rounds: best,
  };
}

const COLUMNS = [40, 11, 11, 8, 7, 11, 11, 8, 6] as const;

function line(cells: readonly string[]): string {
  return cells
    .map((cell, index) => (index === 0 ? cell.padEnd(COLUMNS[0]) : cell.padStart(COLUMNS[index] ?? 0)))
    .join('');
}

function print(row: Row): void {
  const us = (value: number): string => (Number.isNaN(value) ? '-' : value.toFixed(1));
  const ratio = (value: number): string => (Number.isNaN(value) ? '-' : value.toFixed(2));
  console.log(
    line([
      row.name,
      row.ours.iops.toFixed(0),
      row.spdk.iops.toFixed(0),
      ratio(row.iopsRatio),
      row.bar.toFixed(2),
      us(row.ours.p999),
      us(row.spdk.p999),
      ratio(row.p999Ratio),
      row.met ? 'yes' : 'NO',
    ]),
  );
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      'spdk-dir': { type: 'string' },
      malloc: { type: 'string' },
      null: { type: 'string' },
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '1' },
      only: { type: 'string', default: '' },
      scaling: { type: 'boolean', default: false },
      json: { type: 'string' },
    },
  });
  const directory = values['spdk-dir'] ?? process.env['SPDK_DIR'];
  const running =
    values.malloc !== undefined && values.null !== undefined
      ? { malloc: endpoint(values.malloc), null: endpoint(values.null), target: undefined }
      : undefined;
  const problem = whyNoSpdk(directory, running !== undefined);
  if (directory === undefined || problem !== undefined)
    throw new Error(`SPDK cannot be measured: ${problem ?? 'its folder is not given'}`);
  const [rounds, seconds] = [Number(values.rounds), Number(values.seconds)];
  if (!(rounds >= 1 && seconds > 0)) throw new Error('--rounds and --seconds are numbers above 0');

  const machine = `${cpus()[0]?.model ?? 'unknown processor'}, ${availableParallelism()} cores, Linux ${release()}, Node ${process.version}`;
  console.log(`${machine}\nmedians of ${rounds} rounds of ${seconds} s, after 1 s of warm-up`);
  const endpoints = running ?? (await startTarget(directory));
  let result: object;
  try {
    result = values.scaling
      ? { scaling: measureScaling(endpoints, rounds, seconds) }
      : await compareAll(directory, endpoints, rounds, seconds, values.only);
  } finally {
    await endpoints.target?.stop();
  }
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ machine, rounds, seconds, ...result }, null, 2)}\n`);
}

async function compareAll(
  directory: string,
  endpoints: Endpoints,
  rounds: number,
  seconds: number,
  only: string,
): Promise<object> {
  console.log(
    line(['', 'ours IOPS', 'SPDK IOPS', 'ratio', 'bar', 'ours p99.9', 'SPDK p99.9', 'ratio', 'met']),
  );
  const rows: Row[] = [];
  for (const comparison of comparisons(directory, endpoints, seconds)) {
    if (!comparison.name.includes(only)) continue;
    const row = await compare(comparison, rounds);
    rows.push(row);
    print(row);
  }
  const warning = warningOfStolen(rows.flatMap((row) => row.rounds));
  if (warning !== undefined) console.log(warning);
  const messages = countMessages(endpoints.malloc.path);
  console.log(
    `messages from connect to the first completed I/O: ${messages} (bar: at most ${LEAST_MESSAGES})`,
  );
  return { rows, messages };
}

function endpoint(text: string): Endpoints['malloc'] {
  const [path = '', nqn] = text.split(',');
  if (nqn === undefined) throw new Error(`an endpoint is written DIR,NQN, not ${text}`);
  return { path, nqn };
}

async function startTarget(directory: string): Promise<Endpoints> {
  const target = await SpdkTarget.start(directory);
  return {
    malloc: { path: target.malloc, nqn: target.nqn('malloc') },
    null: { path: target.null, nqn: target.nqn('null') },
    target,
  };
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
