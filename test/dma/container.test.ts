// SPDX-License-Identifier: MIT
import { connect } from '../../lib/client';
import { devicesOf } from '../../lib/dma/container';
import { createSharedMemory, closeFd } from '../../lib/native';
import { serve } from '../../lib/server';
import { TestModel } from '../server/support';
import {
  DMA_MAP,
  DMA_READ,
  DMA_UNMAP,
  VERSION,
  atEnd,
  bare,
  failure,
  fakeDevice,
  like,
  mappings,
  openFds,
  sharedMemory,
  toHex,
  u64,
  version,
  warmUp,
} from '../client/support';

import { PAGE, mapPayload, unmapPayload } from './support';

const HUGE = 0x20_0000;

describe('allocate', () => {
  test('zeroed memory, rounded up to pages, shown with a descriptor', async () => {
    const { device, server } = await fakeDevice();
    const memory = await device.dma.allocate(5000);
    expect(memory.size).toBe(2 * PAGE);
    expect(new Uint8Array(memory.buffer).every((byte) => byte === 0)).toBe(true);
    expect(server.payloads(DMA_MAP)).toEqual([mapPayload(3, 0, memory.iova, 2 * PAGE)]);
    expect(server.heard.at(-1)!.fds.length).toBe(1);
    await memory.close();
    await memory.close();
    expect(memory.buffer.byteLength).toBe(0);
    expect(server.payloads(DMA_UNMAP)).toEqual([unmapPayload(memory.iova, 2 * PAGE)]);
  });

  test('pieces do not overlap, large ones are aligned to huge pages, and freed addresses are used again', async () => {
    const { device } = await fakeDevice();
    const small = await device.dma.allocate(1);
    const large = await device.dma.allocate(HUGE + 1);
    const next = await device.dma.allocate(1);
    expect(large.size).toBe(2 * HUGE);
    expect(large.iova % HUGE).toBe(0);
    expect(large.iova).toBeGreaterThanOrEqual(small.iova + PAGE);
    expect([small.iova + PAGE, large.iova + large.size]).toContain(next.iova);
    await small.close();
    expect((await device.dma.allocate(1)).iova).toBe(small.iova);
  });

  test('without huge pages', async () => {
    const { device } = await fakeDevice({}, { dma: { hugePages: 'never' } });
    expect((await device.dma.allocate(HUGE + 1)).size).toBe(HUGE + PAGE);
  });

  test.each([0, -1, 1.5, NaN, Infinity])('%p bytes', async (size) => {
    const { device, server } = await fakeDevice();
    await expect(device.dma.allocate(size)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    expect(server.count(DMA_MAP)).toBe(0);
  });

  test('closing twice at once unmaps once', async () => {
    const { device, server } = await fakeDevice();
    const memory = await device.dma.allocate(PAGE);
    await Promise.all([memory.close(), memory.close()]);
    expect(server.count(DMA_UNMAP)).toBe(1);
  });

  test('after the device was closed', async () => {
    const { device } = await fakeDevice();
    await device.close();
    const before = mappings();
    await expect(device.dma.allocate(PAGE)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    expect(mappings()).toBe(before);
  });
});

describe('map', () => {
  test("the caller's memory, at an offset", async () => {
    const { fd, bytes } = sharedMemory(4 * PAGE);
    const { device, server } = await fakeDevice();
    const mapping = await device.dma.map({ iova: 0x10000, size: 2 * PAGE, fd, offset: PAGE, access: 'read' });
    expect(server.payloads(DMA_MAP)).toEqual([mapPayload(1, PAGE, 0x10000, 2 * PAGE)]);
    expect(server.heard.at(-1)!.fds.length).toBe(1);
    new Uint8Array(mapping.buffer!)[3] = 9;
    expect(bytes[PAGE + 3]).toBe(9);
    await mapping.close();
    await mapping.close();
    expect(server.payloads(DMA_UNMAP)).toEqual([unmapPayload(0x10000, 2 * PAGE)]);
  });

  test("the caller's descriptor stays the caller's", async () => {
    warmUp();
    const fd = createSharedMemory(PAGE);
    const { device } = await fakeDevice();
    const before = openFds();
    const mapping = await device.dma.map({ iova: 0, size: PAGE, fd });
    expect(openFds()).toBe(before + 1);
    await mapping.close();
    expect(openFds()).toBe(before);
    closeFd(fd);
  });

  test('a bare range, for writing', async () => {
    const { device, server } = await fakeDevice();
    const mapping = await device.dma.map({ iova: 0x1000, size: PAGE, access: 'write' });
    expect(mapping.buffer).toBeNull();
    expect(server.payloads(DMA_MAP)).toEqual([mapPayload(2, 0, 0x1000, PAGE)]);
    expect(server.heard.at(-1)!.fds.length).toBe(0);
  });

  test('the last page of 64 bits of address', async () => {
    const { fd } = sharedMemory(PAGE);
    const { device, server } = await fakeDevice();
    const iova = 2n ** 64n - 4096n;
    await device.dma.map({ iova, size: PAGE, fd });
    expect(server.payloads(DMA_MAP)).toEqual([
      bare('20000000 03000000 0000000000000000 00f0ffffffffffff 0010000000000000'),
    ]);
    const devices = devicesOf(device.dma);
    expect(toHex(await devices.read(2n ** 64n - 2n, 2))).toBe('0000');
    expect(() => devices.read(2n ** 64n - 2n, 3)).toThrow(like({ code: 'ERR_VFIO_USER_DMA' }));
    await device.dma.unmap(iova, PAGE);
    expect(server.payloads(DMA_UNMAP)).toEqual([bare('18000000 00000000 00f0ffffffffffff 0010000000000000')]);
  });

  test.each([
    ['an unaligned address', { iova: 1, size: PAGE }, 'ERR_INVALID_ARG_VALUE'],
    ['an unaligned size', { iova: 0, size: 100 }, 'ERR_INVALID_ARG_VALUE'],
    ['an unaligned offset', { iova: 0, size: PAGE, offset: 8 }, 'ERR_INVALID_ARG_VALUE'],
    ['no size', { iova: 0, size: 0 }, 'ERR_VFIO_USER_DMA'],
    ['a negative address', { iova: -4096n, size: PAGE }, 'ERR_VFIO_USER_DMA'],
    ['an end above 2^64', { iova: 2n ** 64n - 4096n, size: 2 * PAGE }, 'ERR_VFIO_USER_DMA'],
    ['an overlap', { iova: 0x7000, size: 2 * PAGE }, 'ERR_VFIO_USER_DMA'],
    ['an overlap from within', { iova: 0x9000, size: PAGE }, 'ERR_VFIO_USER_DMA'],
    ['a descriptor that is none', { iova: 0, size: PAGE, fd: 0x7fff_fff0 }, 'ERR_VFIO_USER_SYSTEM'],
  ])('%s: nothing is sent', async (_what, options, code) => {
    const { device, server } = await fakeDevice();
    await device.dma.map({ iova: 0x8000, size: 2 * PAGE });
    await expect(device.dma.map(options)).rejects.toMatchObject({ code });
    expect(server.count(DMA_MAP)).toBe(1);
    expect(device.dma.dump()).toBe('0x8000+0x2000');
  });

  test('a file that is too short leaves no descriptor behind', async () => {
    warmUp();
    const { fd } = sharedMemory(PAGE);
    const { device } = await fakeDevice();
    const before = openFds();
    await expect(device.dma.map({ iova: 0, size: 2 * PAGE, fd })).rejects.toMatchObject({
      errnoName: 'ENXIO',
    });
    expect(openFds()).toBe(before);
  });

  test('no more than the server takes', async () => {
    const { device, server } = await fakeDevice({
      [VERSION]: version('{"capabilities":{"max_dma_maps":2}}'),
    });
    await device.dma.map({ iova: 0, size: PAGE });
    await device.dma.map({ iova: PAGE, size: PAGE });
    await expect(device.dma.allocate(PAGE)).rejects.toMatchObject(failure('ERR_VFIO_USER_DMA', 'at most 2'));
    expect(server.count(DMA_MAP)).toBe(2);
    await device.dma.unmap(0, PAGE);
    await device.dma.allocate(PAGE);
  });

  test('a map that the server refuses leaves nothing behind', async () => {
    warmUp();
    const { fd } = sharedMemory(PAGE);
    const { device } = await fakeDevice({ [DMA_MAP]: 22 });
    const before = [openFds(), mappings()];
    await expect(device.dma.allocate(PAGE)).rejects.toMatchObject({
      errnoName: 'EINVAL',
      command: 'DMA_MAP',
    });
    await expect(device.dma.map({ iova: 0, size: PAGE, fd })).rejects.toMatchObject({ errnoName: 'EINVAL' });
    expect(device.dma.ranges).toEqual([]);
    expect([openFds(), mappings()]).toEqual(before);
  });
});

test('directDma: false keeps descriptors to ourselves', async () => {
  const { fd } = sharedMemory(2 * PAGE);
  const { device, server } = await fakeDevice({}, { dma: { directDma: false } });
  const memory = await device.dma.allocate(PAGE);
  await device.dma.map({ iova: 0, size: PAGE, fd, offset: PAGE });
  expect(server.payloads(DMA_MAP)).toEqual([mapPayload(3, 0, memory.iova, PAGE), mapPayload(3, 0, 0, PAGE)]);
  expect(server.heard.map((one) => one.fds.length)).toEqual([0, 0, 0]);
  new Uint8Array(memory.buffer)[1] = 0x5a;
  const reply = await server.ask(DMA_READ, u64(memory.iova, 2));
  expect(toHex(reply.payload.subarray(16))).toBe('005a');
});

test('lookup', async () => {
  const { fd } = sharedMemory(PAGE);
  const { device } = await fakeDevice();
  const mapping = await device.dma.map({ iova: 0x1000, size: PAGE, fd, access: 'read' });
  await device.dma.map({ iova: 2n ** 64n - 4096n, size: PAGE });
  expect(device.dma.lookup(0x1010)).toMatchObject({ offset: 0x10, range: { iova: 0x1000n, access: 'read' } });
  expect(device.dma.lookup(0x1010)?.buffer).toBe(mapping.buffer);
  expect(device.dma.lookup(0x1ff0n, 16)?.offset).toBe(0xff0);
  expect(device.dma.lookup(0x1ff0, 17)).toBeUndefined();
  expect(device.dma.lookup(0xfff)).toBeUndefined();
  expect(device.dma.lookup(2n ** 64n - 1n)).toMatchObject({ offset: 4095, buffer: null });
});

test('a served device sees the memory, and reaches it by message where it must', async () => {
  const model = new TestModel();
  atEnd(() => {
    model.close();
  });
  for (const directDma of [true, false]) {
    const path = `@vfio-user-dma-${process.pid}-${directDma}`;
    const server = await serve(path, model);
    const device = await connect(path, { dma: { directDma } });
    const memory = await device.dma.allocate(PAGE);
    new Uint8Array(memory.buffer).set([1, 2, 3]);
    expect(model.ranges[0]!.buffer === null).toBe(!directDma);
    expect([...(await model.client!.memory.read(memory.iova, 4))]).toEqual([1, 2, 3, 0]);
    await model.client!.memory.write(memory.iova + 8, Uint8Array.of(8));
    expect(new Uint8Array(memory.buffer)[8]).toBe(8);
    await device.close();
    await server.close();
  }
});
