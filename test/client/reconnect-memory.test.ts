// SPDX-License-Identifier: MIT
import { DmaContainer } from '../../lib/dma/container';
import { FakeEndpoint, comingBack, describedDevice } from './reconnect-support';
import {
  DMA_MAP,
  DMA_READ,
  DMA_UNMAP,
  GET_INFO,
  atEnd,
  bare,
  sharedMemory,
  turns,
  u64,
  until,
} from './support';

const PAGE = 4096;

describe('DMA', () => {
  test('memory stays, with its content and its addresses', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    const memory = await device.dma.allocate(2 * PAGE);
    const bytes = new Uint8Array(memory.buffer);
    bytes.fill(0x5a);
    endpoint.now.close();
    await events.next('reconnect');
    expect(bytes.length).toBe(2 * PAGE);
    const { address } = { address: memory.iova };
    const reply = await endpoint.now.ask(DMA_READ, u64(address, 4));
    expect(reply.payload.slice(16)).toEqual(Uint8Array.of(0x5a, 0x5a, 0x5a, 0x5a));
    await memory.close();
    expect(endpoint.now.count(DMA_UNMAP)).toBe(1);
  });

  test('unmapped while disconnected: done at once, and not mapped again', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    const memory = await device.dma.allocate(PAGE);
    const kept = await device.dma.allocate(PAGE);
    endpoint.stop();
    await events.next('disconnect');
    await memory.close();
    expect(memory.buffer.byteLength).toBe(0);
    endpoint.listen();
    const [{ dmaRanges }] = await events.next('reconnect');
    expect(dmaRanges).toBe(1);
    expect(endpoint.now.count(DMA_MAP)).toBe(1);
    expect(endpoint.now.count(DMA_UNMAP)).toBe(0);
    expect(device.dma.ranges.map(({ iova }) => Number(iova))).toEqual([kept.iova]);
  });

  test('unmapped as the connection ends: done', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice({}, { [DMA_UNMAP]: 'silence' }));
    const { device, events } = await comingBack(endpoint.path);
    await device.dma.map({ iova: 0, size: PAGE });
    await device.dma.map({ iova: PAGE, size: PAGE });
    const left = device.dma.unmap(0, PAGE);
    await until(() => endpoint.now.count(DMA_UNMAP) === 1);
    endpoint.now.close();
    await left;
    await events.next('reconnect');
    expect(endpoint.now.payloads(DMA_MAP)).toEqual([
      bare('20000000 03000000 0000000000000000 0010000000000000 0010000000000000'),
    ]);
    const emptied = device.dma.unmapAll();
    endpoint.stop();
    await emptied;
    expect(device.dma.ranges).toEqual([]);
  });

  test('mapped while disconnected, alone and in a batch: is there afterwards', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    await device.dma.map({ iova: 0, size: PAGE });
    endpoint.stop();
    await events.next('disconnect');
    const mapped = device.dma.map({ iova: PAGE, size: PAGE });
    await turns();
    endpoint.listen();
    await mapped;
    endpoint.stop();
    await events.next('disconnect', 2);
    const batch = device.dma.batch();
    batch
      .unmap(0, PAGE)
      .map({ iova: 0, size: (4 * PAGE) / 4 })
      .map({ iova: 0x10000, size: PAGE });
    const committed = batch.commit();
    await turns();
    endpoint.listen();
    await committed;
    await events.next('reconnect', 2);
    const mapsOf = (payload: string): string => payload.slice(32, 48);
    expect(endpoint.now.payloads(DMA_MAP).map(mapsOf).sort()).toEqual(
      ['0000000000000000', '0010000000000000', '0000010000000000'].sort(),
    );
    expect(device.dma.ranges.length).toBe(3);
  });

  test('mapped as the connection ends: the new server has it once; its refusal is that of the map', async () => {
    const endpoint = new FakeEndpoint((client) => {
      const number = client;
      return describedDevice(
        {},
        {
          [DMA_MAP]: ({ payload }) => {
            const at = new DataView(payload.buffer, payload.byteOffset).getUint32(16, true);
            if (number === 0 && at > 0) return 'silence';
            return number === 1 && at === 2 * PAGE ? 12 : new Uint8Array(0);
          },
        },
      );
    });
    const { device, events } = await comingBack(endpoint.path);
    await device.dma.map({ iova: 0, size: PAGE });
    const taken = device.dma.map({ iova: PAGE, size: PAGE });
    const refused = device.dma.map({ iova: 2 * PAGE, size: PAGE });
    const wrong = expect(refused).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_REMOTE',
      errnoName: 'ENOMEM',
    });
    await until(() => endpoint.now.count(DMA_MAP) === 3);
    endpoint.now.close();
    await taken;
    await wrong;
    await events.next('reconnect');
    expect(endpoint.now.count(DMA_MAP)).toBe(3);
    expect(device.dma.ranges.map(({ iova }) => iova)).toEqual([0n, BigInt(PAGE)]);
    // And what was refused is not given to the one after it.
    endpoint.now.close();
    expect(await events.next('reconnect', 2)).toMatchObject([{ dmaRanges: 2 }]);
  });

  test('a server that refuses what the one before took is tried again', async () => {
    const endpoint = new FakeEndpoint((client) => describedDevice({}, client === 1 ? { [DMA_MAP]: 12 } : {}));
    const { device, events } = await comingBack(endpoint.path);
    await device.dma.map({ iova: 0, size: PAGE });
    endpoint.now.close();
    expect(await events.next('reconnect')).toMatchObject([{ attempts: 2, dmaRanges: 1 }]);
    expect(events.of('reconnecting')[1]![0].error).toMatchObject({ errnoName: 'ENOMEM' });
  });

  test('a container of two devices, of which one comes back', async () => {
    const one = new FakeEndpoint(() => describedDevice());
    const other = new FakeEndpoint(() => describedDevice());
    const dma = new DmaContainer();
    atEnd(() => {
      dma.close();
    });
    const first = await comingBack(one.path, { dma });
    await comingBack(other.path, { dma });
    await dma.map({ iova: 0, size: PAGE });
    one.stop();
    await first.events.next('disconnect');
    const mapped = dma.map({ iova: PAGE, size: PAGE });
    await dma.unmap(0, PAGE);
    await until(() => other.now.count(DMA_MAP) === 2);
    expect(other.now.count(DMA_UNMAP)).toBe(1);
    one.listen();
    await mapped;
    await first.events.next('reconnect');
    expect(one.now.payloads(DMA_MAP)).toEqual(other.now.payloads(DMA_MAP).slice(1));
    expect(one.now.count(DMA_UNMAP)).toBe(0);
    await dma.unmap(PAGE, PAGE);
    expect([one.now.count(DMA_UNMAP), other.now.count(DMA_UNMAP)]).toEqual([1, 2]);
  });

  test('a server is not served memory before it is known to be the same device', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 0 ? {} : { [GET_INFO]: 'silence' }),
    );
    const { device, events } = await comingBack(endpoint.path);
    const memory = await device.dma.allocate(PAGE);
    expect((await endpoint.now.ask(DMA_READ, u64(memory.iova, 4))).errno).toBe(0);
    endpoint.now.close();
    await events.next('disconnect');
    await until(() => endpoint.servers.length === 2 && endpoint.now.count(GET_INFO) === 1);
    expect(await endpoint.now.ask(DMA_READ, u64(memory.iova, 4))).toMatchObject({ errno: 14 });
  });
});

describe('mapped areas', () => {
  test('are detached before anybody is told, and region.map gives those of the new server', async () => {
    const memories = [sharedMemory(0x4000), sharedMemory(0x4000)];
    const endpoint = new FakeEndpoint((client) => {
      const { fd } = memories[client]!;
      return describedDevice({ barFds: () => [fd] });
    });
    const { device, events } = await comingBack(endpoint.path);
    const bar = await device.region(0);
    const area = bar.map(0x1000, PAGE);
    const words = new Uint32Array(area.buffer);
    words[0] = 1;
    expect(memories[0]!.bytes[0x1000]).toBe(1);
    const lengths: number[] = [];
    device.once('disconnect', () => lengths.push(words.length, area.buffer.byteLength));
    device.once('reconnect', () => (new Uint32Array(bar.map(0x1000, PAGE).buffer)[0] = 2));
    endpoint.now.close();
    await events.next('reconnect');
    expect(lengths).toEqual([0, 0]);
    words[0] = 3;
    expect(memories.map(({ bytes }) => bytes[0x1000])).toEqual([1, 2]);
    area.close();
    expect(await device.region(0)).toBe(bar);
  });
});
