// SPDX-License-Identifier: MIT
import { connect, type ConnectOptions } from '../../lib/client';
import { DmaContainer } from '../../lib/dma/container';
import { serve } from '../../lib/server';
import { TestModel } from '../server/support';
import { DMA_MAP, DMA_UNMAP, atEnd, fakeDevice, fakeServer, until } from '../client/support';
import { PAGE, mapPayload, unmapPayload } from './support';

describe('a container that devices share', () => {
  test('what is mapped is told to a device that is attached later', async () => {
    const dma = new DmaContainer();
    const first = await fakeDevice({}, { dma });
    const memory = await dma.allocate(PAGE);
    await dma.map({ iova: 0x1000, size: PAGE });
    const second = await fakeDevice({}, { dma });
    expect(second.server.payloads(DMA_MAP).sort()).toEqual(first.server.payloads(DMA_MAP).sort());
    await memory.close();
    expect([first.server.count(DMA_UNMAP), second.server.count(DMA_UNMAP)]).toEqual([1, 1]);
    await first.device.close();
    const next = await dma.allocate(PAGE);
    expect([first.server.count(DMA_MAP), second.server.count(DMA_MAP)]).toEqual([2, 3]);
    await second.device.close();
    // The container is its maker's: its memory stays until the maker closes it.
    expect(next.buffer.byteLength).toBe(PAGE);
    dma.close();
    dma.close();
    expect(next.buffer.byteLength).toBe(0);
  });

  test('when one refuses, the others forget the range', async () => {
    const dma = new DmaContainer();
    atEnd(() => {
      dma.close();
    });
    const good = await fakeDevice({}, { dma });
    await fakeDevice({ [DMA_MAP]: 28 }, { dma });
    await expect(dma.map({ iova: 0x1000, size: PAGE })).rejects.toMatchObject({ errnoName: 'ENOSPC' });
    expect(good.server.payloads(DMA_UNMAP)).toEqual([unmapPayload(0x1000, PAGE)]);
    expect(dma.ranges).toEqual([]);
  });

  test('what is mapped while a device is being attached is told to it once', async () => {
    const dma = new DmaContainer();
    atEnd(() => {
      dma.close();
    });
    await dma.map({ iova: 0x1000, size: PAGE });
    const server = fakeServer();
    const connecting = connect(server.endpoint, { dma });
    await until(() => server.count(DMA_MAP) === 1);
    const mapped = dma.map({ iova: 0x2000, size: PAGE });
    await using device = await connecting;
    await mapped;
    expect(device.closed).toBe(false);
    expect(server.payloads(DMA_MAP)).toEqual([
      mapPayload(3, 0, 0x1000, PAGE),
      mapPayload(3, 0, 0x2000, PAGE),
    ]);
  });
});

test('two served devices share one container', async () => {
  const dma = new DmaContainer();
  const devices = [];
  for (const name of ['a', 'b']) {
    const model = new TestModel();
    const path = `@vfio-user-shared-${name}-${process.pid}`;
    const server = await serve(path, model);
    const options: ConnectOptions = { dma };
    const device = await connect(path, options);
    devices.push({ model, server, device });
    atEnd(() => {
      model.close();
    });
  }
  const memory = await dma.allocate(PAGE);
  const [first, second] = devices as [(typeof devices)[0], (typeof devices)[0]];
  await first.model.client!.memory.write(memory.iova, Uint8Array.of(1, 2));
  expect([...(await second.model.client!.memory.read(memory.iova, 2))]).toEqual([1, 2]);
  await dma
    .batch()
    .map({ iova: 0, size: PAGE, access: 'read' })
    .map({ iova: PAGE, size: PAGE, access: 'write' })
    .commit();
  for (const { model } of devices) {
    expect(model.ranges.map(({ iova, readable, writable }) => [iova, readable, writable])).toEqual([
      [BigInt(memory.iova), true, true],
      [0n, true, false],
      [4096n, false, true],
    ]);
    await expect(model.client!.memory.write(0, Uint8Array.of(1))).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_DMA',
    });
    await expect(model.client!.memory.read(PAGE, 1)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DMA' });
  }
  await dma.unmapAll();
  for (const { model, device, server } of devices) {
    expect(model.ranges).toEqual([]);
    await device.close();
    await server.close();
  }
  dma.close();
});
