// SPDX-License-Identifier: MIT
/** Runs the examples as their first lines say, against the built package. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { connect } from '../../lib/client';
import { serve } from '../../lib/server';
import { dist } from '../dist';
import { TestModel, until } from '../server/support';

const ROOT = dirname(dist);
const EXAMPLES = join(ROOT, 'examples');

interface Run {
  readonly child: ChildProcess;
  readonly ended: Promise<unknown>;
  output: string;
}

const runs: Run[] = [];
afterEach(async () => {
  for (const { child, ended } of runs.splice(0)) {
    child.kill('SIGKILL');
    await ended;
  }
});

/** The package finds itself by its name, from examples/ as in a project that has installed it. */
function run(name: string, ...args: string[]): Run {
  const child = spawn(process.execPath, [join(EXAMPLES, name), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const started: Run = { child, ended: once(child, 'close'), output: '' };
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (text: Buffer) => (started.output += text.toString()));
  runs.push(started);
  return started;
}

test.each(readdirSync(EXAMPLES))('%s is short, and imports the package by its name', (name) => {
  const text = readFileSync(join(EXAMPLES, name), 'utf8');
  expect(text.trimEnd().split('\n').length).toBeLessThanOrEqual(60);
  expect(text.split('\n')[1]).toMatch(new RegExp(`: (node|npx vfio-user .*) examples/${name}`));
  expect(text).toMatch(/from 'vfio-user/);
  expect(text).not.toMatch(/from '\./);
});

test('README shows the device as it is', () => {
  const text = readFileSync(join(EXAMPLES, 'device.mjs'), 'utf8');
  const shown = text.slice(text.indexOf('import '));
  expect(readFileSync(join(ROOT, 'README.md'), 'utf8')).toContain('```js\n' + shown + '```\n');
});

test('device', async () => {
  const path = `@vfio-user-device-${process.pid}`;
  const served = run('device.mjs', path);
  await until(() => served.output !== '');
  expect(served.output).toBe(`serving ${path}\n`);
  for (const directDma of [true, false]) {
    await using device = await connect(path, { dma: { directDma } });
    expect(await device.pci.header()).toMatchObject({ vendorId: 0x1234, deviceId: 0x11e9 });
    expect(await device.pci.capabilities()).toMatchObject({ capabilities: [{ kind: 'msix', vectors: 1 }] });
    const registers = await device.region('bar0');
    const msix = await device.irq('msix');
    await msix.enable(1);
    const memory = await device.dma.allocate(4096);
    Buffer.from(memory.buffer).write('stressed');
    await registers.write64(0, BigInt(memory.iova));
    await registers.write32(8, 8);
    await until(() => msix.vector(0).poll() === 1);
    expect(Buffer.from(memory.buffer, 0, 9).toString()).toBe('desserts\0');
    expect(await registers.read32(12)).toBe(1);
    await registers.write32(8, 8192);
    await until(() => msix.vector(0).poll() === 1);
    expect(await registers.read32(12)).toBe(2);
  }
  served.child.kill('SIGTERM');
  await served.ended;
  expect([served.child.exitCode, served.output]).toEqual([0, `serving ${path}\n`]);
});

test('gpio and register-monitor', async () => {
  const path = `@vfio-user-gpio-${process.pid}`;
  const card = run('gpio.mjs', path);
  await until(() => card.output !== '');
  expect(card.output).toBe(`serving ${path}\n`);
  {
    await using device = await connect(path);
    expect(await device.pci.header()).toMatchObject({ vendorId: 0x494f, deviceId: 0x0dc8 });
    const pins = await device.region('bar2');
    const intx = await device.irq('intx');
    await intx.enable(1);
    const seen: number[] = [await pins.read8(1), await pins.read8(5)];
    for (let turn = 0; turn < 3; turn++) {
      await pins.write8(0, 0x81);
      await pins.write8(4, 0x10);
      seen.push(await pins.read8(1), await pins.read8(5));
    }
    // What libvfio-user's sample reads for the same writes.
    expect(seen).toEqual([0xff, 0xff, 0x7e, 0xef, 0x7e, 0xef, 0xff, 0xff]);
    // The line is high, and stays high until it is acknowledged: one signal, and one for each unmask.
    const polled: number[] = [intx.vector(0).poll(), intx.vector(0).poll()];
    await intx.unmask();
    polled.push(intx.vector(0).poll());
    await pins.write8(1, 0);
    await intx.unmask();
    polled.push(intx.vector(0).poll());
    expect(polled).toEqual([1, 0, 1, 0]);
    await pins.write8(0, 1);
  }
  const monitor = run('register-monitor.mjs', path, 'bar2', '1', '1', '1');
  await until(() => monitor.output !== '');
  expect(monitor.output).toBe('bar2+0x1: 0xfe\n');
  monitor.child.kill('SIGINT');
  await monitor.ended;
  expect([monitor.child.exitCode, monitor.output]).toEqual([0, 'bar2+0x1: 0xfe\n']);
  card.child.kill('SIGTERM');
  await card.ended;
  expect([card.child.exitCode, card.output]).toEqual([0, `serving ${path}\n`]);
});

test('register-monitor prints what changes', async () => {
  const path = `@vfio-user-monitor-${process.pid}`;
  const model = new TestModel();
  let ticks = 0x41;
  model.regions.set(2, { size: 64, read: (_offset, data) => void data.fill(ticks) });
  const server = await serve(path, model);
  const monitor = run('register-monitor.mjs', path, 'bar2', '0x10', '2', '2');
  await until(() => monitor.output.split('\n').length === 3);
  ticks++;
  await until(() => monitor.output.split('\n').length === 5);
  expect(monitor.output).toBe(
    'bar2+0x10: 0x4141\nbar2+0x12: 0x4141\nbar2+0x10: 0x4141 -> 0x4242\nbar2+0x12: 0x4141 -> 0x4242\n',
  );
  await server.close();
  await monitor.ended;
  model.close();
});

test('dma-without-shared-memory', async () => {
  const copy = run('dma-without-shared-memory.mjs');
  await copy.ended;
  expect([copy.child.exitCode, copy.output]).toEqual([
    0,
    'mapped ranges: 0\ncopied: through DMA_READ and DMA_WRITE\n',
  ]);
});
