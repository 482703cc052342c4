// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EventFd, Socket, closeFd, createSharedMemory, fileSize } from '../../lib/native';
import { CommandError, serve, type Client, type Server } from '../../lib/server';
import {
  BAR_SIZE,
  F_NO_REPLY,
  RawClient,
  TestModel,
  join,
  message,
  openFds,
  u16,
  u32,
  u64,
  until,
} from './support';

const { EEXIST, EINVAL, EIO, ENOENT, ENOTSUP, ENXIO, ENODEV } = constants.errno;
const directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-server-'));
const endpoint = path.join(directory, 'device.sock');
afterAll(() => {
  rmSync(directory, { recursive: true });
});

let model: TestModel;
let server: Server;
let raw: RawClient;
let errors: { error: unknown; client: Client | null }[];
let fdsBefore: number;

beforeEach(async () => {
  fdsBefore = openFds();
  model = new TestModel();
  errors = [];
  server = await serve(endpoint, model, { onError: (error, client) => errors.push({ error, client }) });
  raw = await RawClient.connect(endpoint);
});

afterEach(async () => {
  raw.close();
  await server.close();
  model.close();
  expect(openFds()).toBe(fdsBefore);
});

/** `struct vfio_user_region_access`: u64 offset, u32 region, u32 count. */
const access = (region: number, offset: number | bigint, count: number): Uint8Array =>
  join(u64(offset), u32(region, count));
/** `struct vfio_user_dma_map`: u32 argsz, u32 flags, u64 offset, u64 address, u64 size. */
const dmaMap = (address: number | bigint, size: number | bigint, flags = 3, offset = 0): Uint8Array =>
  join(u32(32, flags), u64(offset, address, size));
/** `struct vfio_user_dma_unmap`: u32 argsz, u32 flags, u64 address, u64 size. */
const dmaUnmap = (address: number | bigint, size: number | bigint, flags = 0): Uint8Array =>
  join(u32(24, flags), u64(address, size));
/** `struct vfio_irq_set`: u32 argsz, flags, index, start, count. */
const setIrqs = (flags: number, index: number, start: number, count: number): Uint8Array =>
  u32(20, flags, index, start, count);

describe('VERSION', () => {
  const version = (major: number, minor: number, json: string): Uint8Array =>
    message(1, join(u16(major, minor), Buffer.from(json)));
  const negotiate = async (bytes: Uint8Array): Promise<string> => {
    raw.close();
    raw = await RawClient.connect(endpoint, false);
    const reply = await raw.ask(bytes);
    expect(reply.errno).toBe(0);
    expect([...reply.payload.subarray(0, 2)]).toEqual([0, 0]);
    return `${String(reply.payload[2])} ${Buffer.from(reply.payload.subarray(4)).toString()}`;
  };

  test('the lower minor version holds', async () => {
    expect(await negotiate(version(0, 9, ''))).toBe('1 ');
    expect(await negotiate(version(0, 0, ''))).toBe('0 ');
  });

  test('the reply is not longer than what the client sent; the most telling capability comes first', async () => {
    const long =
      '{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0';
    const reply = await negotiate(version(0, 0, long));
    expect(reply.length - 2).toBeLessThanOrEqual(long.length);
    expect(JSON.parse(reply.slice(2, -1))).toMatchObject({ capabilities: { max_msg_fds: 16 } });
    expect(await negotiate(version(0, 0, '{"capabilities":{"max_msg_fds":8}}\0'))).toBe('0 ');
    expect(await negotiate(version(0, 0, '{"capabilities":{"max_msg_fds":16}}\0'))).toBe(
      '0 {"capabilities":{"max_msg_fds":16}}\0',
    );
  });

  test('another major version, broken JSON and descriptors are refused', async () => {
    const fd = createSharedMemory(4096);
    for (const [bytes, fds] of [
      [version(1, 0, ''), []],
      [version(0, 0, '{"capabilities":'), []],
      [version(0, 0, '{"capabilities":{"max_msg_fds":-1}}'), []],
      [message(1, u16(0)), []],
    ] as const) {
      raw.close();
      raw = await RawClient.connect(endpoint, false);
      expect((await raw.ask(bytes, [...fds])).errno).toBe(EINVAL);
      await raw.end();
    }
    raw.close();
    raw = await RawClient.connect(endpoint, false);
    expect((await raw.ask(version(0, 0, ''), [fd])).errno).toBe(EINVAL);
    closeFd(fd);
  });

  test('comes first and once', async () => {
    expect(await raw.errnoOf(1, u16(0, 0))).toBe(EINVAL);
    expect(await raw.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
    raw.close();
    raw = await RawClient.connect(endpoint, false);
    expect(await raw.errnoOf(4, u32(16, 0, 0, 0))).toBe(EINVAL);
    await raw.end();
    expect(model.log).toEqual(['attach', 'detach']);
  });
});

describe('DEVICE_GET_INFO and its kin', () => {
  test('nine regions and five interrupt indexes, PCI, with reset', async () => {
    expect((await raw.ask(message(4, u32(16, 0, 0, 0)))).payload).toEqual(u32(16, 3, 9, 5));
    expect(await raw.errnoOf(4, u32(15, 0, 0, 0))).toBe(EINVAL);
    expect(await raw.errnoOf(4, u32(16))).toBe(EINVAL);
  });

  test('a region with sparse areas: first its size, then its areas and one descriptor', async () => {
    // struct vfio_region_info: argsz, flags, index, cap_offset, size, offset.
    const request = (argsz: number, index: number): Uint8Array => join(u32(argsz, 0, index, 0), u64(0, 0));
    const short = await raw.ask(message(5, request(32, 0)));
    expect(short.payload).toEqual(join(u32(64, 7, 0, 0), u64(BAR_SIZE, 0x1000)));
    expect(short.fds).toEqual([]);

    const whole = await raw.ask(message(5, request(4096, 0)));
    // struct vfio_region_info_cap_sparse_mmap: id 1, version 1, next 0, one area.
    const capability = join(u16(1, 1), u32(0, 1, 0), u64(0x1000, 0x2000));
    expect(whole.payload).toEqual(join(u32(64, 15, 0, 32), u64(BAR_SIZE, 0x1000), capability));
    expect(whole.fds.map(fileSize)).toEqual([0x1000 + BAR_SIZE]);
    whole.fds.forEach(closeFd);

    const all = await raw.ask(message(5, request(32, 4)));
    expect(all.payload).toEqual(join(u32(32, 7, 4, 0), u64(0x2000, 0)));
    expect(all.fds.length).toBe(1);
    all.fds.forEach(closeFd);
  });

  test('regions that are absent, one-way, or beyond the last', async () => {
    const request = (index: number): Uint8Array => join(u32(32, 0, index, 0), u64(0, 0));
    const flagsAndSize = async (index: number): Promise<number[]> => {
      const { payload } = await raw.ask(message(5, request(index)));
      const view = new DataView(payload.buffer);
      return [view.getUint32(4, true), view.getUint32(16, true)];
    };
    expect(await flagsAndSize(8)).toEqual([0, 0]);
    expect(await flagsAndSize(2)).toEqual([1, 64]);
    expect(await flagsAndSize(3)).toEqual([2, 64]);
    expect(await flagsAndSize(7)).toEqual([3, 4096]);
    expect(await raw.errnoOf(5, request(9))).toBe(EINVAL);
    expect(await raw.errnoOf(5, request(0xffffffff))).toBe(EINVAL);
    expect(await raw.errnoOf(5, u32(31, 0, 0, 0, 0, 0, 0, 0))).toBe(EINVAL);
  });

  test('no I/O descriptors', async () => {
    expect((await raw.ask(message(6, u32(4096, 0, 0, 0)))).payload).toEqual(u32(16, 0, 0, 0));
    expect(await raw.errnoOf(6, u32(16, 0, 9, 0))).toBe(EINVAL);
  });

  test('interrupt indexes', async () => {
    // struct vfio_irq_info: argsz, flags, index, count. EVENTFD is 1, MASKABLE 2.
    expect((await raw.ask(message(7, u32(16, 0, 0, 0)))).payload).toEqual(u32(16, 3, 0, 1));
    expect((await raw.ask(message(7, u32(16, 0, 2, 0)))).payload).toEqual(u32(16, 1, 2, 4));
    expect((await raw.ask(message(7, u32(16, 0, 4, 0)))).payload).toEqual(u32(16, 1, 4, 0));
    expect(await raw.errnoOf(7, u32(16, 0, 5, 0))).toBe(EINVAL);
  });
});

describe('region accesses', () => {
  test('read and write', async () => {
    const written = await raw.ask(message(10, join(access(0, 0x10, 4), u32(0xcafe))));
    expect(written.payload).toEqual(access(0, 0x10, 4));
    const read = await raw.ask(message(9, access(0, 0x10, 4)));
    expect(read.payload).toEqual(join(access(0, 0x10, 4), u32(0xcafe)));
    expect((await raw.ask(message(9, access(7, 0, 4)))).payload).toEqual(
      join(access(7, 0, 4), u16(0x1234, 0x5678)),
    );
    expect((await raw.ask(message(9, access(7, 0, 4096)))).payload.length).toBe(16 + 4096);
    expect((await raw.ask(message(9, access(0, BAR_SIZE, 0)))).payload).toEqual(access(0, BAR_SIZE, 0));
    expect(await raw.errnoOf(10, join(access(7, 4, 2), u16(0x0006)))).toBe(0);
    expect(model.log).toEqual(['attach', 'command']);
  });

  test.each([
    ['read beyond the end', 9, access(0, BAR_SIZE - 2, 4)],
    ['read far beyond the end', 9, access(0, 0xffff_ffff_ffff_fff0n, 4)],
    ['read of more than can be transferred', 9, access(0, 0, 0xffff_ffff)],
    ['read of an absent region', 9, access(5, 0, 4)],
    ['read of a region that does not exist', 9, access(0x7fff_ffff, 0, 4)],
    ['read of a region that cannot be read', 9, access(3, 0, 4)],
    ['read cut short', 9, access(0, 0, 4).subarray(0, 15)],
    ['write of a region that cannot be written', 10, join(access(2, 0, 4), u32(1))],
    ['write beyond the end', 10, join(access(0, BAR_SIZE, 4), u32(1))],
    ['write with too little data', 10, join(access(0, 0, 8), u32(1))],
    ['write with too much data', 10, join(access(0, 0, 2), u32(1))],
    [
      'several writes, one beyond the end',
      15,
      join(u64(2), access(0, 0, 4), u64(7), access(0, BAR_SIZE, 1), u64(7)),
    ],
    ['several writes, fewer than said', 15, join(u64(2), access(0, 0, 4), u64(7))],
    ['several writes, far too many', 15, u64(0xffff_ffff_ffff_ffffn)],
  ])('%s is EINVAL', async (_name, command, payload) => {
    expect(await raw.errnoOf(command, payload)).toBe(EINVAL);
    expect(model.bar0.every((byte) => byte === 0)).toBe(true);
    expect(errors).toEqual([]);
  });

  test('posted writes have no reply, also when they fail', async () => {
    raw.send(message(10, join(access(0, 8, 4), u32(5)), 5, F_NO_REPLY));
    raw.send(message(10, join(access(0, BAR_SIZE, 4), u32(5)), 6, F_NO_REPLY));
    raw.send(message(10, join(access(1, 8, 4), u32(5)), 6, F_NO_REPLY));
    expect((await raw.ask(message(9, access(0, 8, 4), 7))).id).toBe(7);
    expect(model.log).toContain('posted 8');
  });

  test('several writes in one message', async () => {
    const payload = join(u64(2), access(0, 0, 4), u64(0x11223344), access(0, 8, 8), u64(0x55));
    expect((await raw.ask(message(15, payload))).payload).toEqual(u64(2));
    expect(model.bar0.subarray(0, 9)).toEqual(Uint8Array.of(0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0, 0x55));
    // The second fails: the reply tells that one was done.
    model.failure = new CommandError(ENXIO, 'test');
    const partly = join(u64(2), access(1, 0, 4), u64(1), access(1, 8, 4), u64(1));
    expect((await raw.ask(message(15, partly))).payload).toEqual(u64(1));
    model.failure = new CommandError(ENXIO, 'test');
    expect(await raw.errnoOf(15, join(u64(1), access(1, 8, 4), u64(1)))).toBe(ENXIO);
  });

  test('errors of the model: its errno, or EIO and a report', async () => {
    model.failure = new CommandError(ENXIO, 'not now');
    expect(await raw.errnoOf(9, access(1, 0, 4))).toBe(ENXIO);
    expect(errors).toEqual([]);
    for (const [command, payload] of [
      [9, access(1, 0, 4)],
      [10, join(access(1, 8, 4), u32(1))],
      [13, undefined],
    ] as const) {
      const failure = new TypeError('a defect of the model');
      model.failure = failure;
      expect(await raw.errnoOf(command, payload)).toBe(EIO);
      expect(errors.splice(0)).toEqual([{ error: failure, client: model.client }]);
    }
  });

  test('commands are served in their order while one takes long', async () => {
    let open = (): void => undefined;
    model.gate = new Promise((resolve) => {
      open = resolve;
    });
    raw.send(message(13, undefined, 1));
    raw.send(message(9, access(0, 0, 4), 2));
    await sleep(20);
    open();
    expect((await raw.receive()).id).toBe(1);
    expect((await raw.receive()).id).toBe(2);
  });
});

describe('DMA_MAP and DMA_UNMAP', () => {
  test('a mapped descriptor is shared memory, which the server holds without the descriptor', async () => {
    const fd = createSharedMemory(0x3000);
    const open = openFds();
    expect(await raw.errnoOf(2, dmaMap(0x10000, 0x2000, 3, 0x1000), [fd])).toBe(0);
    expect(openFds()).toBe(open);
    const { client } = model;
    expect(client?.memory.ranges).toEqual(model.ranges);
    const place = client?.memory.place(0x10800, 16, 'readwrite');
    expect(place).toMatchObject({ offset: 0x800 });
    expect(place?.buffer.byteLength).toBe(0x2000);
    await client?.memory.write(0x10800, Uint8Array.of(1, 2, 3));
    expect(await client?.memory.read(0x10800n, 4)).toEqual(Uint8Array.of(1, 2, 3, 0));

    const generation = client?.memory.generation ?? 0;
    expect((await raw.ask(message(3, dmaUnmap(0x10000, 0x2000)))).payload).toEqual(dmaUnmap(0x10000, 0x2000));
    expect(client?.memory.generation).toBeGreaterThan(generation);
    expect(place?.buffer.byteLength).toBe(0);
    expect(client?.memory.place(0x10800, 16, 'read')).toBeNull();
    await expect(client?.memory.read(0x10800, 4)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DMA' });
    expect(model.log).toEqual(['attach', 'mapped 0x10000', 'unmapping 0x10000']);
    closeFd(fd);
  });

  test('the memory stays until the model has let go of it', async () => {
    const fd = createSharedMemory(0x1000);
    await raw.errnoOf(2, dmaMap(0, 0x1000), [fd]);
    const buffer = model.ranges[0]?.buffer;
    let open = (): void => undefined;
    model.gate = new Promise((resolve) => {
      open = resolve;
    });
    const reply = raw.errnoOf(3, dmaUnmap(0, 0x1000));
    await until(() => model.log.includes('unmapping 0x0'));
    await sleep(10);
    expect(buffer?.byteLength).toBe(0x1000);
    open();
    expect(await reply).toBe(0);
    expect(buffer?.byteLength).toBe(0);
    closeFd(fd);
  });

  test('a client that leaves while the model lets go', async () => {
    const fd = createSharedMemory(0x1000);
    await raw.errnoOf(2, dmaMap(0, 0x1000), [fd]);
    closeFd(fd);
    let open = (): void => undefined;
    model.gate = new Promise((resolve) => {
      open = resolve;
    });
    raw.send(message(3, dmaUnmap(0, 0x1000)));
    await until(() => model.log.includes('unmapping 0x0'));
    raw.close();
    await until(() => model.log.includes('detach'));
    raw = await RawClient.connect(endpoint, false);
    raw.send(message(1, u16(0, 0)));
    await sleep(20);
    // The next client is not served while the model still works for the last.
    expect(model.log.filter((line) => line === 'attach').length).toBe(1);
    open();
    expect((await raw.receive()).errno).toBe(0);
  });

  test('a model that cannot let go keeps the range', async () => {
    expect(await raw.errnoOf(2, dmaMap(0, 0x1000))).toBe(0);
    model.failure = new Error('stuck');
    expect(await raw.errnoOf(3, dmaUnmap(0, 0x1000))).toBe(EIO);
    expect(model.client?.memory.ranges.length).toBe(1);
    expect(await raw.errnoOf(3, dmaUnmap(0, 0x1000))).toBe(0);
  });

  test('permissions', async () => {
    const fd = createSharedMemory(0x3000);
    await raw.errnoOf(2, dmaMap(0x1000, 0x1000, 1), [fd]);
    await raw.errnoOf(2, dmaMap(0x2000, 0x1000, 2, 0x1000), [fd]);
    await raw.errnoOf(2, dmaMap(0x3000, 0x1000, 0, 0x2000), [fd]);
    const memory = model.client?.memory;
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
    await raw.errnoOf(2, dmaMap(0x1000, 0x1000, 3, 0x2000), [fd]);
    await raw.errnoOf(2, dmaMap(0x2000, 0x1000), [fd]);
    await raw.errnoOf(2, dmaMap(0xffff_ffff_ffff_f000n, 0x1000, 3, 0x1000), [fd]);
    const memory = model.client?.memory;
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
    expect(await raw.errnoOf(2, dmaMap(0x10_0000, 0x1000), [fd])).toBe(0);
    expect(await raw.errnoOf(2, payload, [fd])).toBe(errno);
    expect(await raw.errnoOf(2, payload)).toBe(errno);
    expect(model.client?.memory.ranges.length).toBe(1);
    closeFd(fd);
  });

  test('descriptors that cannot be mapped', async () => {
    const fd = createSharedMemory(0x1000);
    const [near, far] = Socket.pair();
    const event = EventFd.create();
    expect(await raw.errnoOf(2, dmaMap(0, 0x2000), [fd])).toBe(ENXIO);
    expect(await raw.errnoOf(2, dmaMap(0, 0x1000), [fd, fd])).toBe(EINVAL);
    // Neither sockets nor eventfds have memory; the kernel says ENODEV, or their size of 0 says ENXIO.
    for (const other of [near.fd, event.fd])
      expect([ENODEV, ENXIO]).toContain(await raw.errnoOf(2, dmaMap(0, 0x1000), [other]));
    expect(model.client?.memory.ranges).toEqual([]);
    near.close();
    far.close();
    event.close();
    closeFd(fd);
  });

  test.each([
    ['what is not mapped', dmaUnmap(0x5000, 0x1000), ENOENT],
    ['a part', dmaUnmap(0x1000, 0x1000), ENOENT],
    ['more than a range', dmaUnmap(0x1000, 0x4000), ENOENT],
    ['a dirty bitmap', join(u32(48, 1), u64(0x1000, 0x2000), u64(4096, 8)), ENOTSUP],
    ['an unknown flag', dmaUnmap(0x1000, 0x2000, 4), EINVAL],
    ['all, with an address', dmaUnmap(0x1000, 0x2000, 2), EINVAL],
  ])('DMA_UNMAP of %s is refused', async (_name, payload, errno) => {
    expect(await raw.errnoOf(2, dmaMap(0x1000, 0x2000))).toBe(0);
    expect(await raw.errnoOf(3, payload)).toBe(errno);
    expect(model.client?.memory.ranges.length).toBe(1);
  });

  test('everything at once', async () => {
    expect(await raw.errnoOf(3, dmaUnmap(0, 0, 2))).toBe(0);
    for (const iova of [0x1000, 0x2000, 0x4000]) await raw.errnoOf(2, dmaMap(iova, 0x1000));
    expect(await raw.errnoOf(3, dmaUnmap(0, 0, 2))).toBe(0);
    expect(model.client?.memory.ranges).toEqual([]);
    expect(model.log.slice(-3)).toEqual(['unmapping 0x1000', 'unmapping 0x2000', 'unmapping 0x4000']);
  });

  test('a client that truncates its memory: zeroes and a report', async () => {
    const fd = createSharedMemory(0x2000, { sealed: false });
    await raw.errnoOf(2, dmaMap(0, 0x2000), [fd]);
    await model.client?.memory.write(0x1000, Uint8Array.of(7));
    const { ftruncateSync } = jest.requireActual<typeof import('node:fs')>('node:fs');
    ftruncateSync(fd, 0x1000);
    expect(await model.client?.memory.read(0x1000, 1)).toEqual(Uint8Array.of(0));
    await until(() => errors.length > 0);
    expect(errors[0]?.error).toMatchObject({ code: 'ERR_VFIO_USER_MAPPING_LOST' });
    closeFd(fd);
  });
});

describe('DMA_READ and DMA_WRITE', () => {
  beforeEach(async () => {
    // 1 MiB of transfer size on both sides; 3 MiB of memory without a descriptor.
    expect(await raw.errnoOf(2, dmaMap(0x10_0000, 0x30_0000))).toBe(0);
  });

  test('reads in chunks that the client takes', async () => {
    const result = model.client?.memory.read(0x10_0800, 0x10_0000 + 3);
    const first = await raw.receive();
    expect([first.command, first.flags]).toEqual([11, 0]);
    expect(first.payload).toEqual(u64(0x10_0800, 0x10_0000));
    const data = new Uint8Array(0x10_0000).fill(9);
    const reply = message(11, join(first.payload, data), first.id, 1);
    for (let sent = 0; sent < reply.length;) {
      sent += raw.socket.send(new Uint8Array(0), 0, reply, sent, null);
      await sleep(0);
    }
    const second = await raw.receive();
    expect(second.payload).toEqual(u64(0x20_0800, 3));
    raw.send(message(11, join(second.payload, Uint8Array.of(1, 2, 3)), second.id, 1));
    expect((await result)?.subarray(0xf_ffff)).toEqual(Uint8Array.of(9, 1, 2, 3));
  });

  test('writes', async () => {
    const result = model.client?.memory.write(0x10_0000, Uint8Array.of(1, 2, 3));
    const request = await raw.receive();
    expect(request.command).toBe(12);
    expect(request.payload).toEqual(join(u64(0x10_0000, 3), Uint8Array.of(1, 2, 3)));
    raw.send(message(12, u64(0x10_0000, 3), request.id, 1));
    await result;
  });

  test.each([
    ['less than asked for', join(u64(0x10_0000, 1), Uint8Array.of(1)), 0, 'ERR_VFIO_USER_DMA'],
    ['another address', join(u64(0x11_0000, 2), u16(1)), 0, 'ERR_VFIO_USER_PROTOCOL'],
    ['no data', u64(0x10_0000, 2), 0, 'ERR_VFIO_USER_PROTOCOL'],
    ['more than asked for', join(u64(0x10_0000, 9), new Uint8Array(9)), 0, 'ERR_VFIO_USER_PROTOCOL'],
    ['an error', undefined, 0x20, 'ERR_VFIO_USER_REMOTE'],
  ])('a client that answers with %s', async (_name, payload, flags, code) => {
    const result = model.client?.memory.read(0x10_0000, 2);
    const request = await raw.receive();
    raw.send(message(11, payload, request.id, 1 | flags));
    await expect(result).rejects.toMatchObject({ code });
    expect(await raw.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
  });

  test('a client that leaves instead of answering', async () => {
    const result = model.client?.memory.read(0x10_0000, 2);
    await raw.receive();
    raw.close();
    await expect(result).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
  });

  test('a range that is longer than an ArrayBuffer can be is reached by messages', async () => {
    const { constants: limits } = jest.requireActual<typeof import('node:buffer')>('node:buffer');
    if (limits.MAX_LENGTH > 2 ** 33) return;
    const fd = createSharedMemory(limits.MAX_LENGTH + 0x1000);
    expect(await raw.errnoOf(2, dmaMap(1n << 40n, limits.MAX_LENGTH + 0x1000), [fd])).toBe(0);
    expect(model.ranges.at(-1)?.buffer).toBeNull();
    closeFd(fd);
  });
});

describe('DEVICE_SET_IRQS', () => {
  // VFIO_IRQ_SET_*: data none 1, bool 2, eventfd 4; action mask 8, unmask 16, trigger 32.
  const NONE = 1;
  const BOOL = 2;
  const EVENTFD = 4;
  const MASK = 8;
  const UNMASK = 16;
  const TRIGGER = 32;
  let events: EventFd[];
  const counts = (): number[] => events.map((event) => event.read());
  beforeEach(() => {
    events = Array.from({ length: 4 }, () => EventFd.create());
  });
  afterEach(() => {
    for (const event of events) event.close();
  });
  const enable = (index: number, start: number, count: number): Promise<number> =>
    raw.errnoOf(
      8,
      setIrqs(EVENTFD | TRIGGER, index, start, count),
      events.slice(start, start + count).map((event) => event.fd),
    );

  test('vectors signal their eventfds until they are taken away', async () => {
    const client = model.client as Client;
    expect(client.trigger(2, 0)).toBe(false);
    expect(await enable(2, 0, 3)).toBe(0);
    expect([0, 1, 2, 3].map((vector) => client.trigger(2, vector))).toEqual([true, true, true, false]);
    expect(client.trigger(2, 1)).toBe(true);
    expect(counts()).toEqual([1, 2, 1, 0]);
    for (const [index, vector] of [
      [2, 4],
      [2, -1],
      [2, 0.5],
      [1, 0],
      [99, 0],
    ] as const)
      expect(client.trigger(index, vector)).toBe(false);

    // One vector is taken away without descriptors, one is replaced, then the whole index is disabled.
    expect(await raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 2, 1, 1))).toBe(0);
    expect(await raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 2, 0, 1), [events[3]?.fd ?? -1])).toBe(0);
    expect([0, 1, 2].map((vector) => client.trigger(2, vector))).toEqual([true, false, true]);
    expect(counts()).toEqual([0, 0, 1, 1]);
    expect(await raw.errnoOf(8, setIrqs(NONE | TRIGGER, 2, 0, 0))).toBe(0);
    expect([0, 1, 2].map((vector) => client.trigger(2, vector))).toEqual([false, false, false]);
  });

  test('the client triggers: none and bool', async () => {
    await enable(2, 0, 4);
    expect(await raw.errnoOf(8, setIrqs(NONE | TRIGGER, 2, 1, 2))).toBe(0);
    expect(counts()).toEqual([0, 1, 1, 0]);
    expect(await raw.errnoOf(8, join(setIrqs(BOOL | TRIGGER, 2, 0, 4), Uint8Array.of(1, 0, 0, 255)))).toBe(0);
    expect(counts()).toEqual([1, 0, 0, 1]);
  });

  test('a masked vector becomes pending, and signals once when unmasked', async () => {
    const client = model.client as Client;
    await enable(2, 0, 4);
    expect(await raw.errnoOf(8, setIrqs(NONE | MASK, 2, 0, 2))).toBe(0);
    expect([0, 0, 1, 2].map((vector) => client.trigger(2, vector))).toEqual([false, false, false, true]);
    expect(counts()).toEqual([0, 0, 1, 0]);
    expect(await raw.errnoOf(8, join(setIrqs(BOOL | UNMASK, 2, 0, 4), Uint8Array.of(1, 0, 1, 1)))).toBe(0);
    expect(counts()).toEqual([1, 0, 0, 0]);
    expect(await raw.errnoOf(8, setIrqs(NONE | UNMASK, 2, 1, 1))).toBe(0);
    expect(counts()).toEqual([0, 1, 0, 0]);
    expect(await raw.errnoOf(8, setIrqs(NONE | UNMASK, 2, 1, 1))).toBe(0);
    expect(counts()).toEqual([0, 0, 0, 0]);
  });

  test('eventfds that mask and unmask', async () => {
    const client = model.client as Client;
    const [signal, mask, unmask] = events as [EventFd, EventFd, EventFd];
    await enable(0, 0, 1);
    expect(await raw.errnoOf(8, setIrqs(EVENTFD | MASK, 0, 0, 1), [mask.fd])).toBe(0);
    expect(await raw.errnoOf(8, setIrqs(EVENTFD | UNMASK, 0, 0, 1), [unmask.fd])).toBe(0);
    mask.signal();
    await until(() => !client.trigger(0, 0));
    signal.read();
    unmask.signal();
    await until(() => signal.read() === 1);
    expect(client.trigger(0, 0)).toBe(true);
    expect(await raw.errnoOf(8, setIrqs(EVENTFD | MASK, 0, 0, 1))).toBe(0);
    mask.signal();
    await sleep(20);
    expect(client.trigger(0, 0)).toBe(true);
  });

  test('INTx that was signalled again while its line was up is signalled anew when it is unmasked', async () => {
    const client = model.client as Client;
    await enable(0, 0, 1);
    client.trigger(0, 0);
    client.trigger(0, 0);
    expect(events[0]?.read()).toBe(2);
    await raw.errnoOf(8, setIrqs(NONE | UNMASK, 0, 0, 1));
    expect(events[0]?.read()).toBe(1);
    await raw.errnoOf(8, setIrqs(NONE | UNMASK, 0, 0, 1));
    expect(events[0]?.read()).toBe(0);
  });

  test.each([
    ['an index without vectors', setIrqs(NONE | TRIGGER, 1, 0, 0)],
    ['an index that does not exist', setIrqs(NONE | TRIGGER, 77, 0, 1)],
    ['a vector beyond the last', setIrqs(NONE | TRIGGER, 2, 4, 1)],
    ['more vectors than there are', setIrqs(NONE | TRIGGER, 2, 1, 4)],
    ['a sum that wraps', setIrqs(NONE | TRIGGER, 2, 0xffffffff, 2)],
    ['no vectors, but a start', setIrqs(NONE | TRIGGER, 2, 1, 0)],
    ['no vectors to mask', setIrqs(NONE | MASK, 2, 0, 0)],
    ['no vectors, but eventfds', setIrqs(EVENTFD | TRIGGER, 2, 0, 0)],
    ['two actions', setIrqs(NONE | TRIGGER | MASK, 2, 0, 1)],
    ['no action', setIrqs(NONE, 2, 0, 1)],
    ['two forms of data', setIrqs(NONE | BOOL | TRIGGER, 2, 0, 1)],
    ['too few booleans', join(setIrqs(BOOL | TRIGGER, 2, 0, 4), Uint8Array.of(1, 1, 1))],
    ['a small argsz', u32(19, NONE | TRIGGER, 2, 0, 1)],
    ['a short message', setIrqs(NONE | TRIGGER, 2, 0, 1).subarray(0, 16)],
  ])('%s is EINVAL', async (_name, payload) => {
    await enable(2, 0, 4);
    expect(await raw.errnoOf(8, payload)).toBe(EINVAL);
    expect(counts()).toEqual([0, 0, 0, 0]);
    expect(model.client?.trigger(2, 0)).toBe(true);
  });

  test('descriptors that do not fit are refused and closed, and change nothing', async () => {
    await enable(2, 0, 4);
    const open = openFds();
    const memory = createSharedMemory(4096);
    const [a, b] = events.map((event) => event.fd) as [number, number];
    expect(await raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 2, 0, 3), [a, b])).toBe(EINVAL);
    expect(await raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 2, 0, 1), [a, b])).toBe(EINVAL);
    expect(await raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 2, 0, 3), [b, b, memory])).toBe(EINVAL);
    expect(await raw.errnoOf(8, setIrqs(NONE | TRIGGER, 2, 0, 1), [a])).toBe(EINVAL);
    closeFd(memory);
    expect(openFds()).toBe(open);
    model.client?.trigger(2, 0);
    expect(counts()).toEqual([1, 0, 0, 0]);
  });
});

describe('other commands', () => {
  test('DEVICE_RESET', async () => {
    expect(await raw.errnoOf(13)).toBe(0);
    expect(model.log).toEqual(['attach', 'reset']);
  });

  test('what is not served', async () => {
    for (const command of [0, 11, 12, 14, 16, 17, 18, 19, 0xffff])
      expect(await raw.errnoOf(command, new Uint8Array(64))).toBe(ENOTSUP);
  });

  test('descriptors where none belong', async () => {
    const fd = createSharedMemory(4096);
    const open = openFds();
    for (const command of [3, 4, 5, 6, 7, 9, 10, 13, 15, 16])
      expect(await raw.errnoOf(command, new Uint8Array(64), [fd, fd])).toBe(EINVAL);
    expect(openFds()).toBe(open);
    closeFd(fd);
  });
});
