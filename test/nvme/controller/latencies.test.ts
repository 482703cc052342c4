// SPDX-License-Identifier: MIT
/** How long I/O commands take, as the controller measures it. */
import { FileBackend, createBackend } from '../../../lib/nvme/backends';
import type { NvmeControllerOptions } from '../../../lib/nvme/controller';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Address, Host, until, type HostQueue } from './support';

const READ = { opcode: 0x02, nsid: 1, prp1: Address.data };
const WRITE = { ...READ, opcode: 0x01 };
const FLUSH = { opcode: 0x00, nsid: 1 };
const COMPARE = { ...READ, opcode: 0x05 };
const VENDOR = { opcode: 0xff, nsid: 1 };

let host: Host;
afterEach(() => {
  host.close();
});

async function ready(options: NvmeControllerOptions): Promise<HostQueue> {
  host = new Host(options);
  host.enable();
  return host.createQueues();
}

/** Commands of each group. */
function counts(): unknown {
  const { read, write, flush, other } = host.controller.latencies ?? {};
  return [read?.count, write?.count, flush?.count, other?.count];
}

test('nothing is measured unless it is asked for', async () => {
  const queue = await ready({});
  await host.run(queue, READ);
  expect(host.controller.latencies).toBeNull();
  expect(host.controller.latencyHistograms).toBeNull();
});

test('commands are counted by what they do, whether they succeed or not; admin commands are not', async () => {
  const queue = await ready({ latencies: true });
  expect(counts()).toEqual([0, 0, 0, 0]);
  expect(host.controller.latencies?.read).toEqual({ count: 0, sum: 0, p50: 0, p99: 0, max: 0 });
  await host.run(queue, WRITE);
  await host.run(queue, READ);
  await host.run(queue, READ);
  await host.run(queue, FLUSH);
  await host.run(queue, COMPARE);
  // An opcode that there is not, and a block beyond the end: errors take their time too.
  expect((await host.run(queue, VENDOR)).status).toBe('00/01 DNR');
  expect((await host.run(queue, { ...READ, cdw10: 0xffff_ffff })).status).toBe('00/80 DNR');
  expect(counts()).toEqual([3, 1, 1, 2]);
  const { read } = host.controller.latencies!;
  expect(read.p50).toBeGreaterThan(0);
  expect(read.p99).toBeGreaterThanOrEqual(read.p50);
  expect(read.max).toBeGreaterThanOrEqual(read.p99);
  expect(read.sum).toBeGreaterThanOrEqual(read.max);
  expect(read.sum).toBeLessThanOrEqual(3 * read.max);
});

test('a command that waits is measured from its fetch to its completion, others meanwhile by their own time', async () => {
  const queue = await ready({ latencies: true });
  host.controller.faults.add('on=read,nth=1,delay=60ms');
  const begin = performance.now();
  const late = host.push(queue, READ);
  host.push(queue, WRITE);
  host.ring(queue);
  expect((await host.completion(queue)).cid).not.toBe(late);
  expect((await host.completion(queue)).cid).toBe(late);
  const longest = (performance.now() - begin) * 1e6;
  const { read, write } = host.controller.latencies!;
  expect(read.count).toBe(1);
  expect(read.max).toBeGreaterThanOrEqual(60e6);
  expect(read.max).toBeLessThanOrEqual(longest);
  expect(write.count).toBe(1);
  expect(write.max).toBeLessThan(read.max);
});

test('a flush that the backend does, and two fused commands', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vfio-user-'));
  try {
    const queue = await ready({ latencies: true, backend: new FileBackend(join(folder, 'disk'), 1 << 20) });
    await host.run(queue, FLUSH);
    host.push(queue, { ...COMPARE, fuse: 1 });
    host.push(queue, { ...WRITE, fuse: 2 });
    host.ring(queue);
    expect([(await host.completion(queue)).status, (await host.completion(queue)).status]).toEqual([
      '00/00',
      '00/00',
    ]);
    expect(counts()).toEqual([0, 1, 1, 1]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('a command that a reset makes void is not counted', async () => {
  const queue = await ready({ latencies: true, backend: createBackend({ kind: 'memory', size: 1 << 20 }) });
  host.controller.faults.add('on=read,nth=1,delay=1h');
  host.push(queue, READ);
  host.push(queue, WRITE);
  host.ring(queue);
  await until(() => host.controller.latencies?.write.count === 1, 'the write');
  await host.controller.reset();
  expect(counts()).toEqual([0, 1, 0, 0]);
});
