// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Mapping, closeFd, createSharedMemory } from '../../lib/native';
import { serve, type PciDeviceModel, type Server } from '../../lib/server';
import { MigratingModel, pattern } from './migration-model';
import { RawClient, access, dmaMap, dmaUnmap, hex, join, message, u32, u64, type RawReply } from './support';

const [EIO, EINVAL, ENOTSUP] = [5, 22, 95];
const [
  DMA_MAP,
  DMA_UNMAP,
  REGION_READ,
  REGION_WRITE,
  DMA_WRITE,
  RESET,
  DEVICE_FEATURE,
  MIG_DATA_READ,
  MIG_DATA_WRITE,
] = [2, 3, 9, 10, 12, 13, 16, 17, 18];
/** `enum vfio_device_mig_state` of linux/vfio.h. */
const [ERROR, STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY] = [0, 1, 2, 3, 4, 5, 6];
/** `VFIO_DEVICE_FEATURE_GET`, `_SET`, `_PROBE`. */
const [GET, SET, PROBE] = [1 << 16, 1 << 17, 1 << 18];

let directory: string;
let endpoint: string;
let model: MigratingModel;
let server: Server;
let raw: RawClient;
let errors: unknown[];

beforeEach(async () => {
  directory = mkdtempSync(path.join(tmpdir(), 'vfio-user-server-'));
  endpoint = path.join(directory, 'device.sock');
  errors = [];
  model = new MigratingModel(pattern(2500));
  server = await serve(endpoint, model, { onError: (error) => errors.push(error) });
  raw = await RawClient.connect(endpoint);
});
afterEach(async () => {
  raw.close();
  await server.close();
  model.close();
  rmSync(directory, { recursive: true });
});

/** `struct vfio_user_device_feature`: u32 argsz, u32 flags, data. */
const feature = (
  flags: number,
  data = new Uint8Array(0) as Uint8Array,
  argsz = 8 + data.length,
): Uint8Array => join(u32(argsz, flags), data);
const ask = (command: number, payload: Uint8Array): Promise<RawReply> =>
  raw.ask(message(command, payload, 7));
/** Sets the state; `data_fd` is -1, as libvfio-user's client has it. Returns the errno. */
async function setState(state: number): Promise<number> {
  const payload = feature(SET | 2, u32(state, 0xffff_ffff));
  const reply = await ask(DEVICE_FEATURE, payload);
  if (reply.errno === 0) expect(reply.payload).toEqual(payload);
  return reply.errno;
}
async function state(): Promise<number> {
  const { errno, payload } = await ask(DEVICE_FEATURE, feature(GET | 2, undefined, 16));
  expect([errno, payload.length, payload[0]]).toEqual([0, 16, 16]);
  return payload[8] ?? -1;
}
/** `struct vfio_user_mig_data`: u32 argsz, u32 size, data. */
const migData = (size: number, data = new Uint8Array(0) as Uint8Array): Uint8Array =>
  join(u32(8 + size, size), data);

test('what the device can do', async () => {
  // STOP_COPY bit 0, PRE_COPY bit 2; argsz 16, flags GET and feature 1.
  expect((await ask(DEVICE_FEATURE, feature(GET | 1, undefined, 16))).payload).toEqual(
    hex('10000000 01000100 0500000000000000'),
  );
  for (const flags of [
    PROBE | 1,
    PROBE | GET | 1,
    PROBE | GET | SET | 2,
    PROBE | SET | 6,
    PROBE | SET | 7,
    PROBE | GET | 8,
  ]) {
    const reply = await ask(DEVICE_FEATURE, feature(flags));
    expect([reply.errno, reply.payload]).toEqual([0, feature(flags)]);
  }
  for (const flags of [PROBE | SET | 1, PROBE | GET | 6, PROBE | SET | 8, PROBE | 3, GET | 9, SET | 1])
    expect(await raw.errnoOf(DEVICE_FEATURE, feature(flags))).toBe(ENOTSUP);
  for (const payload of [
    feature(GET | SET | 2),
    feature(2),
    feature(GET | 2, undefined, 8),
    hex('10'),
    feature(GET | 2, undefined, 0),
  ])
    expect(await raw.errnoOf(DEVICE_FEATURE, payload)).toBe(EINVAL);
});

test('a change with too little room for its reply is not made', async () => {
  expect(await raw.errnoOf(DEVICE_FEATURE, feature(SET | 2, u32(STOP, 0), 12))).toBe(EINVAL);
  expect(await state()).toBe(RUNNING);
});

test('transitions, direct and complex', async () => {
  expect(await state()).toBe(RUNNING);
  expect(await setState(RESUMING)).toBe(0);
  expect(await setState(PRE_COPY)).toBe(0);
  expect(await setState(STOP)).toBe(0);
  expect(model.states).toEqual([
    'running > stop',
    'stop > resuming',
    'resuming > stop',
    'stop > running',
    'running > preCopy',
    'preCopy > running',
    'running > stop',
  ]);
});

test('illegal transitions change nothing', async () => {
  expect(await setState(STOP_COPY)).toBe(0);
  for (const target of [PRE_COPY, ERROR, RUNNING_P2P, 7, 8, 0xffff_ffff])
    expect(await setState(target)).toBe(EINVAL);
  expect(await state()).toBe(STOP_COPY);
});

test('migration data, in pieces across the chunks of the device', async () => {
  expect(await setState(STOP_COPY)).toBe(0);
  const first = await ask(MIG_DATA_READ, migData(1500));
  expect(first.payload).toEqual(migData(1500, pattern(2500).subarray(0, 1500)));
  expect((await ask(MIG_DATA_READ, migData(0))).payload).toEqual(migData(0));
  // Fewer than asked for: the end.
  expect((await ask(MIG_DATA_READ, migData(1500))).payload).toEqual(
    migData(1000, pattern(2500).subarray(1500)),
  );
  expect((await ask(MIG_DATA_READ, migData(1500))).payload).toEqual(migData(0));
});

test('data outside the states for it, and requests that lie', async () => {
  expect(await raw.errnoOf(MIG_DATA_READ, migData(10))).toBe(EINVAL);
  expect(await raw.errnoOf(MIG_DATA_WRITE, migData(1, hex('aa')))).toBe(EINVAL);
  expect(await setState(STOP_COPY)).toBe(0);
  for (const payload of [migData((1 << 20) + 1), u32(8, 100), u32(0xffff_ffff, 0xffff_fff7), hex('00')])
    expect(await raw.errnoOf(MIG_DATA_READ, payload)).toBe(EINVAL);
  expect(await setState(RESUMING)).toBe(0);
  expect(await raw.errnoOf(MIG_DATA_READ, migData(10))).toBe(EINVAL);
  expect(await raw.errnoOf(MIG_DATA_WRITE, migData(5, hex('aa')))).toBe(EINVAL);
  expect(await raw.errnoOf(MIG_DATA_WRITE, migData(1, hex('aa')))).toBe(0);
  expect(await setState(STOP)).toBe(0);
  expect(model.data).toEqual(hex('aa'));
});

test('PRE_COPY that is cut short gives the rest of its chunk, then the stopped state', async () => {
  model.early = pattern(5000);
  expect(await setState(PRE_COPY)).toBe(0);
  await ask(MIG_DATA_READ, migData(1300));
  expect(await setState(STOP_COPY)).toBe(0);
  const { payload } = await ask(MIG_DATA_READ, migData(9000));
  const expected = join(pattern(2000).subarray(1300), pattern(2500));
  expect(payload).toEqual(migData(3200, expected));
});

test('a device that fails to save stays in its state, and can run again', async () => {
  model.failures.save = new Error('bug');
  expect(await setState(STOP_COPY)).toBe(0);
  expect(await raw.errnoOf(MIG_DATA_READ, migData(2000))).toBe(EIO);
  expect(await raw.errnoOf(MIG_DATA_READ, migData(2000))).toBe(EIO);
  expect(await setState(RUNNING)).toBe(0);
  expect(errors.length).toBeGreaterThan(0);
});

test.each(['load', 'write', 'finish', 'stop'] as const)(
  'a device that fails at %s is in error until it is reset',
  async (what) => {
    if (what !== 'stop' && what !== 'load') expect(await setState(RESUMING)).toBe(0);
    model.failures[what] = new Error('bug');
    const failed =
      what === 'write'
        ? await raw.errnoOf(MIG_DATA_WRITE, migData(1, hex('aa')))
        : await setState(what === 'load' ? RESUMING : STOP);
    expect(failed).toBe(EIO);
    expect(await state()).toBe(ERROR);
    expect(await setState(RUNNING)).toBe(EINVAL);
    expect(await raw.errnoOf(MIG_DATA_WRITE, migData(1, hex('aa')))).toBe(EINVAL);
    expect(await raw.errnoOf(REGION_READ, access(2, 0, 4))).toBe(EIO);
    expect(await raw.errnoOf(REGION_WRITE, join(access(3, 0, 4), u32(0)))).toBe(EIO);
    // Another client finds it so.
    raw.close();
    raw = await RawClient.connect(endpoint);
    expect(await state()).toBe(ERROR);
    expect(await raw.errnoOf(RESET)).toBe(0);
    expect(await state()).toBe(RUNNING);
    expect(model.states.at(-1)).toBe('error > running');
    expect(await raw.errnoOf(REGION_READ, access(2, 0, 4))).toBe(0);
  },
);

test('a reset ends a transfer', async () => {
  expect(await setState(STOP_COPY)).toBe(0);
  await ask(MIG_DATA_READ, migData(10));
  expect(await raw.errnoOf(RESET)).toBe(0);
  expect(await state()).toBe(RUNNING);
  expect(model.states.slice(-2)).toEqual(['end', 'stopCopy > running']);
  expect(await raw.errnoOf(MIG_DATA_READ, migData(10))).toBe(EINVAL);
});

test.each([
  [STOP_COPY, RUNNING],
  [STOP, RUNNING],
  [RESUMING, ERROR],
])('a client that goes away in state %i leaves %i', async (before, after) => {
  expect(await setState(before)).toBe(0);
  raw.close();
  raw = await RawClient.connect(endpoint);
  expect(await state()).toBe(after);
});

test('a model that migrates needs a reset', async () => {
  const { name, pci, regions, migration } = model;
  const bad: PciDeviceModel = { name, pci, regions, migration };
  await expect(serve(path.join(directory, 'bad.sock'), bad)).rejects.toThrow('can migrate but has no reset');
});

describe('dirty pages', () => {
  const START = feature(SET | 6, join(u64(4096), u32(0, 0)));
  const STOP_LOG = feature(SET | 7, join(u64(4096), u32(0, 0)));
  /** `struct vfio_user_device_feature_dma_logging_report`: u64 iova, length, page_size. */
  const report = (iova: number, length: number, pageSize: number, room = 8): Uint8Array =>
    feature(GET | 8, u64(iova, length, pageSize), 32 + room);
  async function bitmap(iova: number, length: number, pageSize = 4096): Promise<string> {
    const { errno, payload } = await ask(DEVICE_FEATURE, report(iova, length, pageSize));
    expect([errno, payload.length]).toEqual([0, 40]);
    return Buffer.from(payload.subarray(32)).toString('hex');
  }
  let fd: number;

  beforeEach(async () => {
    fd = createSharedMemory(0x8000);
    Mapping.map(fd, 0, 0x8000).close();
    expect(await raw.errnoOf(DMA_MAP, dmaMap(0x10000, 0x8000), [fd])).toBe(0);
    expect(await raw.errnoOf(DMA_MAP, dmaMap(0x40000, 0x2000))).toBe(0);
  });
  afterEach(() => {
    closeFd(fd);
  });

  test('stores, marks and messages, each told once', async () => {
    await model.client?.memory.write(0x10000, hex('11'));
    expect((await ask(DEVICE_FEATURE, START)).payload).toEqual(START);
    expect(await raw.errnoOf(DEVICE_FEATURE, START)).toBe(0);
    expect(await bitmap(0x10000, 0x8000)).toBe('0000000000000000');
    await model.client?.memory.write(0x11fff, hex('1122'));
    model.client?.memory.markDirty(0x17000, 1);
    expect(await bitmap(0x11000, 0x1000)).toBe('0100000000000000');
    expect(await bitmap(0x10000, 0x8000, 8192)).toBe('0a00000000000000');
    expect(await bitmap(0x10000, 0x8000)).toBe('0000000000000000');
    const written = model.client?.memory.write(0x41000, hex('33'));
    const request = await raw.receive();
    expect(request).toMatchObject({ command: DMA_WRITE, payload: join(u64(0x41000, 1), hex('33')) });
    raw.send(message(DMA_WRITE, u64(0x41000, 1), request.id, 1));
    await written;
    expect(await bitmap(0x40000, 0x2000)).toBe('0200000000000000');
    expect(() => model.client?.memory.markDirty(0x50000, 1)).toThrow('is not mapped');
    expect(await raw.errnoOf(DEVICE_FEATURE, STOP_LOG)).toBe(0);
    expect(await raw.errnoOf(DEVICE_FEATURE, report(0x10000, 0x8000, 4096))).toBe(EINVAL);
  });

  test('the device chooses the page size', async () => {
    const reply = await ask(DEVICE_FEATURE, feature(SET | 6, join(u64(100), u32(0, 0))));
    expect(reply.payload).toEqual(START);
    expect(await raw.errnoOf(DEVICE_FEATURE, feature(SET | 6, join(u64(65536), u32(0, 0))))).toBe(EINVAL);
  });

  test('reports that cannot be', async () => {
    expect(await raw.errnoOf(DEVICE_FEATURE, report(0x10000, 0x8000, 4096))).toBe(EINVAL);
    expect(await raw.errnoOf(DEVICE_FEATURE, START)).toBe(0);
    for (const payload of [
      report(0x10000, 0x8000, 4095),
      report(0x10000, 0x8000, 0),
      report(0x10000, 0, 4096),
      report(0x10000, 0x8000, 4096, 7),
      report(0, 2 ** 40, 4096, 2 ** 25),
      feature(GET | 8, u64(1, 2n ** 64n - 1n, 4096), 4096),
      feature(GET | 8, u64(0, 2n ** 63n, 2n ** 50n), 4096),
      feature(GET | 8, u64(0), 4096),
    ])
      expect(await raw.errnoOf(DEVICE_FEATURE, payload)).toBe(EINVAL);
  });

  // libvfio-user: flag 1 asks for a bitmap, `struct vfio_user_bitmap` is u64 pgsize, u64 size.
  test('DMA_UNMAP with a bitmap', async () => {
    const unmap = (size: number, pageSize = 4096): Uint8Array =>
      join(u32(40 + size, 1), u64(0x10000, 0x8000, pageSize, size));
    expect(await raw.errnoOf(DMA_UNMAP, unmap(8))).toBe(ENOTSUP);
    expect(await raw.errnoOf(DEVICE_FEATURE, START)).toBe(0);
    await model.client?.memory.write(0x12000, hex('11'));
    expect(await raw.errnoOf(DMA_UNMAP, unmap(16))).toBe(EINVAL);
    expect(await raw.errnoOf(DMA_UNMAP, unmap(8, 4095))).toBe(EINVAL);
    expect(await raw.errnoOf(DMA_UNMAP, dmaUnmap(0, 0, 3))).toBe(EINVAL);
    const reply = await ask(DMA_UNMAP, unmap(8));
    expect([reply.errno, reply.payload]).toEqual([0, join(unmap(8), hex('0400000000000000'))]);
    expect(await raw.errnoOf(DMA_MAP, dmaMap(0x10000, 0x8000), [fd])).toBe(0);
    expect(await bitmap(0x10000, 0x8000)).toBe('0000000000000000');
  });
});
