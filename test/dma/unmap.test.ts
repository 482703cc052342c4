// SPDX-License-Identifier: MIT
import { DMA_UNMAP, bare, fakeDevice, join, until } from '../client/support';
import { PAGE, addressOf, unmapPayload } from './support';

const EBUSY = 16;

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
      [DMA_UNMAP]: ({ payload }) => (payload[9] === 0x20 ? EBUSY : payload),
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
