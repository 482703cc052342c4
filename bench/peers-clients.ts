// SPDX-License-Identifier: MIT
/** The clients that `bench:peers` runs, each in a process of its own, bound to one core; and what they print. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SpdkTarget } from './spdk-target';

const ROOT = join(__dirname, '../../..');
const MAIN = join(ROOT, 'dist/cli/main.js');
/** The target polls core 0. */
const TARGET_CORE = 0;
const CLIENT_CORE = 1;
/** Seconds of both sides' warm-up, which is not measured. */
const WARM_UP = 1;

/** Endpoints of SPDK's target. */
export interface Endpoints {
  readonly malloc: { readonly path: string; readonly nqn: string };
  readonly null: { readonly path: string; readonly nqn: string };
  /** Undefined for a target that is not this script's to stop. */
  readonly target: SpdkTarget | undefined;
}

/** What to run against an endpoint. */
export interface Workload {
  readonly rw: 'randread' | 'read' | 'write';
  readonly blockSize: number;
  readonly depth: number;
  readonly jobs?: number;
}

/** What one run gave. */
export interface Measured {
  readonly iops: number;
  /** 99.9th percentile of the latency in microseconds; NaN where a client does not tell. */
  readonly p999: number;
  /** Processor time of the client in microseconds per I/O; NaN where it does not tell. */
  readonly cpu: number;
}

interface FioJob {
  readonly usr_cpu: number;
  readonly sys_cpu: number;
  readonly read: {
    readonly iops: number;
    readonly clat_ns: { readonly percentile: Readonly<Record<string, number>> };
  };
}

function onClientCore(command: readonly string[]): string {
  return execFileSync('taskset', ['-c', String(CLIENT_CORE), ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 26,
  });
}

/** `vfio-user bench`, of several endpoints their sum. */
export function runOurs(endpoints: readonly string[], workload: Workload, seconds: number): Measured {
  const { rw, blockSize, depth, jobs = 1 } = workload;
  const options = Object.entries({
    rw,
    bs: blockSize,
    iodepth: depth,
    numjobs: jobs,
    runtime: seconds,
    'ramp-time': WARM_UP,
    'output-format': 'json',
  }).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const text = onClientCore([process.execPath, MAIN, 'bench', ...endpoints, ...options]);
  const { jobs: parts } = JSON.parse(text) as { jobs: readonly FioJob[] };
  const iops = parts.reduce((sum, { read }) => sum + read.iops, 0);
  const percent = parts.reduce((sum, { usr_cpu, sys_cpu }) => sum + usr_cpu + sys_cpu, 0);
  const p999 = Math.max(...parts.map(({ read }) => read.clat_ns.percentile['99.900000'] ?? NaN));
  // fio's percentages are those of a job.
  return { iops, p999: p999 / 1000, cpu: ((percent * jobs) / 100 / iops) * 1e6 };
}

/** `await namespace.read()`, in `depth` loops. */
export function runPromises(endpoint: string, depth: number, seconds: number): Measured {
  const script = join(__dirname, 'promise-reads.js');
  const text = onClientCore([
    process.execPath,
    script,
    endpoint,
    String(depth),
    String(WARM_UP),
    String(seconds),
  ]);
  return { iops: Number(text), p999: NaN, cpu: NaN };
}

/** vfio-user messages that this library sends from connect to the first completed I/O. */
export function countMessages(endpoint: string): number {
  return Number(onClientCore([process.execPath, join(__dirname, 'count-messages.js'), endpoint]));
}

/** SPDK's own client. */
export function runSpdkPerf(
  directory: string,
  endpoint: string,
  nqn: string,
  { rw, blockSize, depth }: Workload,
  seconds: number,
): Measured {
  const options = Object.entries({
    r: `trtype:VFIOUSER traddr:${endpoint} subnqn:${nqn}`,
    q: depth,
    o: blockSize,
    w: rw,
    t: seconds,
    a: WARM_UP,
    c: `0x${(1 << CLIENT_CORE).toString(16)}`,
    s: 256,
  }).flatMap(([name, value]) => [`-${name}`, String(value)]);
  const text = execFileSync(join(directory, 'build/bin/spdk_nvme_perf'), [...options, '-g', '-L'], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const iops = Number(/^Total\s+:\s+([\d.]+)/m.exec(text)?.[1]);
  const p999 = Number(/^\s*99\.90000%\s*:\s+([\d.]+)us/m.exec(text)?.[1]);
  if (!(iops > 0)) throw new Error(`spdk_nvme_perf printed no result:\n${text}`);
  return { iops, p999, cpu: 1e6 / iops };
}

/** The controller of this package, in a process of its own on the target's core. */
export class OurServer {
  /** NVMe qualified name for SPDK's client, which wants one; the controller has none. */
  readonly nqn = 'nqn.2019-07.io.spdk:cnode1';
  readonly folder: string;
  readonly #child: ChildProcess;

  private constructor(folder: string, child: ChildProcess) {
    this.folder = folder;
    this.#child = child;
  }

  static async start(backend: 'memory' | 'null', size: string): Promise<OurServer> {
    const folder = mkdtempSync(join(tmpdir(), 'vfio-user-'));
    const options = ['--socket', folder, '--backend', backend, '--size', size];
    const command = ['-c', String(TARGET_CORE), process.execPath, MAIN, 'serve', 'nvme', ...options];
    const child = spawn('taskset', command, { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    return new OurServer(folder, child);
  }

  async stop(): Promise<void> {
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await ended;
    rmSync(this.folder, { recursive: true, force: true });
  }
}
