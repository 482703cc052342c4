// SPDX-License-Identifier: MIT
import { connect, type VfioUserRegion } from '../../lib/client';
import {
  GET_REGION_INFO,
  failure,
  fakeDevice,
  fakeServer,
  join,
  like,
  mappings,
  openFds,
  regionInfo,
  sharedMemory,
  sparse,
  twoAreas,
  u16,
  u32,
  warmUp,
  words,
  type Answer,
  type FakeServer,
  type Heard,
} from './support';

/** BAR 0 of a device whose server answers as told. */
async function bar0(
  answer: Answer | ((heard: Heard) => Answer),
): Promise<{ bar: VfioUserRegion; server: FakeServer }> {
  const { device, server } = await fakeDevice({ [GET_REGION_INFO]: answer });
  return { bar: await device.region('bar0'), server };
}

test('one message suffices when the reply fits', async () => {
  const { bar, server } = await bar0(regionInfo(0, { flags: 3, size: 0x4000 }));
  expect(bar).toMatchObject({
    index: 0,
    size: 0x4000,
    readable: true,
    writable: true,
    areas: [],
    fdCount: 0,
  });
  // struct vfio_region_info: argsz 4096, the rest 0; SPDK does not wait for a second message then.
  expect(server.payloads(GET_REGION_INFO)).toEqual(['00100000' + '00'.repeat(28)]);
});

test('a region is asked for once, by name or index', async () => {
  const { device, server } = await fakeDevice({ [GET_REGION_INFO]: regionInfo(2) });
  const [one, other] = await Promise.all([device.region('bar2'), device.region(2)]);
  expect(one).toBe(other);
  expect(server.count(GET_REGION_INFO)).toBe(1);
});

test('a server that answers 32 bytes first is asked again with the room that it needs', async () => {
  const { fd } = sharedMemory(0x4000);
  const needed = 32 + 16 + 300 * 16;
  const areas = Array.from({ length: 300 }, (_, index): [number, number] => [index * 16, 16]);
  const { bar, server } = await bar0((heard) =>
    words(heard.payload)[0]! < needed
      ? regionInfo(0, { flags: 7, argsz: needed, size: 0x4000 })
      : {
          payload: regionInfo(0, {
            flags: 0xf,
            argsz: needed,
            capOffset: 32,
            size: 0x4000,
            rest: sparse(...areas),
          }),
          fds: [fd],
        },
  );
  expect(server.heard.slice(1).map((heard) => words(heard.payload)[0])).toEqual([4096, needed]);
  expect(bar.areas).toHaveLength(300);
  expect(bar.areas[1]).toEqual({ offset: 16, size: 16 });
});

test.each([
  ['wants more each time', (heard: Heard) => words(heard.payload)[0]! + 1],
  ['wants more than there is', () => 0x7fff_ffff],
])('a server that %s is not followed, and nothing is mapped', async (_what, argsz) => {
  const { fd } = sharedMemory(0x1000);
  const { bar, server } = await bar0((heard) => ({
    payload: regionInfo(0, { flags: 0xf, argsz: argsz(heard) }),
    fds: [fd],
  }));
  expect(server.count(GET_REGION_INFO)).toBeLessThanOrEqual(2);
  expect(bar).toMatchObject({ areas: [], fdCount: 0 });
});

test('a region that does not exist', async () => {
  const { bar } = await bar0(regionInfo(0, { flags: 0, size: 0 }));
  expect(bar).toMatchObject({ size: 0, readable: false, writable: false, areas: [] });
  await expect(bar.read32(0)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
});

test.each([
  ['another index', regionInfo(1)],
  ['31 bytes', regionInfo(0).subarray(0, 31)],
  [
    'an area outside of the region',
    regionInfo(0, { flags: 0xf, argsz: 64, capOffset: 32, rest: sparse([0x1000, 1]) }),
  ],
  [
    'a list of capabilities that is a ring',
    regionInfo(0, { flags: 0xf, argsz: 40, capOffset: 32, rest: join(u16(9, 1), u32(32)) }),
  ],
  [
    'more areas than there are bytes',
    regionInfo(0, { flags: 0xf, argsz: 48, capOffset: 32, rest: join(u16(1, 1), u32(0, 0x1000_0000, 0)) }),
  ],
  ['a size above 2^53', regionInfo(0, { size: 2 ** 60 })],
])('a reply with %s breaks the protocol, and its descriptors are closed', async (_what, payload) => {
  warmUp();
  const { fd } = sharedMemory(0x1000);
  const { device } = await fakeDevice({ [GET_REGION_INFO]: { payload, fds: [fd] } });
  const before = openFds();
  await expect(device.region(0)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
  expect(openFds()).toBe(before);
});

describe('mapping', () => {
  test('one descriptor for all areas; offsets count from that of the region', async () => {
    const { fd, bytes } = sharedMemory(0x6000);
    const payload = twoAreas(0);
    new DataView(payload.buffer).setUint32(24, 0x2000, true);
    const { bar } = await bar0({ payload, fds: [fd] });
    expect(bar.areas).toEqual([
      { offset: 0x1000, size: 0x1000 },
      { offset: 0x3000, size: 0x1000 },
    ]);
    const area = bar.map(0x3000, 0x1000);
    expect(area).toMatchObject({ offset: 0x3000, size: 0x1000, fdOffset: 0x5000 });
    new Uint8Array(area.buffer)[7] = 0x77;
    expect(bytes[0x5007]).toBe(0x77);
    area.close();
    area.close();
    expect(area.buffer.byteLength).toBe(0);
  });

  test('a descriptor for each area', async () => {
    const files = [sharedMemory(0x4000), sharedMemory(0x4000)];
    const { bar } = await bar0({ payload: twoAreas(0), fds: files.map((file) => file.fd) });
    expect(bar.fdCount).toBe(2);
    [0x1000, 0x3000].forEach((offset, index) => {
      new Uint8Array(bar.map(offset, 0x1000).buffer)[0] = index + 1;
      expect(files[index]!.bytes[offset]).toBe(index + 1);
    });
  });

  test('no descriptor: messages only', async () => {
    const { bar } = await bar0(twoAreas(0));
    expect(() => bar.map(0x1000, 0x1000)).toThrow(
      like(failure('ERR_VFIO_USER_UNSUPPORTED', 'offers no mapping')),
    );
  });

  test('surplus descriptors are closed, and all with a region that cannot be mapped', async () => {
    warmUp();
    const { fd } = sharedMemory(0x4000);
    const server = fakeServer({
      [GET_REGION_INFO]: (heard) => {
        const index = words(heard.payload)[2]!;
        return { payload: index === 0 ? twoAreas(0) : regionInfo(index), fds: [fd, fd, fd, fd, fd] };
      },
    });
    const all = openFds();
    const device = await connect(server.endpoint);
    const before = openFds();
    expect((await device.region(0)).fdCount).toBe(2);
    expect(openFds()).toBe(before + 2);
    expect((await device.region(1)).fdCount).toBe(0);
    expect(openFds()).toBe(before + 2);
    await device.close();
    // The socket, too.
    expect(openFds()).toBe(all - 1);
  });

  test('a region without areas is mapped as a whole', async () => {
    const { fd, bytes } = sharedMemory(0x2000);
    const { bar } = await bar0({ payload: regionInfo(0, { flags: 7, size: 0x2000 }), fds: [fd] });
    expect(bar.areas).toEqual([{ offset: 0, size: 0x2000 }]);
    new Uint8Array(bar.map(0, 0x2000).buffer)[0x1fff] = 9;
    expect(bytes[0x1fff]).toBe(9);
  });

  test('a region that cannot be written is mapped for reading', async () => {
    const { fd, bytes } = sharedMemory(0x1000);
    bytes[1] = 5;
    const { bar } = await bar0({ payload: regionInfo(0, { flags: 5 }), fds: [fd] });
    expect(new Uint8Array(bar.map(0, 0x1000).buffer)[1]).toBe(5);
  });

  test.each([
    [0, 0x1000],
    [0x2000, 0x1000],
    [0x1000, 0x2000],
    [0x1000, 0x3000],
  ])('0x%s, %s bytes are not within an area', async (offset, length) => {
    const { fd } = sharedMemory(0x4000);
    const { bar } = await bar0({ payload: twoAreas(0), fds: [fd] });
    expect(() => bar.map(offset, length)).toThrow(
      like(failure('ERR_VFIO_USER_UNSUPPORTED', 'the device offers 0x1000+0x1000, 0x3000+0x1000')),
    );
  });

  test('outside of the region', async () => {
    const { bar } = await bar0(twoAreas(0));
    for (const [offset, length] of [
      [0x4000, 1],
      [-1, 1],
      [0, 0],
      [0.5, 1],
    ] as const) {
      expect(() => bar.map(offset, length)).toThrow(like({ code: 'ERR_OUT_OF_RANGE' }));
    }
  });

  test('a file that is shorter than the server says', async () => {
    const { fd } = sharedMemory(0x1000);
    const { bar } = await bar0({ payload: twoAreas(0), fds: [fd] });
    expect(() => bar.map(0x3000, 0x1000)).toThrow(like({ errnoName: 'ENXIO' }));
  });

  test('mappings end with the device, and no more are made', async () => {
    const { fd } = sharedMemory(0x4000);
    const { device } = await fakeDevice({ [GET_REGION_INFO]: { payload: twoAreas(0), fds: [fd] } });
    const bar = await device.region(0);
    const before = mappings();
    const area = bar.map(0x1000, 0x1000);
    expect(mappings()).toBe(before + 1);
    await device.close();
    expect(mappings()).toBe(before);
    expect(area.buffer.byteLength).toBe(0);
    expect(() => bar.map(0x1000, 0x1000)).toThrow(like({ code: 'ERR_VFIO_USER_CLOSED' }));
  });
});
