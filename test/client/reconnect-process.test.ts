// SPDX-License-Identifier: MIT
/** Servers in processes of their own, which are killed and started again. */
import { existsSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from '../../lib/client';
import { DmaContainer } from '../../lib/dma/container';
import type { VfioUserError } from '../../lib/errors';
import { childServer, type ChildServer } from './child-server';
import { comingBack } from './reconnect-support';
import { atEnd, directory, failure, mappings, openFds, until, warmUp } from './support';

const PAGE = 4096;

/** A device whose BAR 0 is memory of its process, and which adds to memory of its client when a register is written. */
function start(path: string, { vendor = 0x1234, vectors = 2 } = {}): Promise<ChildServer> {
  return childServer(
    `
    const { Mapping, createSharedMemory } = require(${JSON.stringify(join(__dirname, '../../dist/native'))});
    const size = 0x2000;
    const fd = createSharedMemory(size);
    const bytes = new Uint8Array(Mapping.map(fd, 0, size).buffer);
    const registers = new Uint8Array(16);
    let client = null;
    onMessage = async (question) => {
      if (question === 'fill') bytes.fill(7);
      if (question === 'signal') return client.setInterrupt(true);
      if (question === 'read') return [...await client.memory.read(0x10000n, 4)];
      return bytes[0x1000];
    };
    return {
      name: 'test',
      pci: {
        vendorId: ${vendor},
        deviceId: 1,
        classCode: 0xff0000,
        bars: {
          0: {
            kind: 'memory32',
            size,
            shared: { fd, offset: 0, areas: [{ offset: 0x1000, size: 0x1000 }] },
            read: (offset, data) => data.set(registers.subarray(offset, offset + data.length)),
            write: (offset, data) => registers.set(data, offset),
          },
          1: { kind: 'memory32', size: 0x1000 },
        },
        capabilities: [
          { kind: 'msix', vectors: ${vectors}, table: { bar: 1, offset: 0 }, pba: { bar: 1, offset: 0x800 } },
        ],
      },
      attach: (one) => { client = one; },
      detach: () => { client = null; },
    };
    `,
    { TEST_SOCKET: path },
  );
}

describe.each([false, true])('killed by SIGKILL and started again, with twin socket: %s', (twinSocket) => {
  test('a device of everything', async () => {
    const path = join(directory(), 'device.sock');
    let server = await start(path);
    const { device, events } = await comingBack(path, { twinSocket });
    const memory = await device.dma.allocate(PAGE);
    // The same memory, which the device reaches by message.
    await device.dma.map({ iova: 0x10000, size: PAGE, fd: memory.fd, direct: false });
    const bytes = new Uint8Array(memory.buffer);
    bytes.set([1, 2, 3, 4]);
    const signals: number[] = [];
    await (await device.irq('msix')).enable([(count) => void signals.push(count)]);
    const bar = await device.region('bar0');
    const area = new Uint32Array(bar.map(0x1000, PAGE).buffer);
    await bar.write32(0, 5);
    expect(await server.ask('read')).toEqual([1, 2, 3, 4]);

    for (let round = 1; round <= 3; round++) {
      await server.ask('fill');
      await server.kill();
      await events.next('disconnect', round);
      expect(existsSync(path)).toBe(true);
      expect(area.length).toBe(0);
      bytes[0] = round;
      server = await start(path);
      const [renewed] = await events.next('reconnect', round);
      expect(renewed).toMatchObject({ dmaRanges: 2, vectors: 1 });
      // It is a new server: its registers and its memory are new, ours is not.
      expect(await bar.read32(0)).toBe(0);
      const anew = new Uint8Array(bar.map(0x1000, PAGE).buffer);
      expect(anew[0]).toBe(0);
      anew[0] = 9;
      expect(await server.ask('look')).toBe(9);
      expect(await server.ask('read')).toEqual([round, 2, 3, 4]);
      expect(await server.ask('signal')).toBe(true);
      await until(() => signals.length === round);
    }
    await device.close();
    await server.kill();
  });
});

test('of two devices that share a container, one is killed', async () => {
  const folder = directory();
  const paths = ['one.sock', 'other.sock'].map((name) => join(folder, name)) as [string, string];
  const servers = await Promise.all(paths.map((path) => start(path)));
  const dma = new DmaContainer();
  atEnd(() => {
    dma.close();
  });
  const first = await comingBack(paths[0], { dma });
  const second = await comingBack(paths[1], { dma });
  const memory = await dma.allocate(PAGE);
  new Uint8Array(memory.buffer).set([4, 3, 2, 1]);
  await dma.map({ iova: 0x10000, size: PAGE, fd: memory.fd, direct: false });
  await servers[0]!.kill();
  await first.events.next('disconnect');
  expect(await servers[1]!.ask('read')).toEqual([4, 3, 2, 1]);
  servers[0] = await start(paths[0]);
  await first.events.next('reconnect');
  expect(await servers[0].ask('read')).toEqual([4, 3, 2, 1]);
  expect(second.events.all).toEqual([]);
  for (const server of servers) await server.kill();
});

test('another device at the same path', async () => {
  const path = join(directory(), 'device.sock');
  const server = await start(path);
  const { events } = await comingBack(path);
  await server.kill();
  const other = await start(path, { vendor: 0x4321, vectors: 1 });
  const [error] = await events.next('close');
  expect(error).toMatchObject(
    failure('ERR_VFIO_USER_IDENTITY', /interrupt index 2: 2 vectors.*; configuration space: ids 0x11234/),
  );
  await other.kill();
});

test('a server that another client holds at first', async () => {
  const path = join(directory(), 'device.sock');
  let server = await start(path);
  const { events } = await comingBack(path, { connectTimeout: 1000 });
  await server.kill();
  // It has its other client before it can be found.
  const elsewhere = `${path}.new`;
  server = await start(elsewhere);
  const holder = await connect(elsewhere);
  renameSync(elsewhere, path);
  const isBusy = (error: Error): boolean => (error as Partial<VfioUserError>).code === 'ERR_VFIO_USER_BUSY';
  await until(() => events.of('reconnecting').some(([{ error }]) => isBusy(error)), 'the server is busy');
  expect(events.of('reconnect')).toEqual([]);
  await holder.close();
  await events.next('reconnect');
  await server.kill();
});

test('descriptors and mappings stay the same through many kills', async () => {
  warmUp();
  const path = join(directory(), 'device.sock');
  let server = await start(path);
  const { device, events } = await comingBack(path);
  await device.dma.allocate(PAGE);
  await (await device.irq('msix')).enable([() => undefined]);
  const bar = await device.region('bar0');
  bar.map(0x1000, PAGE);
  const before = mappings();
  const fds = openFds();
  for (let round = 1; round <= 5; round++) {
    await server.kill();
    server = await start(path);
    await events.next('reconnect', round);
    bar.map(0x1000, PAGE);
  }
  await server.kill();
  await events.next('disconnect', 6);
  server = await start(path);
  await events.next('reconnect', 6);
  expect(mappings()).toBe(before - 1);
  // The pipes to the children are of another number at times.
  expect(Math.abs(openFds() - fds)).toBeLessThanOrEqual(2);
  await device.close();
  await server.kill();
});
