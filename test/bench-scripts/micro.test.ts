// SPDX-License-Identifier: MIT
/** Runs the micro-benchmark with tiny counts over dist/. That it runs is tested, how fast anything is is not. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findCompiler } from '../../bench/micro-programs';
import { until } from '../server/support';
import { transpiled } from '../support/transpiled';

const compiler = findCompiler();
const withCompiler = compiler === undefined ? test.skip : test;

const built = transpiled('bench', 'lib/protocol', 'lib');
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'micro-test-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const script = (): string => join(built, 'bench', 'micro.js');
const environment = (): NodeJS.ProcessEnv => ({ ...process.env, TMPDIR: folder });

/** Processes whose program is in the test's folder. */
function running(): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith(folder);
    } catch {
      return false;
    }
  });
}

if (compiler === undefined) test.skip('needs a C compiler: neither cc nor gcc runs', () => undefined);

withCompiler('measures every row, writes JSON, and leaves nothing behind', () => {
  const json = join(folder, 'out.json');
  const run = spawnSync(process.execPath, [script(), '--quick', '--rounds', '2', '--json', json], {
    encoding: 'utf8',
    env: environment(),
    timeout: 55_000,
  });
  expect(run).toMatchObject({ status: 0, stderr: '' });
  const report: unknown = JSON.parse(readFileSync(json, 'utf8'));
  const positive = expect.any(Number) as number;
  const sample = { ours: positive, peer: positive, stolen: positive };
  const row = (id: string, bar: number | null): object => ({
    id,
    bar,
    name: expect.any(String) as string,
    ours: positive,
    c: positive,
    ratio: positive,
    met: bar === null ? null : (expect.any(Boolean) as boolean),
    samples: [sample, sample],
  });
  const codec = (name: string): object => ({ name, nanoseconds: positive });
  expect(report).toEqual({
    machine: {
      cpu: expect.any(String) as string,
      cores: positive,
      kernel: expect.any(String) as string,
      node: process.version,
      idle: positive,
      bound: false,
    },
    rounds: 2,
    rows: [
      row('sync-read', 0.8),
      row('sync-read-awake', 0.8),
      row('pipelined-reads', 0.25),
      row('mapped-read', 3),
      row('mapped-read-argument', null),
      row('mapped-read-single', null),
      row('mapped-read-chained', null),
      row('mapped-read-closed', null),
      row('mapped-read-sync', null),
      row('interrupt', 1.3),
      row('interrupt-adaptive', 0.3),
      row('dma-batch', 0.25),
      row('served-read', 1),
      row('served-read-adaptive', 0.6),
    ],
    codecs: [
      codec('header, encode'),
      codec('header, decode'),
      codec('REGION_READ request, encode'),
      codec('REGION_READ request, decode'),
      codec('DMA_MAP request, encode'),
      codec('DMA_MAP request, decode'),
    ],
  });
  // Times are numbers above 0, and each row is in the table.
  const { rows } = report as { rows: { name: string; ours: number; c: number; ratio: number }[] };
  for (const { name, ours, c, ratio } of rows) {
    expect(Math.min(ours, c, ratio)).toBeGreaterThan(0);
    expect(run.stdout).toContain(name);
  }
  expect(readdirSync(folder)).toEqual(['out.json']);
  expect(running()).toEqual([]);
});

withCompiler('ends at once when interrupted, and leaves nothing behind', async () => {
  const child: ChildProcess = spawn(process.execPath, [script(), '--quick', '--rounds', '100000'], {
    env: environment(),
    stdio: 'ignore',
  });
  const ended = once(child, 'exit');
  await until(() => running().length > 0);
  child.kill('SIGINT');
  expect(await ended).toEqual([130, null]);
  await until(() => running().length === 0);
  expect(readdirSync(folder)).toEqual([]);
});

withCompiler('measures another server by its socket, and says when there is none', () => {
  const endpoint = join(folder, 'nobody');
  const run = spawnSync(process.execPath, [script(), '--quick', '--endpoint', endpoint], {
    encoding: 'utf8',
    env: environment(),
    timeout: 15_000,
  });
  expect(run.status).toBe(1);
  expect(run.stderr).toContain(endpoint);
  expect(readdirSync(folder)).toEqual([]);
});

test.each([
  ['a compiler that does not run', { CC: '/nonexistent/cc' }, [], 'needs a C compiler'],
  ['no rounds', {}, ['--rounds', '0'], '--rounds is a number from 1 on'],
])('%s is told in a word', (_what, more, options, told) => {
  const run = spawnSync(process.execPath, [script(), '--quick', ...options], {
    encoding: 'utf8',
    env: { ...environment(), ...more },
    timeout: 15_000,
  });
  expect(run.status).toBe(1);
  expect(run.stderr).toContain(told);
  expect(run.stderr.trim().split('\n')).toHaveLength(1);
  expect(readdirSync(folder)).toEqual([]);
});

withCompiler('a row that does not exist is told, with those that do', () => {
  const run = spawnSync(process.execPath, [script(), '--quick', '--rows', 'sync-read,x'], {
    encoding: 'utf8',
    env: environment(),
    timeout: 15_000,
  });
  expect(run.status).toBe(1);
  expect(run.stderr).toMatch(/sync-read, .*served-read-adaptive, but not x/);
  expect(readdirSync(folder)).toEqual([]);
});
