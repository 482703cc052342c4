// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { DmaBatchError } from '../../lib/dma/batch';
import { DmaContainer } from '../../lib/dma/container';
import { VfioUserError } from '../../lib/errors';
import {
  DMA_MAP,
  DMA_UNMAP,
  VERSION,
  atEnd,
  bare,
  failure,
  fakeDevice,
  join,
  mappings,
  openFds,
  sharedMemory,
  toHex,
  u32,
  until,
  version,
  warmUp,
} from '../client/support';
import { rejection } from '../support/errors';

import { PAGE, addressOf } from './support';

const EBUSY = 16;

describe('a batch', () => {
  test('is sent as a whole before the first reply, in order', async () => {
    const { fd } = sharedMemory(4 * PAGE);
    const { device, server } = await fakeDevice({ [DMA_MAP]: 'silence', [DMA_UNMAP]: 'silence' });
    const batch = device.dma
      .batch()
      .map({ iova: 0x1000, size: PAGE, fd })
      .map({ iova: 0x3000, size: 2 * PAGE, fd, offset: PAGE, access: 'read' })
      .unmap(0x1000, PAGE)
      .map({ iova: 0x1000, size: 2 * PAGE, access: 'write' });
    expect(batch.length).toBe(4);
    expect(server.count(DMA_MAP)).toBe(0);
    const commit = batch.commit();
    expect(batch.length).toBe(0);
    await until(() => server.heard.length === 5);
    expect(server.heard.slice(1).map(({ command, payload }) => [command, toHex(payload)])).toEqual([
      // `struct vfio_user_dma_map`: u32 argsz, u32 flags, u64 offset, u64 address, u64 size.
      [DMA_MAP, bare('20000000 03000000 0000000000000000 0010000000000000 0010000000000000')],
      [DMA_MAP, bare('20000000 01000000 0010000000000000 0030000000000000 0020000000000000')],
      // `struct vfio_user_dma_unmap`: u32 argsz, u32 flags, u64 address, u64 size.
      [DMA_UNMAP, bare('18000000 00000000 0010000000000000 0010000000000000')],
      [DMA_MAP, bare('20000000 02000000 0000000000000000 0010000000000000 0020000000000000')],
    ]);
    for (const { id, command } of server.heard.slice(1))
      server.send(join(new Uint8Array(Uint16Array.of(id, command).buffer), u32(16, 1, 0)));
    const done = await commit;
    expect(done.map(({ iova, size }) => [iova, size])).toEqual([
      [0x1000n, PAGE],
      [0x3000n, 2 * PAGE],
      [0x1000n, 2 * PAGE],
    ]);
    expect(device.dma.dump()).toBe('0x1000+0x2000, 0x3000+0x2000');
  });

  test('a range that takes the place of others enters the table when they have left it', async () => {
    const { device, server } = await fakeDevice();
    await device.dma.map({ iova: 0x1000, size: PAGE });
    await device.dma.map({ iova: 0x2000, size: PAGE });
    await device.dma
      .batch()
      .unmap(0x1000, PAGE)
      .unmap(0x2000, PAGE)
      .map({ iova: 0, size: 4 * PAGE })
      .commit();
    expect(device.dma.dump()).toBe('0x0+0x4000');
    expect(server.heard.slice(-3).map(({ command }) => command)).toEqual([DMA_UNMAP, DMA_UNMAP, DMA_MAP]);
  });

  test('of nothing sends nothing', async () => {
    const { device, server } = await fakeDevice();
    expect(await device.dma.batch().commit()).toEqual([]);
    expect(server.heard.length).toBe(1);
  });

  test.each([
    [
      'an overlap within the batch',
      [
        { iova: 0x5000, size: PAGE },
        { iova: 0x5000, size: PAGE },
      ],
    ],
    ['an overlap with what is mapped', [{ iova: 0x1000, size: PAGE }]],
    [
      'an unaligned address',
      [
        { iova: 0x5000, size: PAGE },
        { iova: 0x7001, size: PAGE },
      ],
    ],
    [
      'a bad descriptor at the end',
      [
        { iova: 0x5000, size: PAGE },
        { iova: 0x7000, size: PAGE, fd: 0x7fff_fff0 },
      ],
    ],
    ['more than the server takes', [0, 1, 2, 3].map((i) => ({ iova: 0x10000 + i * PAGE, size: PAGE }))],
  ])('%s: nothing is sent, nothing changes', async (_what, maps) => {
    warmUp();
    const { fd } = sharedMemory(PAGE);
    const { device, server } = await fakeDevice({
      [VERSION]: version('{"capabilities":{"max_msg_fds":8,"max_dma_maps":4}}'),
    });
    await device.dma.map({ iova: 0x1000, size: PAGE });
    const before = [openFds(), mappings()];
    const batch = device.dma.batch();
    for (const options of maps) batch.map({ fd, ...options });
    expect(await rejection(batch.commit())).toBeInstanceOf(Error);
    expect(server.count(DMA_MAP)).toBe(1);
    expect(device.dma.dump()).toBe('0x1000+0x1000');
    expect([openFds(), mappings()]).toEqual(before);
  });

  test('an unmap that would cut through a mapping names the operation', async () => {
    const { device, server } = await fakeDevice();
    const batch = device.dma
      .batch()
      .map({ iova: 0, size: 2 * PAGE })
      .unmap(0x8000, PAGE)
      .unmap(0, PAGE);
    await expect(batch.commit()).rejects.toMatchObject(
      failure('ERR_VFIO_USER_DMA', /operation 3 of 3: 0x0\+0x1000 cuts through the mapping 0x0\+0x2000/),
    );
    expect(server.count(DMA_MAP)).toBe(0);
  });

  test('one unmap of several mappings, then maps with memory in their place', async () => {
    const { device, server } = await fakeDevice();
    for (const iova of [0x1000, 0x2000]) await device.dma.map({ iova, size: PAGE });
    const { fd } = sharedMemory(PAGE);
    const [mapping] = await device.dma
      .batch()
      .unmap(0, 0x8000)
      .map({ iova: 0x1000, size: PAGE, fd })
      .commit();
    expect(mapping?.buffer?.byteLength).toBe(PAGE);
    expect([server.count(DMA_UNMAP), device.dma.dump()]).toEqual([2, '0x1000+0x1000']);
  });

  test('what a server refuses is told by operation, and the table is what the server has', async () => {
    warmUp();
    const { fd } = sharedMemory(PAGE);
    const { device } = await fakeDevice({
      [DMA_MAP]: ({ payload }) => (addressOf(payload, 16) === 0x6000 ? 12 : new Uint8Array(0)),
      [DMA_UNMAP]: ({ payload }) => (addressOf(payload, 8) === 0x1000 ? EBUSY : payload),
    });
    await device.dma.map({ iova: 0x1000, size: PAGE });
    await device.dma.map({ iova: 0x2000, size: PAGE });
    const before = [openFds(), mappings()];
    const error = await rejection(
      device.dma
        .batch()
        .unmap(0x1000, PAGE)
        .unmap(0x2000, PAGE)
        .map({ iova: 0x5000, size: PAGE })
        .map({ iova: 0x6000, size: PAGE, fd })
        .commit(),
    );
    expect(error).toBeInstanceOf(DmaBatchError);
    expect(new VfioUserError('ERR_VFIO_USER_DMA', 'other')).not.toBeInstanceOf(DmaBatchError);
    expect(error).toMatchObject(
      failure('ERR_VFIO_USER_DMA', /^2 of 4 operations .* first is unmap 0x1000\+0x1000 .*EBUSY/),
    );
    expect((error as DmaBatchError).outcomes).toMatchObject([
      { operation: 'unmap', iova: 0x1000n, size: PAGE, error: { errnoName: 'EBUSY' } },
      { operation: 'unmap', iova: 0x2000n, error: null },
      { operation: 'map', iova: 0x5000n, error: null },
      { operation: 'map', iova: 0x6000n, error: { errnoName: 'ENOMEM' } },
    ]);
    expect(device.dma.dump()).toBe('0x1000+0x1000, 0x5000+0x1000');
    expect([openFds(), mappings()]).toEqual(before);
  });

  test('a map that one of two servers refuses is taken back from the other', async () => {
    const dma = new DmaContainer();
    atEnd(() => {
      dma.close();
    });
    const good = await fakeDevice({}, { dma });
    await fakeDevice({ [DMA_MAP]: 28 }, { dma });
    const error = await rejection(dma.batch().map({ iova: 0x1000, size: PAGE }).commit());
    expect(error).toBeInstanceOf(DmaBatchError);
    expect(good.server.count(DMA_UNMAP)).toBe(1);
    expect(dma.ranges).toEqual([]);
  });

  test('others wait until it is done', async () => {
    const { device, server } = await fakeDevice();
    const batch = device.dma.batch();
    for (let i = 0; i < 200; i++) batch.map({ iova: i * PAGE, size: PAGE });
    const commit = batch.commit();
    const late = device.dma.map({ iova: 0, size: PAGE });
    await expect(late).rejects.toMatchObject(failure('ERR_VFIO_USER_DMA', 'overlaps'));
    await commit;
    expect(server.count(DMA_MAP)).toBe(200);
  });

  test('after the container was closed, and when the server goes away', async () => {
    const closed = await fakeDevice();
    await closed.device.close();
    await expect(closed.device.dma.batch().map({ iova: 0, size: PAGE }).commit()).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_CLOSED',
    });
    const { device } = await fakeDevice({ [DMA_MAP]: 'close' });
    const before = mappings();
    const { fd } = sharedMemory(PAGE);
    const error = await rejection(device.dma.batch().map({ iova: 0, size: PAGE, fd }).commit());
    expect(error).toMatchObject({ outcomes: [{ error: { code: 'ERR_VFIO_USER_DISCONNECTED' } }] });
    expect(device.dma.ranges).toEqual([]);
    expect(mappings()).toBe(before + 1);
  });

  test('any batch against a server that refuses some: the table is what the server has', async () => {
    const operation = fc.record({
      map: fc.boolean(),
      page: fc.integer({ min: 0, max: 7 }),
      pages: fc.integer({ min: 1, max: 3 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 20 }), fc.nat(), async (operations, seed) => {
        const has = new Map<string, number>();
        let calls = 0;
        const refuses = (): boolean => (seed >> (calls++ % 24)) % 4 === 1;
        const key = (payload: Uint8Array, at: number): [string, number, number] => {
          const [iova, size] = [addressOf(payload, at), addressOf(payload, at + 8)];
          return [`0x${iova.toString(16)}+0x${size.toString(16)}`, iova, iova + size];
        };
        const { device } = await fakeDevice({
          [DMA_MAP]: ({ payload }) => {
            const [name, start, end] = key(payload, 16);
            for (const other of has.keys()) {
              const [from = 0, length = 0] = other.split('+').map(Number);
              if (from < end && start < from + length) return 17;
            }
            if (refuses()) return 12;
            has.set(name, start);
            return new Uint8Array(0);
          },
          [DMA_UNMAP]: ({ payload }) => {
            const [name] = key(payload, 8);
            if (!has.has(name)) return 2;
            if (refuses()) return EBUSY;
            has.delete(name);
            return payload;
          },
        });
        for (let round = 0; round < 2; round++) {
          const batch = device.dma.batch();
          for (const { map, page, pages } of operations) {
            if (map) batch.map({ iova: page * PAGE, size: pages * PAGE });
            else batch.unmap(page * PAGE, pages * PAGE);
          }
          await rejection(batch.commit());
          // One by one too: what makes no sense is refused before it is sent.
          for (const { map, page, pages } of operations) {
            const single = device.dma.batch();
            if (map) single.map({ iova: page * PAGE, size: pages * PAGE });
            else single.unmap(page * PAGE, pages * PAGE);
            await rejection(single.commit());
          }
          const ours = device.dma.ranges.map(
            ({ iova, size }) => `0x${iova.toString(16)}+0x${size.toString(16)}`,
          );
          expect(ours.sort()).toEqual([...has.keys()].sort());
        }
        await device.close();
      }),
      { numRuns: 100 },
    );
  });
});
