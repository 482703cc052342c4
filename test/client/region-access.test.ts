// SPDX-License-Identifier: MIT
import type { VfioUserRegion } from '../../lib/client';
import {
  GET_REGION_INFO,
  REGION_READ,
  REGION_WRITE,
  VERSION,
  bare,
  failure,
  fakeDevice,
  join,
  like,
  regionInfo,
  u32,
  u64,
  version,
  type FakeServer,
  type Handlers,
  type Heard,
} from './support';

/** `struct vfio_user_region_access`: offset, region, count. */
const access = (offset: number, count: number, region = 0): Uint8Array =>
  join(u64(offset), u32(region, count));

const parse = ({ payload }: Heard): { offset: number; count: number } => {
  const view = new DataView(payload.buffer, payload.byteOffset);
  return { offset: Number(view.getBigUint64(0, true)), count: view.getUint32(12, true) };
};

/** Memory that a server shows by message. */
function memory(bytes: Uint8Array): Handlers {
  return {
    [REGION_READ]: (heard) => {
      const { offset, count } = parse(heard);
      return join(access(offset, count), bytes.subarray(offset, offset + count));
    },
    [REGION_WRITE]: (heard) => {
      const { offset, count } = parse(heard);
      bytes.set(heard.payload.subarray(16), offset);
      return access(offset, count);
    },
  };
}

async function region(
  handlers: Handlers,
  info: { flags?: number; size?: number } = {},
): Promise<{ bar: VfioUserRegion; server: FakeServer }> {
  const { device, server } = await fakeDevice({ [GET_REGION_INFO]: regionInfo(0, info), ...handlers });
  return { bar: await device.region(0), server };
}

test('registers of 1, 2, 4 and 8 bytes', async () => {
  const bytes = new Uint8Array(0x1000);
  const { bar, server } = await region(memory(bytes));
  await bar.write8(0x11, 0xfe);
  await bar.write16(0x12, 0xfedc);
  await bar.write32(0x14, 0xfedc_ba98);
  await bar.write64(0x18, 0xfedc_ba98_7654_3210n);
  expect(server.payloads(REGION_WRITE)).toEqual([
    bare('1100000000000000 00000000 01000000 fe'),
    bare('1200000000000000 00000000 02000000 dcfe'),
    bare('1400000000000000 00000000 04000000 98badcfe'),
    bare('1800000000000000 00000000 08000000 1032547698badcfe'),
  ]);
  expect(await bar.read8(0x11)).toBe(0xfe);
  expect(await bar.read16(0x12)).toBe(0xfedc);
  expect(await bar.read32(0x14)).toBe(0xfedc_ba98);
  expect(await bar.read64(0x18)).toBe(0xfedc_ba98_7654_3210n);
  expect(server.payloads(REGION_READ)[3]).toBe(bare('1800000000000000 00000000 08000000'));
});

test('bulk accesses are split at max_data_xfer_size', async () => {
  const bytes = Uint8Array.from({ length: 0x1000 }, (_, index) => index * 7);
  const { bar, server } = await region({
    ...memory(bytes),
    [VERSION]: version('{"capabilities":{"max_data_xfer_size":1000}}'),
  });
  expect(await bar.readBytes(1, 2500)).toEqual(bytes.slice(1, 2501));
  expect(server.heard.filter((one) => one.command === REGION_READ).map(parse)).toEqual([
    { offset: 1, count: 1000 },
    { offset: 1001, count: 1000 },
    { offset: 2001, count: 500 },
  ]);
  const data = Uint8Array.from({ length: 1001 }, (_, index) => index * 3);
  await bar.writeBytes(5, data);
  expect(bytes.subarray(5, 1006)).toEqual(data);
  expect(server.heard.filter((one) => one.command === REGION_WRITE).map(parse)).toEqual([
    { offset: 5, count: 1000 },
    { offset: 1005, count: 1 },
  ]);
});

test('writes stay small enough for servers that read a body with one recv(2)', async () => {
  const bytes = new Uint8Array(0x2_0000);
  const { bar, server } = await region(memory(bytes), { size: 0x2_0000 });
  const data = Uint8Array.from({ length: 70_000 }, (_, index) => index);
  await bar.writeBytes(0, data);
  expect(server.heard.filter((one) => one.command === REGION_WRITE).map((one) => parse(one).count)).toEqual([
    32768, 32768, 4464,
  ]);
  expect(await bar.readBytes(0, 70_000)).toEqual(data);
  expect(server.count(REGION_READ)).toBe(1);
});

describe('misuse throws before anything is sent', () => {
  const cases: [string, (bar: VfioUserRegion) => Promise<unknown>, () => unknown, string][] = [];
  const add = (
    what: string,
    call: (bar: VfioUserRegion) => Promise<unknown>,
    sync: (bar: VfioUserRegion) => unknown,
    code: string,
  ): void => {
    cases.push([what, call, sync as () => unknown, code]);
  };
  add(
    'unaligned',
    (bar) => bar.read32(2),
    (bar) => bar.read32Sync(2),
    'ERR_INVALID_ARG_VALUE',
  );
  add(
    'unaligned 64',
    (bar) => bar.read64(4),
    (bar) => bar.read64Sync(4),
    'ERR_INVALID_ARG_VALUE',
  );
  add(
    'unaligned write',
    (bar) => bar.write16(1, 0),
    (bar) => {
      bar.write16Sync(1, 0);
    },
    'ERR_INVALID_ARG_VALUE',
  );
  add(
    'beyond the end',
    (bar) => bar.read8(0x1000),
    (bar) => bar.read8Sync(0x1000),
    'ERR_OUT_OF_RANGE',
  );
  add(
    'across the end',
    (bar) => bar.readBytes(0xfff, 2),
    (bar) => bar.readBytesSync(0xfff, 2),
    'ERR_OUT_OF_RANGE',
  );
  add(
    'negative',
    (bar) => bar.read32(-4),
    (bar) => bar.read32Sync(-4),
    'ERR_OUT_OF_RANGE',
  );
  add(
    'no integer',
    (bar) => bar.read32(NaN),
    (bar) => bar.read32Sync(NaN),
    'ERR_OUT_OF_RANGE',
  );
  add(
    'nothing',
    (bar) => bar.readBytes(0, 0),
    (bar) => bar.readBytesSync(0, 0),
    'ERR_OUT_OF_RANGE',
  );
  add(
    'a write of nothing',
    (bar) => bar.writeBytes(0, new Uint8Array(0)),
    (bar) => {
      bar.writeBytesSync(0, new Uint8Array(0));
    },
    'ERR_OUT_OF_RANGE',
  );
  add(
    'a value that does not fit',
    (bar) => bar.write16(0, 0x1_0000),
    (bar) => {
      bar.write16Sync(0, 0x1_0000);
    },
    'ERR_OUT_OF_RANGE',
  );
  add(
    'a negative value',
    (bar) => bar.write32(0, -1),
    (bar) => {
      bar.write32Sync(0, -1);
    },
    'ERR_OUT_OF_RANGE',
  );
  add(
    'a bigint that does not fit',
    (bar) => bar.write64(0, 1n << 64n),
    (bar) => {
      bar.write64Sync(0, -1n);
    },
    'ERR_OUT_OF_RANGE',
  );

  test.each(cases)('%s', async (_what, call, sync, code) => {
    const { bar, server } = await region({});
    await expect(call(bar)).rejects.toMatchObject({ code });
    expect(() => (sync as (bar: VfioUserRegion) => unknown)(bar)).toThrow(like({ code }));
    expect(server.heard).toHaveLength(2);
  });

  test('reads of what cannot be read, writes of what cannot be written', async () => {
    const { bar: writeOnly, server } = await region({}, { flags: 2 });
    await expect(writeOnly.read32(0)).rejects.toMatchObject(
      failure('ERR_VFIO_USER_UNSUPPORTED', 'not readable'),
    );
    expect(() => writeOnly.readBytesSync(0, 4)).toThrow(like({ code: 'ERR_VFIO_USER_UNSUPPORTED' }));
    const { bar: readOnly } = await region({}, { flags: 1 });
    await expect(readOnly.write32(0, 1)).rejects.toMatchObject(
      failure('ERR_VFIO_USER_UNSUPPORTED', 'not writable'),
    );
    expect(() => {
      readOnly.writeBytesSync(0, new Uint8Array(4));
    }).toThrow(like({ code: 'ERR_VFIO_USER_UNSUPPORTED' }));
    expect(server.heard).toHaveLength(2);
  });
});

describe('replies that are not what was asked for', () => {
  test.each([
    ['fewer bytes than asked for', join(access(0, 2), new Uint8Array(2)), 'for 2 bytes only'],
    ['no bytes at all', access(0, 0), 'for 0 bytes only'],
    ['fewer bytes than it says', join(access(0, 4), new Uint8Array(3)), '19 bytes'],
    ['more bytes than asked for', join(access(0, 5), new Uint8Array(5)), '21 bytes'],
    ['another offset', join(access(8, 4), new Uint8Array(4)), 'offset is 8'],
    ['another region', join(access(0, 4, 1), new Uint8Array(4)), 'region is 1'],
    ['no payload', new Uint8Array(0), '0 bytes'],
  ])('REGION_READ: %s', async (_what, answer, text) => {
    const { bar } = await region({ [REGION_READ]: answer });
    await expect(bar.read32(0)).rejects.toMatchObject({
      ...failure('ERR_VFIO_USER_PROTOCOL', text),
      command: 'REGION_READ',
    });
  });

  test.each([
    ['fewer bytes written', access(0, 3), 'for 3 bytes only'],
    ['more bytes written', access(0, 5), 'count is 5'],
    ['another offset', access(4, 4), 'offset is 4'],
    ['no payload', new Uint8Array(0), '0 bytes'],
  ])('REGION_WRITE: %s', async (_what, answer, text) => {
    const { bar } = await region({ [REGION_WRITE]: answer });
    await expect(bar.write32(0, 1)).rejects.toMatchObject({
      ...failure('ERR_VFIO_USER_PROTOCOL', text),
      command: 'REGION_WRITE',
    });
  });

  test('an error carries the name of its errno', async () => {
    const { bar } = await region({ [REGION_READ]: 14, [REGION_WRITE]: 1 });
    await expect(bar.read32(0)).rejects.toMatchObject({
      ...failure('ERR_VFIO_USER_REMOTE', 'EFAULT'),
      errno: 14,
    });
    await expect(bar.write32(0, 1)).rejects.toMatchObject({ errnoName: 'EPERM', command: 'REGION_WRITE' });
  });

  test('one part of a bulk access that fails fails it', async () => {
    const bytes = new Uint8Array(0x1000);
    const good = memory(bytes);
    const { bar } = await region({
      [VERSION]: version('{"capabilities":{"max_data_xfer_size":1024}}'),
      [REGION_READ]: (heard) =>
        parse(heard).offset === 2048 ? 5 : (good[REGION_READ] as (heard: Heard) => Uint8Array)(heard),
    });
    await expect(bar.readBytes(0, 4096)).rejects.toMatchObject({ errnoName: 'EIO' });
    expect(await bar.readBytes(0, 2048)).toHaveLength(2048);
  });

  test('a message that is never answered', async () => {
    const { device } = await fakeDevice(
      { [GET_REGION_INFO]: regionInfo(0), [REGION_READ]: 'silence' },
      { messageTimeout: 30 },
    );
    const bar = await device.region(0);
    await expect(bar.read32(0)).rejects.toMatchObject({
      ...failure('ERR_VFIO_USER_TIMEOUT', '30 ms'),
      command: 'REGION_READ',
    });
    expect(() => bar.read32Sync(0)).toThrow(like({ code: 'ERR_VFIO_USER_TIMEOUT' }));
    expect(device.closed).toBe(false);
  });
});
