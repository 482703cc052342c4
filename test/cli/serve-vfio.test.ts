// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import { connect } from '../../lib/client';
import { RawClient, dmaMap } from '../server/support';
import { Scratch, cli, failure, startCli, type Running } from './run-cli';

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => {
  scratch.remove();
});

/** A controller, and a proxy of it. */
async function startProxy(...args: string[]): Promise<{ device: Running; proxy: Running; socket: string }> {
  const [upstream, socket] = [scratch.file('device'), scratch.file('proxy')];
  const device = startCli(scratch, 'serve', 'nvme', '--socket', upstream, '--size', '8m');
  await device.said('Ctrl-C ends it.');
  const proxy = startCli(scratch, 'serve', 'vfio', upstream, '--socket', socket, ...args);
  await proxy.said('Ctrl-C ends it.');
  return { device, proxy, socket };
}

async function stop({ device, proxy }: { device: Running; proxy: Running }, stderr = ''): Promise<string> {
  proxy.kill('SIGINT');
  const { stdout, ...rest } = await proxy.ended;
  expect(rest).toEqual({ status: 0, signal: null, stderr });
  device.kill('SIGINT');
  await device.ended;
  return stdout;
}

test('a benchmark writes and verifies through a proxy, whose registers are mapped; the lines to use it are printed', async () => {
  const chain = await startProxy('--mode', '0600');
  const bench = await cli(scratch, 'bench', chain.socket, '--rw', 'write', '--verify', '--size', '4m');
  expect(bench).toMatchObject({ status: 0 });
  expect(bench.stdout).toContain('all as written');
  expect(bench.stdout).not.toContain('doorbells by message');
  const stdout = await stop(chain);
  expect(stdout).toContain(`Serving ${scratch.file('device')} at ${chain.socket}.\n`);
  expect(stdout).toContain(`  vfio-user bench ${chain.socket}\n`);
  expect(scratch.entries()).toEqual([]);
});

test('a trace has a line for each access, range and interrupt, in the order of what happened', async () => {
  const trace = scratch.file('trace');
  const chain = await startProxy('--trace', trace);
  const verify = ['--rw', 'write', '--verify', '--size', '128k', '--completion', 'interrupt'];
  expect(await cli(scratch, 'bench', chain.socket, ...verify)).toMatchObject({ status: 0 });
  const raw = await RawClient.connect(chain.socket);
  expect(await raw.errnoOf(2, dmaMap(0, 0x1000, 0))).toBe(22);
  raw.close();
  await stop(
    chain,
    'vfio-user: a DMA_MAP was refused, and the device does not reach its memory: EINVAL: a range that may be neither read nor written\n',
  );
  const lines = readFileSync(trace, 'utf8').trimEnd().split('\n');
  const steps = lines.map((line) => line.replace(/^ *\d+\.\d{6} /, ''));
  const times = lines.map((line) => parseFloat(line));
  expect(times).toEqual(times.toSorted((a, b) => a - b));
  const expected = [
    /^attach client 1 of .*proxy \(process \d+\)$/,
    /^read {3}config 0x0\+256 584e01/,
    /^write {2}config 0x4\+2 0x0[0-9a-f]{3}$/,
    /^read {3}bar0 0x0\+8 0x[0-9a-f]{16}$/,
    /^map {4}0x100000000\+0x200000 rw$/,
    /^irqs {3}msix 0-\d+ trigger by eventfd$/,
    /^write {2}bar0 0x14\+4 0x0046[0-9a-f]{3}1$/,
    /^write {2}bar0 0x1008\+4 0x0000/,
    /^signal msix 1/,
    /^irqs {3}msix disable$/,
    /^unmap {2}0x100000000\+0x200000$/,
    /^detach client 1/,
    /^reset$/,
    /^attach client 2/,
    /^map {4}0x0\+0x1000 -- by message$/,
    /^map {4}0x0\+0x1000 -- by message: refused, EINVAL: /,
    /^detach client 2/,
    /^reset$/,
  ];
  let at = 0;
  for (const pattern of expected) {
    const found = steps.findIndex((step, index) => index >= at && pattern.test(step));
    expect({ pattern, found: found >= at }).toEqual({ pattern, found: true });
    at = found + 1;
  }
});

test('a device that is killed ends the proxy, which says so, and its client', async () => {
  const { device, proxy, socket } = await startProxy();
  await using client = await connect(socket);
  const closed = new Promise<Error | null>((resolve) => client.once('close', resolve));
  device.kill('SIGKILL');
  expect(await closed).toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
  const { status, stderr } = await proxy.ended;
  expect(status).toBe(3);
  expect(stderr).toBe(
    `vfio-user: the device is gone: ${scratch.file('device')} closed the connection; it has stopped, or refused what was sent\n`,
  );
  expect(scratch.entries()).toEqual(['device']);
});

test('what makes no sense is told, before anything is opened', async () => {
  const [device, socket] = [scratch.file('device'), scratch.file('proxy')];
  const run = (...args: string[]): Promise<unknown> => cli(scratch, 'serve', 'vfio', ...args);
  expect(await run(device)).toEqual(
    failure(2, 'Missing --socket: the path to listen at, or a directory for it'),
  );
  expect(await run(device, '--socket', '@name', '--mode', '0600')).toMatchObject({ status: 2 });
  expect(await run(device, '--socket', socket, '--trace', scratch.file('no/such'))).toEqual(
    failure(2, `--trace cannot write ${scratch.file('no/such')}: ENOENT`),
  );
  expect(await run(device, '--socket', socket)).toMatchObject({ status: 3 });
  expect(await run('0000:ff:1f.7', '--socket', socket)).toMatchObject({
    status: 3,
    stderr: expect.stringMatching(/no PCI device is at 0000:ff:1f.7/),
  });
  expect(scratch.entries()).toEqual([]);
});
