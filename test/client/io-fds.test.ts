// SPDX-License-Identifier: MIT
import { type IoEventFd, type IoRegionFd, type VfioUserRegion } from '../../lib/client';
import { EventFd, Socket } from '../../lib/native';
import { type ServedIoFd } from '../../lib/server';
import { TestModel } from '../server/support';
import {
  GET_REGION_INFO,
  REGION_WRITE,
  atEnd,
  bare,
  failure,
  fakeDevice,
  hex,
  join,
  openFds,
  regionInfo,
  servedDevice,
  sharedMemory,
  toHex,
  u32,
  u64,
  until,
  warmUp,
  type Answer,
  type FakeServer,
  type Heard,
} from './support';

const GET_REGION_IO_FDS = 6;

/** `struct vfio_user_region_io_fds_reply`: argsz, flags, index, count. */
const reply = (argsz: number, count: number, ...entries: Uint8Array[]): Uint8Array =>
  join(u32(argsz, 0, 0, count), ...entries);
/** The specification's entry of 40 bytes: offset, size, fd_index, type, flags, padding, datamatch or user_data. */
const entry40 = (
  offset: number,
  size: number,
  fd: number,
  type: number,
  flags: number,
  last: number | bigint,
): Uint8Array => join(u64(offset, size), u32(fd, type, flags, 0), u64(last));
/** libvfio-user's `struct vfio_user_sub_region_ioeventfd`, 48 bytes. */
const entry48 = (
  offset: number,
  size: number,
  fd: number,
  type: number,
  flags: number,
  shadowFd: number,
  shadowOffset: number | bigint,
  datamatch: number,
): Uint8Array => join(u64(offset, size), u32(fd, type, flags, shadowFd), u64(shadowOffset, datamatch));

const written = ({ payload }: Heard): Uint8Array => payload.slice(0, 16);

async function fakeRegion(
  ioFds: Answer | ((heard: Heard) => Answer),
): Promise<{ region: VfioUserRegion; server: FakeServer }> {
  const { device, server } = await fakeDevice({
    [GET_REGION_INFO]: regionInfo(0, { size: 0x1000 }),
    [GET_REGION_IO_FDS]: ioFds,
    [REGION_WRITE]: written,
  });
  return { region: await device.region('bar0'), server };
}

function eventFd(): EventFd {
  const event = EventFd.create();
  atEnd(() => {
    event.close();
  });
  return event;
}

test('eventfds: what they say, and writes that go to them', async () => {
  const [plain, match] = [eventFd(), eventFd()];
  const { region, server } = await fakeRegion({
    payload: reply(
      16 + 3 * 40,
      3,
      entry40(0x10, 4, 0, 0, 0, 0),
      entry40(0x20, 2, 1, 0, 1, 0x1234), // KVM_IOEVENTFD_FLAG_DATAMATCH
      entry40(0x40, 0, 0, 0, 2, 0), // KVM_IOEVENTFD_FLAG_PIO, shares the descriptor of the first
    ),
    fds: [plain.fd, match.fd],
  });
  const subRegions = await region.ioFds();
  expect(await region.ioFds()).toBe(subRegions);
  // argsz 4096, flags 0, index 0, count 0
  expect(server.payloads(GET_REGION_IO_FDS)).toEqual([bare('00100000 00000000 00000000 00000000')]);
  expect(subRegions).toMatchObject([
    { kind: 'ioeventfd', offset: 0x10, size: 4, datamatch: null, portIo: false, shadowed: false },
    { kind: 'ioeventfd', offset: 0x20, size: 2, datamatch: 0x1234n, portIo: false },
    { kind: 'ioeventfd', offset: 0x40, size: 0, datamatch: null, portIo: true },
  ]);
  await region.write32(0x10, 1);
  region.write32Sync(0x10, 2);
  expect([plain.read(), match.read(), server.count(REGION_WRITE)]).toEqual([2, 0, 0]);
  await region.write16(0x20, 0x1234);
  await region.write64(0x40, 7n);
  await region.write8(0x40, 7);
  expect([plain.read(), match.read(), server.count(REGION_WRITE)]).toEqual([2, 1, 0]);
  // Another offset, width or value, and more than a register, go by message.
  await region.write32(0x14, 1);
  await region.write16(0x10, 1);
  await region.write16(0x20, 0x1235);
  await region.writeBytes(0x10, new Uint8Array(16));
  await region.writeBytes(0x40, new Uint8Array(3));
  expect([plain.read(), match.read(), server.count(REGION_WRITE)]).toEqual([0, 0, 5]);
  await region.ioFds({ useForWrites: false });
  await region.write32(0x10, 1);
  expect([plain.read(), server.count(REGION_WRITE), server.count(GET_REGION_IO_FDS)]).toEqual([0, 6, 1]);

  const [first, second] = subRegions as [IoEventFd, IoEventFd];
  first.signal();
  first.signal(99);
  second.signal();
  expect([plain.read(), match.read()]).toEqual([2, 1]);
  expect(() => {
    second.signal(1);
  }).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }) as Error);
  expect(() => {
    first.signal(2 ** 32);
  }).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }) as Error);
});

test('shadow memory gets the value before the signal', async () => {
  const event = eventFd();
  const { fd, bytes } = sharedMemory(0x2000);
  const { region } = await fakeRegion({
    payload: reply(
      16 + 3 * 48,
      3,
      entry48(0x0, 4, 0, 2, 0, 1, 0x1008, 0),
      entry48(0x8, 0, 0, 2, 0, 1, 0x1ff8, 0),
      entry48(0x10, 2, 0, 2, 1, 1, 0x1001, 5),
    ),
    fds: [event.fd, fd],
  });
  const subRegions = await region.ioFds();
  expect(subRegions.map((one) => one.kind === 'ioeventfd' && one.shadowed)).toEqual([true, true, true]);
  await region.write32(0, 0xa1b2c3d4);
  expect(toHex(bytes.subarray(0x1008, 0x1010))).toBe('d4c3b2a100000000');
  await region.write64(8, 0x1122334455667788n);
  expect(toHex(bytes.subarray(0x1ff8))).toBe('8877665544332211');
  await region.write8(8, 0xff);
  await region.write16(8, 0xbbaa);
  expect(toHex(bytes.subarray(0x1ff8))).toBe('aabb665544332211');
  await region.write16(0x10, 5);
  expect(toHex(bytes.subarray(0x1000, 0x1004))).toBe('00050000');
  expect(event.read()).toBe(5);
});

test('more entries than the first message has room for are asked for again', async () => {
  const event = eventFd();
  const argsz = 16 + 150 * 40;
  const { region, server } = await fakeRegion(({ payload }) =>
    payload[1] === 0x10
      ? reply(argsz, 150)
      : {
          payload: reply(argsz, 150, ...Array.from({ length: 150 }, (_, i) => entry40(i * 4, 4, 0, 0, 0, 0))),
          fds: [event.fd],
        },
  );
  expect(await region.ioFds()).toHaveLength(150);
  expect(server.payloads(GET_REGION_IO_FDS)[1]).toBe(bare('80170000 00000000 00000000 00000000'));
});

test('entries that cannot be used are left out: no descriptor, a socket that is no stream', async () => {
  const { fd } = sharedMemory(4096);
  const { region } = await fakeRegion({
    payload: reply(16 + 80, 2, entry40(0, 4, 0xffffffff, 0, 0, 0), entry40(8, 8, 0, 1, 0, 0)),
    fds: [fd],
  });
  expect(await region.ioFds()).toEqual([]);
});

describe('what makes no sense', () => {
  const shadow48 = (fdIndex: number, shadowIndex: number, offset: number | bigint): Uint8Array =>
    reply(16 + 48, 1, entry48(0, 4, fdIndex, 2, 0, shadowIndex, offset, 0));
  test.each([
    ['an offset beyond the region', reply(56, 1, entry40(0x1000, 0, 0, 0, 0, 0)), 'not within'],
    ['an end beyond the region', reply(56, 1, entry40(0xffe, 4, 0, 0, 0, 0)), 'not within'],
    ['an eventfd for 3 bytes', reply(56, 1, entry40(0, 3, 0, 0, 0, 0)), '3 bytes'],
    ['an unknown type', reply(56, 1, entry40(0, 4, 0, 9, 0, 0)), 'type 9'],
    ['a descriptor that did not come', reply(56, 1, entry40(0, 4, 2, 0, 0, 0)), 'descriptor 2 of 2'],
    ['memory as eventfd', reply(56, 1, entry40(0, 4, 1, 0, 0, 0)), 'no eventfd'],
    ['an eventfd as memory', shadow48(0, 0, 0), 'something else'],
    ['shadow memory beyond its file', shadow48(0, 1, 0x2000), 'exceed the file'],
    ['an offset beyond reason', shadow48(0, 1, 1n << 60n), 'beyond reason'],
    ['always more to come', reply(8192, 200), 'entries need'],
    ['entries for gigabytes', reply(0x7fffffff, 200), 'entries need'],
    ['another region', join(u32(16, 0, 3, 0)), 'index'],
    ['12 bytes', u32(16, 0, 0), '12 bytes'],
  ])('%s', async (_name, payload, text) => {
    warmUp();
    const event = eventFd();
    const { fd } = sharedMemory(0x1000);
    const { region } = await fakeRegion(() => ({ payload, fds: [event.fd, fd] }));
    const before = openFds();
    await expect(region.ioFds()).rejects.toMatchObject(failure('ERR_VFIO_USER_PROTOCOL', text));
    expect(openFds()).toBe(before);
    await region.write32(0, 1);
    expect(event.read()).toBe(0);
  });

  test('a server without the command', async () => {
    const { region, server } = await fakeRegion(95);
    await expect(region.ioFds()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_REMOTE', errno: 95 });
    await expect(region.ioFds()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_REMOTE' });
    expect(server.count(GET_REGION_IO_FDS)).toBe(2);
  });
});

test('closing the device closes what came', async () => {
  warmUp();
  const event = eventFd();
  const { fd } = sharedMemory(0x1000);
  const before = openFds();
  const { device, server } = await fakeDevice({
    [GET_REGION_INFO]: regionInfo(0),
    [GET_REGION_IO_FDS]: {
      payload: reply(16 + 48, 1, entry48(0, 4, 0, 2, 0, 1, 0, 0)),
      fds: [event.fd, fd],
    },
  });
  const region = await device.region('bar0');
  const [subRegion] = (await region.ioFds()) as [IoEventFd];
  await device.close();
  server.close();
  expect(openFds()).toBe(before);
  expect(() => {
    subRegion.signal(1);
  }).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_CLOSED' }) as Error);
  await expect(region.ioFds()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
});

describe('ioregionfd', () => {
  /** A sub-region at 0x100 of 0x20 bytes, and the server's end of its socket. */
  async function ioRegion(
    flags: number,
    options: { messageTimeout?: number } = {},
  ): Promise<{ subRegion: IoRegionFd; peer: Socket; received: () => string; close: () => void }> {
    const [near, peer] = Socket.pair();
    const { device } = await fakeDevice(
      {
        [GET_REGION_INFO]: regionInfo(0),
        [GET_REGION_IO_FDS]: {
          payload: reply(56, 1, entry40(0x100, 0x20, 0, 1, flags, 0x55)),
          fds: [near.fd],
        },
      },
      options,
    );
    atEnd(() => {
      peer.close();
    });
    const [subRegion] = await (await device.region('bar0')).ioFds();
    near.close();
    const buffer = new Uint8Array(4096);
    return {
      subRegion: subRegion as IoRegionFd,
      peer,
      received: () => {
        const count = peer.receive(buffer, 0, buffer.length);
        return toHex(buffer.subarray(0, Math.max(0, count)));
      },
      close: () => void device.close(),
    };
  }
  const response = (data: string): Uint8Array => hex(data.padEnd(64, '0'));
  const send = (peer: Socket, bytes: Uint8Array): void => {
    expect(peer.send(bytes, bytes.length, null, 0, null)).toBe(bytes.length);
  };

  test('reads and writes, one under way at a time', async () => {
    const { subRegion, peer, received } = await ioRegion(0);
    expect(subRegion).toMatchObject({ kind: 'ioregionfd', offset: 0x100, size: 0x20, postedWrites: false });
    const read = subRegion.read32(0x110);
    const write = subRegion.write16(0x11e, 0xbeef);
    const wide = subRegion.read64(0x108);
    expect(received()).toBe(bare('0012000000000000 5500000000000000 1000000000000000 0000000000000000'));
    const first = response('78563412ffffffff');
    // In two parts.
    send(peer, first.subarray(0, 10));
    send(peer, first.subarray(10));
    expect(await read).toBe(0x12345678);
    expect(received()).toBe(bare('0111000000000000 5500000000000000 1e00000000000000 efbe000000000000'));
    send(peer, response(''));
    await write;
    expect(received()).toBe(bare('0013000000000000 5500000000000000 0800000000000000 0000000000000000'));
    send(peer, response('8877665544332211'));
    expect(await wide).toBe(0x1122334455667788n);
  });

  test('synchronously, also behind a command that waits', async () => {
    const { subRegion, peer } = await ioRegion(0);
    send(peer, join(response('01'), response('02'), response('03'), response(''), response('')));
    const before = subRegion.read8(0x100);
    expect(subRegion.read8Sync(0x101)).toBe(2);
    expect(subRegion.read64Sync(0x108)).toBe(3n);
    subRegion.write32Sync(0x104, 1);
    subRegion.write64Sync(0x108, 1n);
    expect(await before).toBe(1);
  });

  test('posted writes wait for nothing', async () => {
    const { subRegion, received } = await ioRegion(2); // KVM_IOREGION_POSTED_WRITES
    await subRegion.write64(0x100, 0x0102030405060708n);
    subRegion.write8Sync(0x100, 9);
    expect(received()).toBe(
      bare('0103000000000000 5500000000000000 0000000000000000 0807060504030201') +
        bare('0100000000000000 5500000000000000 0000000000000000 0900000000000000'),
    );
  });

  test('posted writes that the socket does not take wait for room', async () => {
    const { subRegion, peer } = await ioRegion(2);
    const writes = Array.from({ length: 2000 }, (_, i) => subRegion.write32(0x100, i));
    const buffer = new Uint8Array(2000 * 32);
    let got = peer.receive(buffer, 0, buffer.length);
    // More than the socket has taken, and not a part of a write.
    expect(got).toBeLessThan(buffer.length);
    const arrived = until(
      () => (got += Math.max(0, peer.receive(buffer, got, buffer.length - got))) === buffer.length,
    );
    await Promise.all([arrived, ...writes]);
    // The data are the last 8 of the 32 bytes of a command.
    const values = Array.from(writes, (_, i) => new DataView(buffer.buffer).getUint32(i * 32 + 24, true));
    expect(values).toEqual(Array.from(writes, (_, i) => i));
  });

  test('a server that does not answer in time, or goes away, or a device that is closed', async () => {
    const slow = await ioRegion(0, { messageTimeout: 50 });
    await expect(slow.subRegion.read32(0x100)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_TIMEOUT' });
    expect(() => slow.subRegion.read32Sync(0x100)).toThrow(
      expect.objectContaining({ code: 'ERR_VFIO_USER_TIMEOUT' }) as Error,
    );
    const sync = await ioRegion(0, { messageTimeout: 50 });
    expect(() => sync.subRegion.read32Sync(0x100)).toThrow(
      expect.objectContaining({ code: 'ERR_VFIO_USER_TIMEOUT' }) as Error,
    );
    const gone = await ioRegion(0);
    const reads = [gone.subRegion.read32(0x100), gone.subRegion.read32(0x104)];
    gone.peer.close();
    for (const read of reads)
      await expect(read).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
    const closed = await ioRegion(0);
    const pending = closed.subRegion.read32(0x100);
    closed.close();
    await expect(pending).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  });

  test.each([
    [0xff, 1],
    [0x120, 1],
    [0x11e, 4],
    [0x101, 2],
    [NaN, 1],
  ] as const)('an access at %s of %s bytes', async (offset, width) => {
    const { subRegion, received } = await ioRegion(0);
    const read = { 1: 'read8', 2: 'read16', 4: 'read32' } as const;
    await expect(subRegion[read[width]](offset)).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_(OUT_OF_RANGE|INVALID_ARG_VALUE)$/) as string,
    });
    expect(received()).toBe('');
  });

  test('a value that does not fit', async () => {
    const { subRegion } = await ioRegion(0);
    await expect(subRegion.write8(0x100, 256)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
  });
});

test('against our server: its eventfd is signalled, its shadow memory written', async () => {
  const model = new TestModel();
  const event = eventFd();
  const shadow = sharedMemory(0x1000);
  const ioFds: ServedIoFd[] = [
    { kind: 'ioeventfd', offset: 0, size: 4, fd: event.fd, datamatch: 1 },
    {
      kind: 'shadow-ioeventfd',
      offset: 8,
      size: 8,
      fd: event.fd,
      shadow: { fd: shadow.fd, offset: 0x10 },
    },
  ];
  const writes: number[] = [];
  model.regions.set(3, { size: 64, ioFds, write: (offset) => void writes.push(offset) });
  const device = await servedDevice(model);
  const region = await device.region('bar3');
  expect(await region.ioFds()).toMatchObject([
    { offset: 0, size: 4, datamatch: 1n, shadowed: false },
    { offset: 8, size: 8, datamatch: null, shadowed: true },
  ]);
  await region.write32(0, 1);
  await region.write64(8, 42n);
  await region.write32(0, 2);
  expect([event.read(), writes]).toEqual([2, [0]]);
  expect(shadow.bytes[0x10]).toBe(42);
  expect(await (await device.region('bar2')).ioFds()).toEqual([]);
});
