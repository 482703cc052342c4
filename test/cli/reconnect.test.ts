// SPDX-License-Identifier: MIT
/** `bench --reconnect`: servers in processes of their own are killed under the benchmark, and started again, or not. */
import { mkdtempSync, readFileSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ControllerStatistics } from '../../lib/nvme/controller/statistics';
import { childServer, type ChildServer } from '../client/child-server';
import { until } from '../support/wait';
import { Scratch, cli, failure, startCli, type Running } from './run-cli';

jest.setTimeout(180_000);

const SIZE = 8 << 20;
const BLOCK = 4096;

/** A drive at a path, whose server is killed and started again. */
class Drive {
  readonly #directory = mkdtempSync(join(tmpdir(), 'vfio-user-drive-'));
  readonly socket = join(this.#directory, 'cntrl');
  readonly file = join(this.#directory, 'drive');
  readonly #options: string;
  readonly #backend: string;
  #server: ChildServer | null = null;

  /** @param options of the controller, as source */
  constructor(options = '', backend: 'file' | 'memory' = 'file') {
    this.#options = options;
    this.#backend =
      backend === 'file'
        ? `{ kind: 'file', path: ${JSON.stringify(this.file)} }`
        : `{ kind: 'memory', size: ${SIZE} }`;
    writeFileSync(this.file, new Uint8Array(SIZE));
  }

  async start(): Promise<void> {
    this.#server = await childServer(
      `
        const model = new NvmeControllerModel({ backend: createBackend(${this.#backend}), ${this.#options} });
        onMessage = () => model.statistics;
        return model;
      `,
      { TEST_SOCKET: this.socket },
    );
  }

  async kill(): Promise<void> {
    await this.#server?.kill();
  }

  /** Waits until this server has completed so many reads and writes. */
  async measured(commands: number, running: Running): Promise<void> {
    let ended = false;
    void running.ended.then(() => (ended = true));
    await until(async () => {
      const { readCommands, writeCommands } = (await this.#server!.ask('')) as ControllerStatistics;
      if (ended) throw new Error(`the run ended before: ${JSON.stringify(await running.ended)}`);
      return readCommands + writeCommands >= commands;
    }, `${commands} commands are done`);
  }

  async remove(): Promise<void> {
    await this.kill();
    rmSync(this.#directory, { recursive: true });
  }
}

let scratch: Scratch;
let drive: Drive;
beforeEach(() => {
  scratch = new Scratch();
  drive = new Drive();
});
afterEach(async () => {
  scratch.remove();
  await drive.remove();
});

interface Report {
  readonly jobs: {
    error: number;
    read: { total_ios: number };
    write: { total_ios: number; iops_min: number };
    'vfio-user': {
      ended: { reason: string };
      verified: number;
      mismatches: number;
      gaps: { at: number; back: boolean; away: number; first_io: number | null; resubmitted: number }[];
    };
  }[];
}

test.each([
  ['poll', 'mapped doorbells', '', 2],
  ['adaptive', 'mapped doorbells', '', 1],
  ['interrupt', 'mapped doorbells', '', 2],
  ['poll', 'doorbells by message', 'mappableDoorbells: false', 1],
  ['interrupt', 'doorbells by message', 'mappableDoorbells: false', 2],
])('a verified run survives kills: %s, %s', async (completion, _doorbells, options, jobs) => {
  const kills = 5;
  await drive.remove();
  drive = new Drive(options);
  await drive.start();
  const args = ['--rw', 'randwrite', '--bs', String(BLOCK), '--iodepth', '8', '--numjobs', String(jobs)];
  // Slow enough that it is not over before it was killed so often.
  const more = ['--rate_iops', String(600 / jobs), '--verify', '--completion', completion];
  const running = startCli(
    scratch,
    'bench',
    drive.socket,
    '--reconnect',
    ...args,
    ...more,
    '--output-format',
    'json',
  );
  for (let kill = 0; kill < kills; kill++) {
    await drive.measured(40, running);
    await drive.kill();
    await drive.start();
  }
  const { stdout, stderr, status } = await running.ended;
  expect([status, stderr]).toEqual([0, expect.stringMatching(/^[^\n]+ overwrites all of [^\n]+\n$/)]);
  const [job] = (JSON.parse(stdout) as Report).jobs;
  expect(job).toMatchObject({
    error: 0,
    write: { total_ios: SIZE / BLOCK },
    'vfio-user': { ended: { reason: 'finished' }, verified: SIZE / BLOCK, mismatches: 0 },
  });
  const { gaps } = job!['vfio-user'];
  expect(gaps).toHaveLength(kills);
  let after = 0;
  for (const gap of gaps) {
    expect(gap.back).toBe(true);
    expect(gap.at).toBeGreaterThanOrEqual(after);
    expect(gap.away).toBeGreaterThan(0);
    expect(gap.first_io).toBeGreaterThan(0);
    expect(gap.resubmitted).toBeLessThanOrEqual(8 * jobs);
    after = gap.at + gap.away;
  }
});

test('a drive that comes back without its data is another drive', async () => {
  await drive.remove();
  drive = new Drive('', 'memory');
  await drive.start();
  const args = ['--rw', 'randwrite', '--verify', '--rate_iops', '500'];
  const running = startCli(scratch, 'bench', drive.socket, '--reconnect', ...args);
  await drive.measured(40, running);
  await drive.kill();
  await drive.start();
  const { stdout, stderr, status } = await running.ended;
  expect(status).toBe(1);
  const told = /\nfailed: ([^\n]+)\n/.exec(stdout)?.[1];
  expect(told).toMatch(
    /^\S+ was replaced during the run: \S+ came back as another drive: .*sn is VFU\w+, and was VFU\w+/,
  );
  expect(told).toContain('a drive in memory loses its data with its server');
  expect(stderr).toContain(`vfio-user: ${told}\n`);
  expect(stdout).toMatch(/\nwrite +[1-9]/);
  expect(stdout).toMatch(
    /\ngap: at \S+ the server was away for \S+; no I\/O was completed when it was back; \d+ I\/Os? sent again\n/,
  );
  expect(stdout).toContain('\nverify: nothing was verified: the run ended before\n');
});

test('a server that does not come back: the run ends as without --reconnect, when it has waited', async () => {
  await drive.start();
  const page = scratch.file('page.html');
  const timeout = ['--reconnect', '--reconnect-timeout', '300ms'];
  const running = startCli(scratch, 'bench', drive.socket, '--runtime', '600', ...timeout, '--report', page);
  await drive.measured(100, running);
  await drive.kill();
  const { stdout, stderr, status } = await running.ended;
  expect(status).toBe(3);
  expect(stderr).toMatch(
    /^vfio-user: \S+ went away during the run: \S+ did not come back within 300 ms [^\n]+\n$/,
  );
  expect(stdout).toMatch(/\nread +[1-9]/);
  expect(stdout).toMatch(
    /\ngap: at \S+ the server went away, and was not back \S+ later, with \d+ I\/Os? in flight\n/,
  );
  expect(readFileSync(page, 'utf8')).toMatch(/Gaps: the server was away[^]*, not back/);
});

test('Ctrl-C in a gap: what was measured is told', async () => {
  await drive.start();
  const running = startCli(
    scratch,
    'bench',
    drive.socket,
    '--runtime',
    '600',
    '--reconnect',
    '--numjobs',
    '2',
  );
  await drive.measured(100, running);
  await drive.kill();
  // Whoever connects now waits for an answer; the tool does so because it is in a gap.
  unlinkSync(drive.socket);
  const server = createServer().listen(drive.socket);
  try {
    await connection(server);
    running.kill('SIGINT');
    const { stdout, stderr, status } = await running.ended;
    expect([status, stderr]).toEqual([4, '']);
    expect(stdout).toMatch(/\nread +[1-9]/);
    expect(stdout).toMatch(
      /\ngap: at \S+ the server went away, and was not back \S+ later, with \d+ I\/Os? in flight\n/,
    );
    expect(stdout).toContain('\ninterrupted: ');
  } finally {
    server.close();
  }
});

function connection(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.on('connection', (socket) => {
      socket.on('error', () => undefined);
      resolve();
    });
  });
}

test('reports of the run so far go on in a gap', async () => {
  await drive.start();
  const options = ['--runtime', '600', '--reconnect', '--status-interval', '100ms'];
  const running = startCli(scratch, 'bench', drive.socket, ...options);
  await drive.measured(100, running);
  await drive.kill();
  await running.said('\ngap: at ');
  running.kill('SIGINT');
  expect(await running.ended).toMatchObject({ status: 4 });
});

test.each([
  [['@socket', '--reconnect-timeout', '5'], '--reconnect-timeout goes with --reconnect'],
  [
    ['--reconnect'],
    '--reconnect waits for a server that somebody starts again; name its endpoint, as the controller that bench starts by itself ends with it',
  ],
  [
    ['@socket', '--reconnect', '--latency_target', '1ms'],
    '--reconnect and --latency_target contradict each other: the search would take a gap for latency; leave one out',
  ],
])('%j makes no sense', async (args, line) => {
  expect(await cli(scratch, 'bench', ...args)).toEqual(failure(2, line));
});
