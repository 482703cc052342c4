// SPDX-License-Identifier: MIT
import { type IoEventFd, type VfioUserRegion } from '../../lib/client';
import { EventFd } from '../../lib/native';
import { type ServedIoFd } from '../../lib/server';
import { TestModel } from '../server/support';
import { GET_REGION_IO_FDS, entry40, reply } from './io-fds-support';
import {
  GET_REGION_INFO,
  REGION_WRITE,
  atEnd,
  bare,
  failure,
  fakeDevice,
  join,
  openFds,
  regionInfo,
  servedDevice,
  sharedMemory,
  toHex,
  u32,
  u64,
  warmUp,
  type Answer,
  type FakeServer,
  type Heard,
} from './support';

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
