// SPDX-License-Identifier: MIT
import {
  GET_REGION_INFO,
  REGION_READ,
  RESET,
  GET_INFO,
  VERSION,
  bare,
  fakeDevice,
  regionInfo,
  sharedMemory,
  u32,
  version,
  hex,
} from './support';

test('a device-specific region shows its type', async () => {
  const { device } = await fakeDevice({
    // `struct vfio_region_info_cap_type`: id 2, version 1, next 0; type, subtype.
    [GET_REGION_INFO]: regionInfo(9, {
      flags: 9,
      argsz: 48,
      capOffset: 32,
      rest: hex('0200 0100 00000000 86800080 02000000'),
    }),
  });
  expect(await device.region(9)).toMatchObject({ type: 0x8000_8086, subtype: 2, areas: [] });
});

test('a region without a type has none', async () => {
  const { device } = await fakeDevice({ [GET_REGION_INFO]: regionInfo(0) });
  const region = await device.region(0);
  expect([region.type, region.subtype]).toEqual([undefined, undefined]);
});

test('regions are asked for once and outlive a reset, with their mappings', async () => {
  const { fd, bytes } = sharedMemory(4096);
  const { device, server } = await fakeDevice({
    // Flags READ, WRITE and MMAP.
    [GET_REGION_INFO]: { payload: regionInfo(0, { flags: 7 }), fds: [fd] },
    // Flags RESET and PCI.
    [GET_INFO]: u32(16, 3, 9, 5),
  });
  const region = await device.region('bar0');
  const mapped = region.map(0, 4096);
  await device.reset();
  expect(server.count(RESET)).toBe(1);
  expect(await device.region(0)).toBe(region);
  expect(server.count(GET_REGION_INFO)).toBe(1);
  bytes[5] = 6;
  expect(new Uint8Array(mapped.buffer)[5]).toBe(6);
  expect(region.map(0, 4096).size).toBe(4096);
});

test('a register that is wider than a message takes is not sent in parts', async () => {
  const { device, server } = await fakeDevice({
    [VERSION]: version('{"capabilities":{"max_data_xfer_size":4}}'),
    [GET_REGION_INFO]: regionInfo(0),
    [REGION_READ]: hex(bare('0000000000000000 00000000 04000000 2a000000')),
  });
  const region = await device.region(0);
  const refusal = { code: 'ERR_VFIO_USER_UNSUPPORTED' };
  await expect(region.read64(0)).rejects.toMatchObject(refusal);
  await expect(region.write64(0, 1n)).rejects.toMatchObject(refusal);
  await expect(region.write64(0, 1n, { posted: true })).rejects.toMatchObject(refusal);
  expect(() => region.read64Sync(0)).toThrow(expect.objectContaining(refusal) as Error);
  expect(await region.read32(0)).toBe(42);
  expect(server.count(REGION_READ)).toBe(1);
});

test.each([
  [0, 0],
  [1, 1],
])('minor version %p of the server is %p here', async (minor, expected) => {
  const { device } = await fakeDevice({ [VERSION]: version('{}', 0, minor) });
  expect(device.negotiated).toMatchObject({
    major: 0,
    minor: expected,
    client: { maxMsgFds: 16, writeMultiple: true, twinSocket: { supported: false } },
    server: { maxMsgFds: 1, maxDataXferSize: 1 << 20, maxDmaMaps: 65535, pageSizes: 4096 },
    serverJson: {},
    limits: { maxMsgFds: 1, maxDataXferSize: 1 << 20, writeMultiple: false, twinSocket: false },
  });
});
