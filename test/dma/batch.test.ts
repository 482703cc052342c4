// SPDX-License-Identifier: MIT
import { ftruncateSync } from 'node:fs';
import fc from 'fast-check';
import { connect, type ConnectOptions } from '../../lib/client';
import { DmaBatchError } from '../../lib/dma/batch';
import { DmaContainer } from '../../lib/dma/container';
import { VfioUserError } from '../../lib/errors';
import { closeFd, createSharedMemory } from '../../lib/native';
import { serve } from '../../lib/server';
import { TestModel } from '../server/support';
import {
  DMA_MAP,
  DMA_READ,
  DMA_UNMAP,
  DMA_WRITE,
  VERSION,
  atEnd,
  bare,
  failure,
  fakeDevice,
  fakeServer,
  join,
  like,
  mappings,
  openFds,
  sharedMemory,
  toHex,
  u32,
  u64,
  until,
  version,
  warmUp,
} from '../client/support';
import { rejection } from '../support/errors';

const PAGE = 4096;
const EBUSY = 16;

const addressOf = (payload: Uint8Array, at: number): number =>
  Number(new DataView(payload.buffer, payload.byteOffset).getBigUint64(at, true));

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

  describe('memory', () => {
    const PAGES = 32;

    /** A batch of a file's pages, each a range of its own. */
    async function pages(size = PAGES * PAGE) {
      warmUp();
      const { fd, bytes } = sharedMemory(size);
      const { device, server } = await fakeDevice();
      const before = [openFds(), mappings()] as const;
      const batch = device.dma.batch();
      for (let i = 0; i < PAGES; i++) batch.map({ iova: i * PAGE, size: PAGE, fd, offset: i * PAGE });
      return { fd, bytes, device, server, before, batch };
    }

    test('of one file needs one descriptor, and is mapped when it is looked at', async () => {
      const { bytes, device, server, before, batch } = await pages();
      const done = await batch.commit();
      for (const heard of server.heard.slice(1)) heard.fds.close();
      expect([openFds(), mappings()]).toEqual([before[0] + 1, before[1] + 1]);
      const fds = new Set(device.dma.ranges.map(({ fd }) => fd));
      expect(fds.size).toBe(1);
      bytes.set([1, 2, 3], 8 * PAGE);
      const { buffer } = done[8]!;
      expect([...new Uint8Array(buffer!, 0, 3)]).toEqual([1, 2, 3]);
      expect(done[8]!.buffer).toBe(buffer);
      expect(device.dma.lookup(8 * PAGE)?.buffer).toBe(buffer);
      expect(mappings()).toBe(before[1] + 2);
      await done[8]!.close();
      expect(buffer!.byteLength).toBe(0);
      expect(done[9]!.buffer!.byteLength).toBe(PAGE);
      for (const mapping of done) await mapping.close();
      expect([openFds(), mappings()]).toEqual(before);
      expect(done[10]!.buffer!.byteLength).toBe(0);
    });

    test('is reached by messages of the device', async () => {
      const { bytes, server, batch } = await pages();
      await batch.commit();
      bytes.set([7, 8], 5 * PAGE);
      // `struct vfio_user_dma_region_access`: u64 address, u64 count, data.
      const read = await server.ask(DMA_READ, u64(5 * PAGE, 2));
      expect(toHex(read.payload.subarray(16))).toBe('0708');
      await server.ask(DMA_WRITE, join(u64(6 * PAGE - 1, 2), Uint8Array.of(9, 10)));
      expect([...bytes.subarray(6 * PAGE - 1, 6 * PAGE + 1)]).toEqual([9, 10]);
    });

    test('that was not looked at is released with the device', async () => {
      const { device, before, batch } = await pages();
      await batch.commit();
      await device.close();
      await until(() => openFds() < before[0]);
      expect(mappings()).toBe(before[1]);
      expect(openFds()).toBeLessThan(before[0]);
    });

    test.each([
      ['exceeds the file', PAGES * PAGE - PAGE, 0, { errnoName: 'ENXIO' }],
      ['begins before the file', PAGES * PAGE, -PAGE, { code: 'ERR_OUT_OF_RANGE' }],
    ])('that %s: nothing is sent', async (_what, size, offset, error) => {
      const { fd, server, before, batch } = await pages(size);
      if (offset < 0) batch.map({ iova: 2 ** 40, size: PAGE, fd, offset });
      await expect(batch.commit()).rejects.toMatchObject(error);
      expect(server.count(DMA_MAP)).toBe(0);
      expect([openFds(), mappings()]).toEqual(before);
    });

    test('of a file that has shrunk since', async () => {
      warmUp();
      const fd = createSharedMemory(4 * PAGE, { sealed: false });
      atEnd(() => {
        closeFd(fd);
      });
      const { device, server } = await fakeDevice();
      const batch = device.dma.batch();
      for (let i = 0; i < 4; i++) batch.map({ iova: i * PAGE, size: PAGE, fd, offset: i * PAGE });
      const done = await batch.commit();
      ftruncateSync(fd, 2 * PAGE);
      expect(() => done[3]!.buffer).toThrow(like({ errnoName: 'ENXIO' }));
      expect(done[1]!.buffer!.byteLength).toBe(PAGE);
      const reply = await server.ask(DMA_READ, u64(3 * PAGE, 2));
      expect([reply.flags & 0x20, reply.errno > 0]).toEqual([0x20, true]);
      // The connection, and the other ranges, go on.
      expect((await server.ask(DMA_READ, u64(PAGE, 2))).flags & 0x20).toBe(0);
    });
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

describe('unmapAll', () => {
  test('is one message with the flag of libvfio-user', async () => {
    const { device, server } = await fakeDevice();
    await device.dma.map({ iova: 0x1000, size: PAGE });
    await device.dma.allocate(PAGE);
    await device.dma.unmapAll();
    // VFIO_DMA_UNMAP_FLAG_ALL is bit 1; address and size are 0.
    expect(server.payloads(DMA_UNMAP)).toEqual([bare('18000000 02000000 0000000000000000 0000000000000000')]);
    expect(device.dma.ranges).toEqual([]);
    await device.dma.unmapAll();
    expect(server.count(DMA_UNMAP)).toBe(1);
  });

  test.each([22, 95, 25, 38, 0])('errno %p to the flag: range by range', async (errno) => {
    const { device, server } = await fakeDevice({
      [DMA_UNMAP]: ({ payload }) => (payload[4] === 2 ? { flags: 0x21, errno } : payload),
    });
    for (let i = 0; i < 3; i++) await device.dma.map({ iova: i * PAGE, size: PAGE });
    await device.dma.unmapAll();
    expect(
      server.heard.slice(-3).map(({ payload }) => [addressOf(payload, 8), addressOf(payload, 16)]),
    ).toEqual([
      [0, PAGE],
      [PAGE, PAGE],
      [2 * PAGE, PAGE],
    ]);
    expect(device.dma.ranges).toEqual([]);
  });

  test('what a server does not let go stays', async () => {
    const { device } = await fakeDevice({
      [DMA_UNMAP]: ({ payload }) =>
        payload[4] === 2 ? 22 : addressOf(payload, 8) === PAGE ? EBUSY : payload,
    });
    for (let i = 0; i < 3; i++) await device.dma.map({ iova: i * PAGE, size: PAGE });
    await expect(device.dma.unmapAll()).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_DMA',
      outcomes: [{ error: null }, { error: { errnoName: 'EBUSY' } }, { error: null }],
    });
    expect(device.dma.dump()).toBe('0x1000+0x1000');
  });

  test('a single unmap that is refused can be tried again', async () => {
    let refusals = 1;
    const { device } = await fakeDevice({ [DMA_UNMAP]: ({ payload }) => (refusals-- > 0 ? EBUSY : payload) });
    const memory = await device.dma.allocate(PAGE);
    await expect(memory.close()).rejects.toMatchObject({ errnoName: 'EBUSY' });
    expect(memory.buffer.byteLength).toBe(PAGE);
    expect(device.dma.ranges.length).toBe(1);
    await memory.close();
    expect(memory.buffer.byteLength).toBe(0);
    expect(device.dma.ranges).toEqual([]);
  });
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

describe("the server's limits", () => {
  const limited = (json: string): ReturnType<typeof version> => version(`{"capabilities":{${json}}}`);

  test('page sizes: maps are checked, allocations rounded', async () => {
    const { device, server } = await fakeDevice(
      { [VERSION]: limited('"max_msg_fds":1,"pgsizes":2162688') }, // 64 KiB and 2 MiB
      { dma: { hugePages: 'never' } },
    );
    await expect(device.dma.map({ iova: 0x1000, size: 0x10000 })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
    });
    await expect(device.dma.map({ iova: 0, size: 0x1000 })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
    });
    await expect(device.dma.batch().map({ iova: 0, size: 0x1000 }).commit()).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
    });
    expect(server.count(DMA_MAP)).toBe(0);
    const memory = await device.dma.allocate(1);
    expect([memory.size, memory.iova % 0x10000]).toEqual([0x10000, 0]);
    await device.dma.map({ iova: 0, size: 0x10000 });
  });

  test.each([
    ['pages that it does not take', '"pgsizes":65536', 'pages of 65536 bytes'],
    ['more ranges than it takes', '"max_dma_maps":1', 'at most 1'],
  ])('a container with %s is not attached', async (_what, json, text) => {
    const dma = new DmaContainer();
    atEnd(() => {
      dma.close();
    });
    await dma.map({ iova: 0x1000, size: PAGE });
    await dma.map({ iova: 0x3000, size: PAGE });
    const server = fakeServer({ [VERSION]: limited(json) });
    await expect(connect(server.endpoint, { dma })).rejects.toMatchObject(failure('ERR_VFIO_USER_DMA', text));
    expect(server.count(DMA_MAP)).toBe(0);
    expect(dma.ranges.length).toBe(2);
  });

  test('no descriptors: memory is shown without, and reached by message', async () => {
    const { fd } = sharedMemory(2 * PAGE);
    const { device, server } = await fakeDevice({ [VERSION]: limited('"max_msg_fds":0') });
    await device.dma.map({ iova: 0, size: PAGE, fd, offset: PAGE });
    expect(server.payloads(DMA_MAP)).toEqual([
      bare('20000000 03000000 0000000000000000 0000000000000000 0010000000000000'),
    ]);
    expect(server.heard.at(-1)?.fds.length).toBe(0);
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
