// SPDX-License-Identifier: MIT
/** Benchmarks over dist/, in a process of their own: their jobs run in worker threads. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import type { JobResult } from '../../lib/bench/job-result';
import { childServer, type ChildServer } from '../client/child-server';
import { dist } from '../dist';

interface ToldEndpoint {
  readonly target: Record<string, unknown>;
  readonly jobs: readonly JobResult[];
}

/** What a run told. `result` has target and jobs of the first endpoint, and the sums of all jobs, by themselves too. */
export interface Told {
  readonly error?: { name: string; code: string; message: string };
  readonly result?: {
    verified: number;
    mismatches: number;
    interrupted: boolean;
    failure?: { code: string; message: string };
    endpoints: readonly ToldEndpoint[];
  } & ToldEndpoint;
  readonly progress: number;
  /** Whether the run got as far as its first I/O. */
  readonly started: boolean;
  /** Milliseconds. */
  readonly wall: number;
  /** Open descriptors, and mappings of files and shared memory, when the run had ended. */
  readonly left: { readonly fds: number; readonly maps: number };
}

/**
 * Runs benchmarks one after the other over the same connections.
 *
 * @param extra code that runs before each, with `options`, `one` (what is told), `devices`, and `settle`, which is to be
 *   set where `left` shall tell of what is left for good: threads that have reported end a little later
 */
export async function run(
  servers: ChildServer | readonly ChildServer[],
  runs: Record<string, unknown>[],
  extra = '',
): Promise<Told[]> {
  const paths = [servers].flat().map((server) => server.path);
  const script = `
    const fs = require('node:fs');
    const { connect } = require(${JSON.stringify(dist)});
    const { benchmark } = require(${JSON.stringify(join(dist, 'bench', 'benchmark'))});
    const { mergeResults } = require(${JSON.stringify(join(dist, 'bench', 'job-result'))});
    const left = () => ({
      fds: fs.readdirSync('/proc/self/fd').length,
      maps: fs.readFileSync('/proc/self/maps', 'utf8').split('\\n').filter((line) => /memfd|shm|deleted/.test(line)).length,
    });
    (async () => {
      const told = [];
      let settle = false;
      const devices = [];
      for (const path of ${JSON.stringify(paths)}) devices.push(await connect(path));
      for (const options of ${JSON.stringify(runs)}) {
        const one = { progress: 0, started: false };
        const defaults = {
          workload: 'randread', blockSize: 4096, depth: 8, jobs: 1, verify: false, seed: 1,
          onProgress: () => { one.progress++; }, onStart: () => { one.started = true; },
        };
        const began = performance.now();
        try {
          ${extra}
          const all = { ...defaults, ...options };
          const result = await benchmark(devices, [all], all);
          const failure = result.failure && { code: result.failure.code, message: result.failure.message };
          const { verified, mismatches } = mergeResults(result.parts.flatMap(({ jobs }) => jobs));
          one.result = { ...result, endpoints: result.parts, ...result.parts[0], verified, mismatches, failure };
        } catch ({ name, code, message }) {
          one.error = { name, code, message };
        }
        one.wall = performance.now() - began;
        const [first] = told;
        for (let tries = 0; tries < (settle ? 50 : 1); tries++) {
          if (settle) await new Promise((resolve) => setTimeout(resolve, 100));
          one.left = left();
          if (first === undefined || (one.left.fds <= first.left.fds && one.left.maps <= first.left.maps)) break;
        }
        told.push(one);
      }
      for (const device of devices) await device.close();
      process.stdout.write(JSON.stringify(told));
    })();`;
  const client = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  client.stdout.setEncoding('utf8').on('data', (part: string) => (text += part));
  const [code] = (await once(client, 'close')) as [number | null];
  expect(code).toBe(0);
  return JSON.parse(text) as Told[];
}

/** A controller whose answer to any question is its statistics. */
export function countingController(options = ''): Promise<ChildServer> {
  return childServer(`
    const model = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 16 << 20 }), serial: 'CHILD', ${options} });
    onMessage = () => model.statistics;
    return model;
  `);
}
