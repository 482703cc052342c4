// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { connect } from '../../lib/client';
import { DmaContainer, devicesOf } from '../../lib/dma/container';
import { createSharedMemory, closeFd } from '../../lib/native';
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
  u64,
  until,
  version,
  warmUp,
  type Heard,
} from '../client/support';

const PAGE = 4096;
const HUGE = 0x20_0000;

/** `struct vfio_user_dma_map`: argsz 32, flags, offset, address, size. */
const mapPayload = (flags: number, offset: number, address: bigint | number, size: number): string =>
  bare(`20000000 0${flags}000000`) + toHex(u64(offset, address, size));
/** `struct vfio_user_dma_unmap`: argsz 24, flags 0, address, size. */
const unmapPayload = (address: bigint | number, size: number): string =>
  bare('18000000 00000000') + toHex(u64(address, size));

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
    expect(toHex(devices.read(2n ** 64n - 2n, 2))).toBe('0000');
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

describe('unmap', () => {
  test.each<[string, number, number]>([
    ['the end of a mapping', 0x1000, PAGE],
    ['the beginning of one', 0x2000, PAGE],
    ['one of several', 0, 5 * PAGE],
    ['the whole middle of one', 0x4000, PAGE],
    ['nothing at all', 0x1000, 0],
  ])('a range that cuts off %s is refused, and nothing is sent', async (_, iova, size) => {
    const { device, server } = await fakeDevice();
    await device.dma.map({ iova: 0x1000, size: 2 * PAGE });
    await device.dma.map({ iova: 0x3000, size: 3 * PAGE });
    await expect(device.dma.unmap(iova, size)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DMA' });
    await expect(device.dma.batch().unmap(iova, size).commit()).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_DMA',
    });
    expect(server.count(DMA_UNMAP)).toBe(0);
    expect(device.dma.dump()).toBe('0x1000+0x2000, 0x3000+0x3000');
  });

  test('takes all mappings within a range, each by its own message, and tells how much it was', async () => {
    const { device, server } = await fakeDevice();
    for (const iova of [0x1000, 0x2000, 0x4000, 0x9000]) await device.dma.map({ iova, size: PAGE });
    expect(await device.dma.unmap(0, 0x9000)).toBe(3 * PAGE);
    expect(server.payloads(DMA_UNMAP)).toEqual(
      [0x1000, 0x2000, 0x4000].map((iova) => unmapPayload(iova, PAGE)),
    );
    expect(device.dma.dump()).toBe('0x9000+0x1000');
    expect(await device.dma.unmap(0, 0x9000)).toBe(0);
    expect(await device.dma.unmap(0x9000, 2n ** 64n - 0x9000n)).toBe(PAGE);
    await device.dma
      .batch()
      .map({ iova: 0x1000, size: PAGE })
      .unmap(0, 2n ** 64n)
      .commit();
    expect([server.count(DMA_UNMAP), device.dma.dump()]).toEqual([5, 'nothing']);
  });

  test('of several mappings, the one that the device keeps stays, and the others go', async () => {
    const { device } = await fakeDevice({
      [DMA_UNMAP]: ({ payload }) => (payload[9] === 0x20 ? constants.errno.EBUSY : payload),
    });
    for (const iova of [0x1000, 0x2000, 0x4000]) await device.dma.map({ iova, size: PAGE });
    await expect(device.dma.unmap(0, 0x8000)).rejects.toMatchObject({ errnoName: 'EBUSY' });
    expect(device.dma.dump()).toBe('0x2000+0x1000');
  });

  test('the memory stays until the device has answered', async () => {
    const { device, server } = await fakeDevice({ [DMA_UNMAP]: 'silence' });
    const memory = await device.dma.allocate(PAGE);
    const closed = memory.close();
    await until(() => server.count(DMA_UNMAP) === 1);
    expect(memory.buffer.byteLength).toBe(PAGE);
    const { id } = server.heard.at(-1)!;
    server.send(
      join(new Uint8Array(Uint16Array.of(id, 3).buffer), new Uint8Array(Uint32Array.of(16, 1, 0).buffer)),
    );
    await closed;
    expect(memory.buffer.byteLength).toBe(0);
  });

  test('an error of the server is told, and the memory is released all the same', async () => {
    const { device } = await fakeDevice({ [DMA_UNMAP]: 2 });
    const memory = await device.dma.allocate(PAGE);
    await expect(memory.close()).rejects.toMatchObject({ errnoName: 'ENOENT', command: 'DMA_UNMAP' });
    expect(memory.buffer.byteLength).toBe(0);
    expect(device.dma.ranges).toEqual([]);
  });

  test('all', async () => {
    const { device, server } = await fakeDevice();
    await device.dma.map({ iova: 0, size: PAGE });
    await device.dma.allocate(PAGE);
    await device.dma.unmapAll();
    // VFIO_DMA_UNMAP_FLAG_ALL is bit 1; address and size are 0.
    expect(server.payloads(DMA_UNMAP)).toEqual([bare('18000000 02000000') + '00'.repeat(16)]);
    expect(device.dma.ranges).toEqual([]);
  });

  test('a reply for another range', async () => {
    const { device } = await fakeDevice({ [DMA_UNMAP]: new Uint8Array(24) });
    const memory = await device.dma.allocate(PAGE);
    await expect(memory.close()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
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

describe('messages of the server', () => {
  /** Mappings of one page: 0x1000 and 0x2000 for both, 0x4000 to be read, 0x5000 to be written, 0x8000 without memory. */
  async function world() {
    const { fd, bytes } = sharedMemory(4 * PAGE);
    const { device, server } = await fakeDevice();
    await device.dma.map({ iova: 0x1000, size: PAGE, fd });
    await device.dma.map({ iova: 0x2000, size: PAGE, fd, offset: PAGE });
    await device.dma.map({ iova: 0x4000, size: PAGE, fd, offset: 2 * PAGE, access: 'read' });
    await device.dma.map({ iova: 0x5000, size: PAGE, fd, offset: 3 * PAGE, access: 'write' });
    await device.dma.map({ iova: 0x8000, size: PAGE });
    return { device, server, bytes };
  }
  const write = (address: number | bigint, data: Uint8Array): Uint8Array =>
    join(u64(address, data.length), data);
  const ok = { flags: 1, errno: 0 };
  const refused = (errno: number): object => ({ flags: 0x21, errno, payload: new Uint8Array(0) });

  test('DMA_READ, also across adjacent mappings', async () => {
    const { server, bytes } = await world();
    bytes.set([1, 2, 3, 4], PAGE - 2);
    const reply: Heard = await server.ask(DMA_READ, u64(0x1ffe, 4), 9);
    expect(reply).toMatchObject({ ...ok, id: 9, command: DMA_READ });
    expect(toHex(reply.payload)).toBe(toHex(u64(0x1ffe, 4)) + '01020304');
  });

  test('DMA_WRITE, also across adjacent mappings, is answered with 16 bytes', async () => {
    const { server, bytes } = await world();
    const reply = await server.ask(DMA_WRITE, write(0x1ffe, Uint8Array.of(5, 6, 7)));
    expect(reply).toMatchObject(ok);
    expect(toHex(reply.payload)).toBe(toHex(u64(0x1ffe, 3)));
    expect([...bytes.subarray(PAGE - 2, PAGE + 2)]).toEqual([5, 6, 7, 0]);
  });

  test('permissions', async () => {
    const { server, bytes } = await world();
    expect(await server.ask(DMA_READ, u64(0x4000, 1))).toMatchObject(ok);
    expect(await server.ask(DMA_WRITE, write(0x4000, Uint8Array.of(1)))).toMatchObject(refused(14));
    expect(await server.ask(DMA_WRITE, write(0x5000, Uint8Array.of(1)))).toMatchObject(ok);
    expect(await server.ask(DMA_READ, u64(0x5000, 1))).toMatchObject(refused(14));
    // From what may be read into what may not: nothing is written at all.
    expect(await server.ask(DMA_READ, u64(0x4fff, 2))).toMatchObject(refused(14));
    expect(await server.ask(DMA_WRITE, write(0x4fff, Uint8Array.of(1, 7)))).toMatchObject(refused(14));
    expect(bytes[3 * PAGE]).toBe(1);
  });

  test.each([
    ['before', 0xfff, 2],
    ['between', 0x2fff, 2],
    ['behind', 0x9000, 1],
    ['without memory', 0x8000, 1],
    ['at the end of 64 bits', 2n ** 64n - 1n, 1],
  ])('what is not mapped, %s, is EFAULT', async (_what, address, count) => {
    const { server } = await world();
    expect(await server.ask(DMA_READ, u64(address, count))).toMatchObject(refused(14));
    expect(await server.ask(DMA_WRITE, write(address, new Uint8Array(count)))).toMatchObject(refused(14));
  });

  test.each([
    ['a payload that is too short', DMA_READ, u64(0x1000)],
    ['more than the limit', DMA_READ, u64(0x1000, 1048577)],
    ['an end above 2^64', DMA_READ, u64(2n ** 64n - 1n, 2)],
    ['less data than it says', DMA_WRITE, join(u64(0x1000, 2), new Uint8Array(1))],
    ['more data than it says', DMA_WRITE, join(u64(0x1000, 2), new Uint8Array(3))],
  ])('%s is EINVAL, and the connection lives on', async (_what, command, payload) => {
    const { server } = await world();
    expect(await server.ask(command, payload)).toMatchObject(refused(22));
    expect(await server.ask(DMA_READ, u64(0x1000, 1))).toMatchObject(ok);
  });

  test('what a client does not serve', async () => {
    const { server } = await world();
    for (const command of [1, 2, 9, 99])
      expect(await server.ask(command, new Uint8Array(0))).toMatchObject(refused(95));
  });

  test('they are served while we wait for a reply', async () => {
    const server = fakeServer({ 9: 'silence' });
    const device = await connect(server.endpoint);
    atEnd(() => device.close());
    const memory = await device.dma.allocate(PAGE);
    const info = device.info();
    const outcome = expect(info).rejects.toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
    expect(await server.ask(DMA_READ, u64(memory.iova, 8))).toMatchObject(ok);
    await outcome;
  });
});

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
