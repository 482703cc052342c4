// SPDX-License-Identifier: MIT
/** How the tool gives up on a target that has stopped. The targets are processes of their own, which a signal stops. */
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import type { ControllerStatistics } from '../../lib/nvme/controller/statistics';
import { countingController } from '../bench/run-benchmark';
import { childServer, type ChildServer } from '../client/child-server';
import { until } from '../support/wait';
import { Scratch, cli, startCli, type Outcome, type Running } from './run-cli';

jest.setTimeout(90_000);

/**
 * Milliseconds from the stop of a target to the end of the tool: the rest of the run, the 5 s in which it gives up, and plenty
 * for a machine that is busy. Without one deadline for all it takes at least 50 s.
 */
const GENEROUS_MILLISECONDS = 25_000;

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

/** Waits until a target is measured: until it has had more commands than are in flight at once, and some are complete. */
async function measuring(server: ChildServer, commands = 200): Promise<void> {
  await until(async () => {
    const { readCommands, writeCommands } = (await server.ask('')) as ControllerStatistics;
    return readCommands + writeCommands > commands;
  }, 'the target is measured');
}

/** Stops a target while it is measured. */
async function stopDuring(server: ChildServer, commands?: number): Promise<void> {
  await measuring(server, commands);
  server.process.kill('SIGSTOP');
}

async function endSoon(running: Running): Promise<Outcome> {
  const began = performance.now();
  const outcome = await running.ended;
  expect(performance.now() - began).toBeLessThan(GENEROUS_MILLISECONDS);
  return outcome;
}

/** Shorter than the default, which is waited for in one test. */
const SHORT = ['--timeout', '1500ms'];

const ADVICE = 'look at its server, or wait longer with --timeout';

describe.each([
  ['mapped doorbells', 'poll', ''],
  ['mapped doorbells', 'interrupt', ''],
  ['doorbells by message', 'poll', 'mappableDoorbells: false'],
  ['doorbells by message', 'adaptive', 'mappableDoorbells: false'],
])('a target that is stopped, with %s (%s)', (doorbells, completion, options) => {
  test('during the run: the report tells what was measured, and why it ended', async () => {
    const server = await countingController(options);
    const page = scratch.file('page.html');
    const patience = doorbells === 'mapped doorbells' && completion === 'poll' ? [] : SHORT;
    const args = ['--runtime', '3', '--completion', completion, '--report', page, ...patience];
    const running = startCli(scratch, 'bench', server.path, ...args);
    await stopDuring(server);
    const { stdout, stderr, ...rest } = await endSoon(running);
    expect(rest).toEqual({ status: 3, signal: null });
    expect(stdout).toContain(doorbells);
    expect(stdout).toMatch(/\nread +[1-9]\d* /);
    const told = /\nfailed: (.*)\n/.exec(stdout)?.[1] ?? '';
    expect(told).toMatch(/^@\S+ stopped completing commands: none in [\d.]+ s, with \d+ in flight; /);
    expect(told).toContain(ADVICE);
    expect(stderr).toBe(`vfio-user: ${told}\n`);
    expect(readFileSync(page, 'utf8')).toContain('stopped completing commands');
  });

  test('and Ctrl-C: it is waited for no longer than --timeout', async () => {
    const server = await countingController(options);
    const args = ['--runtime', '600', '--completion', completion, ...SHORT];
    const running = startCli(scratch, 'bench', server.path, ...args);
    await stopDuring(server);
    running.kill('SIGINT');
    const { stdout, ...rest } = await endSoon(running);
    expect(rest).toMatchObject({ status: 3, signal: null });
    expect(stdout).toMatch(/\nread +[1-9]\d* /);
    // On a busy machine the target may have stopped between two commands: then it is its shutdown that is waited for.
    expect(stdout).toMatch(/\nfailed: @\S+ stopped (completing commands|answering while it was shut down)/);
    expect(stdout).toContain(
      'interrupted: the run did not come to its end; these are the results up to then\n',
    );
  });

  test('and Ctrl-C twice: it is not waited for at all', async () => {
    const server = await countingController(options);
    const args = ['--runtime', '600', '--completion', completion, '--timeout', '600'];
    const running = startCli(scratch, 'bench', server.path, ...args);
    await stopDuring(server);
    running.kill('SIGINT');
    // One kind of signal would be delivered once.
    running.kill('SIGTERM');
    const { stdout, ...rest } = await endSoon(running);
    expect(rest).toMatchObject({ status: 3, signal: null });
    expect(stdout).toMatch(/\nread +[1-9]\d* /);
    expect(stdout).toMatch(/\nfailed: @\S+ (stopped completing commands|had \d+ commands? in flight)/);
  });
});

test('JSON tells of a target that stops while what was written is to be verified', async () => {
  const server = await countingController();
  const args = ['--rw', 'write', '--bs', '512', '--iodepth', '1', '--verify', '--runtime', '3', ...SHORT];
  const running = startCli(scratch, 'bench', server.path, ...args, '--output-format', 'json');
  // One at a time: a busy machine does not get far in the time of the run.
  await stopDuring(server, 10);
  const { stdout, status } = await endSoon(running);
  expect(status).toBe(3);
  const { jobs } = JSON.parse(stdout) as { jobs: { usr_cpu: number; write: { total_ios: number } }[] };
  expect(jobs).toMatchObject([
    { error: 110, 'vfio-user': { ended: { reason: 'stalled' }, verified: 0, mismatches: 0 } },
  ]);
  expect(jobs[0]?.write.total_ios).toBeGreaterThan(0);
  expect(jobs[0]?.usr_cpu).toBeGreaterThan(0);
});

test('JSON tells of a target that was killed', async () => {
  const server = await countingController('mappableDoorbells: false');
  const running = startCli(scratch, 'bench', server.path, '--runtime', '600', '--output-format', 'json');
  await measuring(server);
  server.process.kill('SIGKILL');
  const { stdout, status } = await endSoon(running);
  expect(status).toBe(3);
  const { jobs } = JSON.parse(stdout) as { jobs: { usr_cpu: number }[] };
  expect(jobs).toMatchObject([{ error: 104, 'vfio-user': { ended: { reason: 'lost' } } }]);
  expect(jobs[0]?.usr_cpu).toBeGreaterThan(0);
});

test('an interrupted verification says that it has verified nothing', async () => {
  const server = await countingController();
  const args = ['--rw', 'write', '--verify', '--runtime', '600'];
  const running = startCli(scratch, 'bench', server.path, ...args);
  await measuring(server);
  running.kill('SIGINT');
  const { stdout, status } = await running.ended;
  expect(status).toBe(4);
  expect(stdout).toContain('\nverify: nothing was verified: the run ended before\n');
});

test('a target that is stopped before it is connected to', async () => {
  const server = await countingController();
  server.process.kill('SIGSTOP');
  const running = startCli(scratch, 'bench', server.path, '--connect-timeout', '500ms');
  expect(await endSoon(running)).toMatchObject({ status: 3, stdout: '' });
});

test('a target that stops while it is brought up: nothing more is asked of it', async () => {
  const server = await childServer(`
    const model = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 16 << 20 }) });
    const bar = model.pci.bars?.[0];
    const write = bar.write.bind(bar);
    bar.write = (offset, data, posted) => {
      if (offset === 0x14) process.kill(process.pid, 'SIGSTOP');
      return write(offset, data, posted);
    };
    return model;
  `);
  const running = startCli(scratch, 'bench', server.path, ...SHORT);
  const { stderr, ...rest } = await endSoon(running);
  expect(rest).toEqual({ status: 3, signal: null, stdout: '' });
  expect(stderr).toBe(`vfio-user: ${server.path} stopped answering before the run; ${ADVICE}\n`);
});

test('a target that stops when the run is over: its results are there', async () => {
  const server = await childServer(`
    const model = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 16 << 20 }) });
    const bar = model.pci.bars?.[0];
    const write = bar.write.bind(bar);
    bar.write = (offset, data, posted) => {
      // CC.SHN, the shutdown notification.
      if (offset === 0x14 && (data[1] & 0xc0) !== 0) process.kill(process.pid, 'SIGSTOP');
      return write(offset, data, posted);
    };
    return model;
  `);
  const running = startCli(scratch, 'bench', server.path, '--runtime', '200ms', ...SHORT);
  const { stdout, stderr, ...rest } = await endSoon(running);
  expect(rest).toEqual({ status: 3, signal: null });
  expect(stdout).toMatch(/\nread +[1-9]\d* /);
  expect(stderr).toBe(`vfio-user: ${server.path} stopped answering while it was shut down; ${ADVICE}\n`);
});

test('info asks a slow target no longer than its time-out in all', async () => {
  const server = await childServer(`
    const model = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 16 << 20 }) });
    const bar = model.pci.bars?.[0];
    const read = bar.read.bind(bar);
    bar.read = async (offset, data) => {
      await new Promise((resolve) => setTimeout(resolve, 200));
      return read(offset, data);
    };
    return model;
  `);
  // More than 80 answers of 200 ms each, none of which is late.
  const { stderr, ...rest } = await endSoon(startCli(scratch, 'info', server.path, '--timeout', '2'));
  expect(rest).toEqual({ status: 3, signal: null, stdout: '' });
  expect(stderr).toBe(`vfio-user: ${server.path} did not answer all questions within 2000 ms; ${ADVICE}\n`);
});

describe('faults of a device are no wrong usage', () => {
  test('no MSI-X capability', async () => {
    const server = await childServer(`
      const model = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 16 << 20 }) });
      model.pci.capabilities = model.pci.capabilities.filter(({ kind }) => kind !== 'msix');
      return model;
    `);
    const { stderr, status } = await cli(scratch, 'bench', server.path, '--completion', 'interrupt');
    expect(stderr).toMatch(/^vfio-user: @\S+ has no MSI-X capability [^\n]+\n$/);
    expect(status).toBe(1);
  });

  test('doorbells that are farther apart than there is room for', async () => {
    const server = await childServer(`
      const model = new NvmeControllerModel({ backend: createBackend({ kind: 'memory', size: 16 << 20 }) });
      const bar = model.pci.bars?.[0];
      const read = bar.read.bind(bar);
      bar.read = (offset, data, ...rest) => {
        const result = read(offset, data, ...rest);
        // CAP.DSTRD
        if (offset === 0) data[4] |= 15;
        return result;
      };
      return model;
    `);
    const { stderr, status } = await cli(scratch, 'bench', server.path);
    expect(stderr).toMatch(
      /^vfio-user: @\S+ has no room for the doorbells [^\n]+ 131072 bytes apart [^\n]+\n$/,
    );
    expect(status).toBe(1);
  });
});
