// SPDX-License-Identifier: MIT
import { ftruncateSync } from 'node:fs';
import { closeFd, createSharedMemory } from '../../lib/native';
import {
  DMA_MAP,
  DMA_READ,
  DMA_WRITE,
  atEnd,
  fakeDevice,
  join,
  like,
  mappings,
  openFds,
  sharedMemory,
  toHex,
  u64,
  until,
  warmUp,
} from '../client/support';

import { PAGE } from './support';

describe('memory of a batch', () => {
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
