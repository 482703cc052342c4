// SPDX-License-Identifier: MIT
/**
 * Measures SPDK's vfio-user endpoints with `vfio-user bench` and with `spdk_nvme_perf`, in turn, in one run, and prints
 * the ratios: `npm run bench:peers -- --spdk-dir DIR [--rounds 5] [--seconds 2] [--json FILE]`.
 *
 * The target polls core 0, both clients are bound to core 1; on a machine with other work the figures mean nothing.
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, release } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { SpdkTarget, whyNoSpdk } from './spdk-target';

const MAIN = join(__dirname, '../../../dist/cli/main.js');
const CLIENT_CORE = 1;

/** What is measured: a backend, a workload, and the bar of the ratio of IOPS, ours to SPDK's. */
interface Case {
  readonly bdev: 'malloc' | 'null';
  readonly blockSize: number;
  readonly depth: number;
  readonly workload: 'randread' | 'read';
}

const CASES: readonly Case[] = [
  { bdev: 'malloc', blockSize: 4096, depth: 1, workload: 'randread' },
  { bdev: 'malloc', blockSize: 4096, depth: 32, workload: 'randread' },
  { bdev: 'malloc', blockSize: 4096, depth: 128, workload: 'randread' },
  { bdev: 'null', blockSize: 512, depth: 1, workload: 'randread' },
  { bdev: 'null', blockSize: 512, depth: 32, workload: 'randread' },
  { bdev: 'null', blockSize: 512, depth: 128, workload: 'randread' },
  { bdev: 'null', blockSize: 4096, depth: 1, workload: 'randread' },
  { bdev: 'null', blockSize: 4096, depth: 32, workload: 'randread' },
  { bdev: 'null', blockSize: 4096, depth: 128, workload: 'randread' },
  { bdev: 'malloc', blockSize: 131072, depth: 16, workload: 'read' },
];

interface Measured {
  readonly iops: number;
  /** Microseconds. */
  readonly p999: number;
}

interface FioJson {
  readonly jobs: readonly {
    readonly read: {
      readonly iops: number;
      readonly clat_ns: { readonly percentile: Readonly<Record<string, number>> };
    };
  }[];
}

function ours(endpoint: string, { blockSize, depth, workload }: Case, seconds: number): Measured {
  const options = [
    '--rw',
    workload,
    '--bs',
    String(blockSize),
    '--iodepth',
    String(depth),
    '--runtime',
    String(seconds),
  ];
  const command = [process.execPath, MAIN, 'bench', endpoint, ...options, '--output-format', 'json'];
  const text = execFileSync('taskset', ['-c', String(CLIENT_CORE), ...command], { encoding: 'utf8' });
  const read = (JSON.parse(text) as FioJson).jobs[0]?.read;
  if (read === undefined) throw new Error('vfio-user bench reported no job');
  return { iops: read.iops, p999: (read.clat_ns.percentile['99.900000'] ?? NaN) / 1000 };
}

function spdk(
  directory: string,
  endpoint: string,
  nqn: string,
  { blockSize, depth, workload }: Case,
  seconds: number,
): Measured {
  const address = `trtype:VFIOUSER traddr:${endpoint} subnqn:${nqn}`;
  const options = [
    '-q',
    depth,
    '-o',
    blockSize,
    '-w',
    workload,
    '-t',
    seconds,
    '-c',
    `0x${(1 << CLIENT_CORE).toString(16)}`,
  ];
  const text = execFileSync(
    join(directory, 'build/bin/spdk_nvme_perf'),
    ['-r', address, ...options.map(String), '-s', '256', '-g', '-L'],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const iops = Number(/^Total\s+:\s+([\d.]+)/m.exec(text)?.[1]);
  const p999 = Number(/^\s*99\.90000%\s*:\s+([\d.]+)us/m.exec(text)?.[1]);
  if (!(iops > 0)) throw new Error(`spdk_nvme_perf printed no result:\n${text}`);
  return { iops, p999 };
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] ?? NaN)) / 2;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      'spdk-dir': { type: 'string' },
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '2' },
      json: { type: 'string' },
    },
  });
  const directory = values['spdk-dir'] ?? process.env['SPDK_DIR'];
  const problem = whyNoSpdk(directory);
  if (directory === undefined || problem !== undefined)
    throw new Error(`SPDK cannot be measured: ${problem ?? ''}`);
  const rounds = Number(values.rounds);
  const seconds = Number(values.seconds);

  console.log(
    `${cpus()[0]?.model ?? 'unknown processor'}, ${availableParallelism()} cores, Linux ${release()}, Node ${process.version}`,
  );
  console.log(`medians of ${rounds} rounds of ${seconds} s; ratio: ours / SPDK's`);
  const target = await SpdkTarget.start(directory);
  const results = [];
  try {
    console.log(
      `${'case'.padEnd(28)}${'ours IOPS'.padStart(12)}${'SPDK IOPS'.padStart(12)}${'ratio'.padStart(8)}${'ours p99.9'.padStart(12)}${'SPDK p99.9'.padStart(12)}${'ratio'.padStart(8)}`,
    );
    for (const measured of CASES) {
      const endpoint = target[measured.bdev];
      const nqn = target.nqn(measured.bdev);
      const pairs: { ours: Measured; spdk: Measured }[] = [];
      for (let round = 0; round < rounds; round++) {
        pairs.push({
          ours: ours(endpoint, measured, seconds),
          spdk: spdk(directory, endpoint, nqn, measured, seconds),
        });
      }
      const of = (pick: (pair: { ours: Measured; spdk: Measured }) => number): number =>
        median(pairs.map(pick));
      const row = {
        ...measured,
        oursIops: of((pair) => pair.ours.iops),
        spdkIops: of((pair) => pair.spdk.iops),
        iopsRatio: of((pair) => pair.ours.iops / pair.spdk.iops),
        oursP999: of((pair) => pair.ours.p999),
        spdkP999: of((pair) => pair.spdk.p999),
        p999Ratio: of((pair) => pair.ours.p999 / pair.spdk.p999),
        pairs,
      };
      results.push(row);
      const name = `${measured.bdev} ${measured.blockSize} ${measured.workload} qd${measured.depth}`;
      console.log(
        name.padEnd(28) +
          row.oursIops.toFixed(0).padStart(12) +
          row.spdkIops.toFixed(0).padStart(12) +
          row.iopsRatio.toFixed(2).padStart(8) +
          `${row.oursP999.toFixed(1)} us`.padStart(12) +
          `${row.spdkP999.toFixed(1)} us`.padStart(12) +
          row.p999Ratio.toFixed(2).padStart(8),
      );
    }
  } finally {
    await target.stop();
  }
  if (values.json !== undefined)
    writeFileSync(values.json, JSON.stringify({ rounds, seconds, results }, null, 2));
}

main().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
});
