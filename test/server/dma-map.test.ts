// SPDX-License-Identifier: MIT
import { ftruncateSync } from 'node:fs';
import { constants } from 'node:os';
import { EventFd, Socket, closeFd, createSharedMemory } from '../../lib/native';
import { useServer } from './fixture';
import {
  RawClient,
  dmaMap,
  dmaUnmap,
  gate,
  join,
  message,
  openFds,
  turns,
  u16,
  u32,
  u64,
  until,
} from './support';

const { EEXIST, EINVAL, EIO, ENOENT, ENOTSUP, ENXIO, ENODEV } = constants.errno;
const t = useServer();

describe('DMA_MAP and DMA_UNMAP', () => {
  test('a mapped descriptor is shared memory, which the server holds without the descriptor', async () => {
    const fd = createSharedMemory(0x3000);
    const open = openFds();
    expect(await t.raw.errnoOf(2, dmaMap(0x10000, 0x2000, 3, 0x1000), [fd])).toBe(0);
    expect(openFds()).toBe(open);
    const { client } = t.model;
    expect(client?.memory.ranges).toEqual(t.model.ranges);
    const place = client?.memory.place(0x10800, 16, 'readwrite');
    expect(place).toMatchObject({ offset: 0x800 });
    expect(place?.buffer.byteLength).toBe(0x2000);
    await client?.memory.write(0x10800, Uint8Array.of(1, 2, 3));
    expect(await client?.memory.read(0x10800n, 4)).toEqual(Uint8Array.of(1, 2, 3, 0));

    const generation = client?.memory.generation ?? 0;
    expect((await t.raw.ask(message(3, dmaUnmap(0x10000, 0x2000)))).payload).toEqual(
      dmaUnmap(0x10000, 0x2000),
    );
    expect(client?.memory.generation).toBeGreaterThan(generation);
    expect(place?.buffer.byteLength).toBe(0);
    expect(client?.memory.place(0x10800, 16, 'read')).toBeNull();
    await expect(client?.memory.read(0x10800, 4)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DMA' });
    expect(t.model.log).toEqual(['attach', 'mapped 0x10000', 'unmapping 0x10000']);
    closeFd(fd);
  });

  test('the memory stays until the model has let go of it', async () => {
    const fd = createSharedMemory(0x1000);
    await t.raw.errnoOf(2, dmaMap(0, 0x1000), [fd]);
    const buffer = t.model.ranges[0]?.buffer;
    const { opened, open } = gate();
    t.model.gate = opened;
    const reply = t.raw.errnoOf(3, dmaUnmap(0, 0x1000));
    await until(() => t.model.log.includes('unmapping 0x0'));
    await turns();
    expect(buffer?.byteLength).toBe(0x1000);
    open();
    expect(await reply).toBe(0);
    expect(buffer?.byteLength).toBe(0);
    closeFd(fd);
  });

  test('a client that leaves while the model lets go', async () => {
    const fd = createSharedMemory(0x1000);
    await t.raw.errnoOf(2, dmaMap(0, 0x1000), [fd]);
    closeFd(fd);
    const { opened, open } = gate();
    t.model.gate = opened;
    t.raw.send(message(3, dmaUnmap(0, 0x1000)));
    await until(() => t.model.log.includes('unmapping 0x0'));
    t.raw.close();
    await until(() => t.model.log.includes('detach'));
    t.raw = await RawClient.connect(t.endpoint, false);
    t.raw.send(message(1, u16(0, 0)));
    await turns();
    // The next client is not served while the model still works for the last.
    expect(t.model.log.filter((line) => line === 'attach').length).toBe(1);
    open();
    expect((await t.raw.receive()).errno).toBe(0);
  });

  test('a model that cannot let go keeps the range', async () => {
    expect(await t.raw.errnoOf(2, dmaMap(0, 0x1000))).toBe(0);
    t.model.failure = new Error('stuck');
    expect(await t.raw.errnoOf(3, dmaUnmap(0, 0x1000))).toBe(EIO);
    expect(t.model.client?.memory.ranges.length).toBe(1);
    expect(await t.raw.errnoOf(3, dmaUnmap(0, 0x1000))).toBe(0);
  });

  test('permissions', async () => {
    const fd = createSharedMemory(0x3000);
    await t.raw.errnoOf(2, dmaMap(0x1000, 0x1000, 1), [fd]);
    await t.raw.errnoOf(2, dmaMap(0x2000, 0x1000, 2, 0x1000), [fd]);
    await t.raw.errnoOf(2, dmaMap(0x3000, 0x1000, 0, 0x2000), [fd]);
    const memory = t.model.client?.memory;
    const allowed = (iova: number): boolean[] =>
      (['read', 'write', 'readwrite'] as const).map((access) => memory?.place(iova, 8, access) !== null);
    expect([allowed(0x1000), allowed(0x2000), allowed(0x3000)]).toEqual([
      [true, false, false],
      [false, true, false],
      [false, false, false],
    ]);
    await expect(memory?.write(0x1ff8, new Uint8Array(16))).rejects.toThrow('may not be written');
    await expect(memory?.read(0x2000, 1)).rejects.toThrow('may not be read');
    closeFd(fd);
  });

  test('adjacent ranges are one for read and write, not for place; the top of the address space', async () => {
    const fd = createSharedMemory(0x3000);
    await t.raw.errnoOf(2, dmaMap(0x1000, 0x1000, 3, 0x2000), [fd]);
    await t.raw.errnoOf(2, dmaMap(0x2000, 0x1000), [fd]);
    await t.raw.errnoOf(2, dmaMap(0xffff_ffff_ffff_f000n, 0x1000, 3, 0x1000), [fd]);
    const memory = t.model.client?.memory;
    const data = new Uint8Array(0x800).map((_, index) => index % 251);
    await memory?.write(0x1c00, data);
    expect(await memory?.read(0x1c00, 0x800)).toEqual(data);
    expect(memory?.place(0x1c00, 0x800, 'read')).toBeNull();
    expect(memory?.place(0x1c00, 0x400, 'read')).toMatchObject({ offset: 0xc00 });
    expect(memory?.place(0x2000, 0x1000, 'read')).toMatchObject({ offset: 0 });
    expect(memory?.place(0xffff_ffff_ffff_fff0n, 16, 'read')).toMatchObject({ offset: 0xff0 });
    expect(memory?.place(0xffff_ffff_ffff_fff0n, 17, 'read')).toBeNull();
    for (const iova of [-1, 0.5, NaN, Infinity, 2 ** 60, -1n, 1n << 64n])
      expect(memory?.place(iova, 1, 'read')).toBeNull();
    for (const length of [0, -1, NaN, Infinity, 0.5])
      expect(memory?.place(0x1000, length, 'read')).toBeNull();
    closeFd(fd);
  });

  test.each([
    ['an unaligned address', dmaMap(0x800, 0x1000), EINVAL],
    ['an unaligned size', dmaMap(0x1000, 0x800), EINVAL],
    ['an unaligned offset', dmaMap(0x1000, 0x1000, 3, 0x10), EINVAL],
    ['a size of 0', dmaMap(0x1000, 0), EINVAL],
    ['an address that wraps', dmaMap(0xffff_ffff_ffff_f000n, 0x2000), EINVAL],
    ['a size beyond reason', dmaMap(0, 0xffff_ffff_ffff_f000n), EINVAL],
    ['an unknown flag', dmaMap(0x1000, 0x1000, 7), EINVAL],
    ['the same range', dmaMap(0x10_0000, 0x1000), EEXIST],
    ['an overlapping range', dmaMap(0xf_f000, 0x3000), EEXIST],
    ['a small argsz', join(u32(31, 3), u64(0, 0x1000, 0x1000)), EINVAL],
    ['a short message', dmaMap(0x1000, 0x1000).subarray(0, 31), EINVAL],
  ])('DMA_MAP of %s is refused', async (_name, payload, errno) => {
    const fd = createSharedMemory(0x10000);
    expect(await t.raw.errnoOf(2, dmaMap(0x10_0000, 0x1000), [fd])).toBe(0);
    expect(await t.raw.errnoOf(2, payload, [fd])).toBe(errno);
    expect(await t.raw.errnoOf(2, payload)).toBe(errno);
    expect(t.model.client?.memory.ranges.length).toBe(1);
    closeFd(fd);
  });

  test('descriptors that cannot be mapped', async () => {
    const fd = createSharedMemory(0x1000);
    const [near, far] = Socket.pair();
    const event = EventFd.create();
    expect(await t.raw.errnoOf(2, dmaMap(0, 0x2000), [fd])).toBe(ENXIO);
    expect(await t.raw.errnoOf(2, dmaMap(0, 0x1000), [fd, fd])).toBe(EINVAL);
    // Neither sockets nor eventfds have memory; the kernel says ENODEV, or their size of 0 says ENXIO.
    for (const other of [near.fd, event.fd])
      expect([ENODEV, ENXIO]).toContain(await t.raw.errnoOf(2, dmaMap(0, 0x1000), [other]));
    expect(t.model.client?.memory.ranges).toEqual([]);
    near.close();
    far.close();
    event.close();
    closeFd(fd);
  });

  test('refused maps are told on this side too: each cause at once, and how many there were when the client is gone', async () => {
    const fd = createSharedMemory(0x1000);
    for (let i = 0; i < 3; i++) expect(await t.raw.errnoOf(2, dmaMap(0, 0x2000), [fd])).toBe(ENXIO);
    expect(await t.raw.errnoOf(2, dmaMap(0, 0x800))).toBe(EINVAL);
    expect(await t.raw.errnoOf(2, dmaMap(0, 0x1000).subarray(0, 31))).toBe(EINVAL);
    expect(await t.raw.errnoOf(2, dmaMap(0, 0x1000), [fd])).toBe(0);
    expect(await t.raw.errnoOf(2, dmaMap(0, 0x1000), [fd])).toBe(EEXIST);
    closeFd(fd);
    const told = (): unknown[] => t.errors.map(({ error }) => error);
    expect(told()).toMatchObject([
      { code: 'ERR_VFIO_USER_DMA', errnoName: 'ENXIO', command: 'DMA_MAP' },
      { errnoName: 'EINVAL' },
      { errnoName: 'EEXIST' },
    ]);
    expect(String(told()[0])).toMatch(/a DMA_MAP was refused.*ENXIO.*file ends before the range does.*-g$/);
    t.errors.length = 0;
    t.raw.close();
    await until(() => told().length > 0);
    expect(told().map((error) => (error as Error).message)).toEqual([
      '3 DMA_MAPs were refused with ENXIO',
      '2 DMA_MAPs were refused with EINVAL',
    ]);
  });

  test.each([
    ['the beginning of a map', dmaUnmap(0, 0x2000), EINVAL],
    ['the end of a map', dmaUnmap(0x2000, 0x4000), EINVAL],
    ['the middle of a map', dmaUnmap(0x1000, 0x1000), EINVAL],
    ['no bytes', dmaUnmap(0x1000, 0), EINVAL],
    ['more than the address space', dmaUnmap(0x1000, 0xffff_ffff_ffff_f001n), EINVAL],
    ['several maps with a bitmap', join(u32(48, 1), u64(0, 0x8000), u64(4096, 8)), ENOENT],
    ['a dirty bitmap', join(u32(48, 1), u64(0x1000, 0x2000), u64(4096, 8)), ENOTSUP],
    ['an unknown flag', dmaUnmap(0x1000, 0x2000, 4), EINVAL],
    ['all, with an address', dmaUnmap(0x1000, 0x2000, 2), EINVAL],
  ])('DMA_UNMAP of %s is refused', async (_name, payload, errno) => {
    expect(await t.raw.errnoOf(2, dmaMap(0x1000, 0x2000))).toBe(0);
    expect(await t.raw.errnoOf(3, payload)).toBe(errno);
    expect(t.model.client?.memory.ranges.length).toBe(1);
  });

  // QEMU 11.1.3 with `intel-iommu`, when the guest is reset: payloads of its DMA_UNMAP, in their order. The maps are
  // pages that the guest had given to the device.
  test('whole address spaces, as QEMU with a virtual IOMMU unmaps them', async () => {
    const pages = [0x1000, 0x7fff_f000, 0xffe8_9000, 0xffff_d000];
    const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, 'hex'));
    for (const iova of pages) expect(await t.raw.errnoOf(2, dmaMap(iova, 0x1000))).toBe(0);
    const left = (): (number | undefined)[] =>
      t.model.client?.memory.ranges.map(({ iova }) => Number(iova)) ?? [];
    for (const [hex, pagesLeft] of [
      ['180000000000000000000000010000000000000001000000', pages], // 100000000h, 4 GiB, in which there is nothing
      ['1800000000000000000000ff000000000000000100000000', pages.slice(0, 2)], // FF000000h, 16 MiB
      ['180000000000000000000000000000000000008000000000', []], // 0, 2 GiB
      ['18000000000000000000f0fe0000000000001001ffffffff', []], // FEF00000h to the last byte of 64 bits
    ] as const) {
      const reply = await t.raw.ask(message(3, bytes(hex)));
      expect([reply.errno, Buffer.from(reply.payload).toString('hex')]).toEqual([0, hex]);
      expect(left()).toEqual(pagesLeft);
    }
    expect(t.model.log.slice(-4)).toEqual(
      [pages[2], pages[3], pages[0], pages[1]].map((iova) => `unmapping 0x${iova?.toString(16)}`),
    );
  });

  test('everything at once', async () => {
    expect(await t.raw.errnoOf(3, dmaUnmap(0, 0, 2))).toBe(0);
    for (const iova of [0x1000, 0x2000, 0x4000]) await t.raw.errnoOf(2, dmaMap(iova, 0x1000));
    expect(await t.raw.errnoOf(3, dmaUnmap(0, 0, 2))).toBe(0);
    expect(t.model.client?.memory.ranges).toEqual([]);
    expect(t.model.log.slice(-3)).toEqual(['unmapping 0x1000', 'unmapping 0x2000', 'unmapping 0x4000']);
  });

  test('a client that truncates its memory: zeroes and a report', async () => {
    const fd = createSharedMemory(0x2000, { sealed: false });
    await t.raw.errnoOf(2, dmaMap(0, 0x2000), [fd]);
    await t.model.client?.memory.write(0x1000, Uint8Array.of(7));
    ftruncateSync(fd, 0x1000);
    expect(await t.model.client?.memory.read(0x1000, 1)).toEqual(Uint8Array.of(0));
    await until(() => t.errors.length > 0);
    expect(t.errors[0]?.error).toMatchObject({ code: 'ERR_VFIO_USER_MAPPING_LOST' });
    closeFd(fd);
  });

  test('a client that truncates the memory of many ranges is told of twice, with their number', async () => {
    const fd = createSharedMemory(0x1000, { sealed: false });
    for (let index = 1; index <= 10; index++) await t.raw.errnoOf(2, dmaMap(index * 0x2000, 0x1000), [fd]);
    ftruncateSync(fd, 0);
    const { client, ranges } = t.model;
    for (const { iova } of ranges) expect(await client?.memory.read(iova, 1)).toEqual(Uint8Array.of(0));
    await until(() => t.errors.length > 0);
    // All have been told before the answer to this, which takes a few turns of the event loop.
    expect(await t.raw.errnoOf(13)).toBe(0);
    t.raw.close();
    await until(() => t.model.log.includes('detach'));
    const messages = t.errors.map(({ error }) => (error as Error).message);
    expect(messages).toEqual([
      expect.stringMatching(/^the client truncated .* at 0x2000\+0x1000;/),
      expect.stringMatching(/^the client truncated .* in 10 ranges;/),
    ]);
    closeFd(fd);
  });
});
