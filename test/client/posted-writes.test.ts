// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import type { VfioUserDevice, VfioUserRegion } from '../../lib/client';
import { serve } from '../../lib/server';
import { connect } from '../../lib/client';
import { TestModel } from '../server/support';
import {
  GET_INFO,
  GET_REGION_INFO,
  REGION_READ,
  REGION_WRITE,
  VERSION,
  atEnd,
  bare,
  fakeDevice,
  join,
  like,
  regionInfo,
  toHex,
  u32,
  until,
  version,
  words,
  type FakeServer,
  type Handlers,
} from './support';

const REGION_WRITE_MULTI = 15;
const NO_REPLY = 0x10;
const MULTI = version('{"capabilities":{"max_msg_fds":8,"write_multiple":true}}');
/** Small messages that a socket surely does not take at once. */
const MANY = 5000;

async function bar0(
  handlers: Handlers = {},
): Promise<{ device: VfioUserDevice; server: FakeServer; region: VfioUserRegion }> {
  const { device, server } = await fakeDevice({
    [GET_REGION_INFO]: ({ payload }) => regionInfo(words(payload)[2] ?? -1, { size: 0x2000_0000 }),
    // `struct vfio_user_device_info`: argsz, flags PCI, 9 regions, 5 interrupts.
    [GET_INFO]: u32(16, 2, 9, 5),
    [REGION_READ]: ({ payload }) => join(payload, new Uint8Array(words(payload)[3] ?? 0)),
    [REGION_WRITE]: ({ payload, flags }) => ((flags & NO_REPLY) === 0 ? payload.subarray(0, 16) : 'silence'),
    [REGION_WRITE_MULTI]: 'silence',
    ...handlers,
  });
  return { device, server, region: await device.region('bar0') };
}

/** Region writes as the server saw them, taken apart by hand: offset, bytes as hexadecimal. */
function writesSeen(server: FakeServer): string[] {
  return server.heard.flatMap(({ command, payload }) => {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    if (command === REGION_WRITE) return [`${view.getUint32(0, true)} ${toHex(payload.subarray(16))}`];
    if (command !== REGION_WRITE_MULTI) return [];
    // u64 count; then u64 offset, u32 region, u32 count, 8 bytes of data each.
    return Array.from({ length: view.getUint32(0, true) }, (_, i) => {
      const at = 8 + 24 * i;
      const count = view.getUint32(at + 12, true);
      return `${view.getUint32(at, true)} ${toHex(payload.subarray(at + 16, at + 16 + count))}`;
    });
  });
}

describe('posted writes', () => {
  test('the bytes: a REGION_WRITE with No_reply', async () => {
    const { server, region, device } = await bar0();
    await region.write32(0x1000, 0x1122_3344, { posted: true });
    await region.write64(0x1008, 0x0102_0304_0506_0708n, { posted: true });
    region.write16Sync(0x10, 0xabcd, { posted: true });
    region.write64Sync(0x18, 1n, { posted: true });
    await region.writeBytes(0x20, Uint8Array.of(1, 2, 3), { posted: true });
    region.writeBytesSync(0x24, Uint8Array.of(4), { posted: true });
    await device.flush();
    // `struct vfio_user_region_access`: u64 offset, u32 region, u32 count; data.
    expect(server.payloads(REGION_WRITE)).toEqual(
      [
        '0010000000000000 00000000 04000000 44332211',
        '0810000000000000 00000000 08000000 0807060504030201',
        '1000000000000000 00000000 02000000 cdab',
        '1800000000000000 00000000 08000000 0100000000000000',
        '2000000000000000 00000000 03000000 010203',
        '2400000000000000 00000000 01000000 04',
      ].map(bare),
    );
    expect(server.heard.filter(({ command }) => command === REGION_WRITE).map(({ flags }) => flags)).toEqual(
      Array(6).fill(NO_REPLY),
    );
    expect(device.statistics).toMatchObject({ postedWrites: 6, coalescedWrites: 0, unexpectedReplies: 0 });
  });

  test('per region, unless a call says otherwise', async () => {
    const { server, region } = await bar0();
    expect(region.posted).toBe(false);
    region.posted = true;
    await region.write32(0, 1);
    await region.write32(4, 2, { posted: false });
    region.posted = false;
    await region.write32(8, 3);
    const flags = server.heard.filter(({ command }) => command === REGION_WRITE).map((one) => one.flags);
    expect(flags).toEqual([NO_REPLY, 0, 0]);
  });

  test('configuration space refuses them', async () => {
    const { device, server } = await bar0();
    const config = await device.region('config');
    const refusal = { code: 'ERR_INVALID_ARG_VALUE' };
    await expect(config.write16(4, 6, { posted: true })).rejects.toMatchObject(refusal);
    await expect(config.write64(0x10, 6n, { posted: true })).rejects.toMatchObject(refusal);
    await expect(config.writeBytes(4, new Uint8Array(2), { posted: true })).rejects.toMatchObject(refusal);
    for (const act of [
      () => (config.posted = true),
      () => {
        config.write16Sync(4, 6, { posted: true });
      },
      () => {
        config.write64Sync(0x10, 6n, { posted: true });
      },
      () => {
        config.writeBytesSync(4, new Uint8Array(2), { posted: true });
      },
    ])
      expect(act).toThrow(like(refusal));
    config.posted = false;
    await config.write16(4, 6);
    expect(server.count(REGION_WRITE)).toBe(1);
  });

  test('misuse is told as for other writes', async () => {
    const { device, region, server } = await bar0();
    await expect(region.write32(2, 0, { posted: true })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARG_VALUE',
    });
    await expect(region.write32(0x2000_0000, 0, { posted: true })).rejects.toMatchObject({
      code: 'ERR_OUT_OF_RANGE',
    });
    await device.close();
    await expect(region.write32(0, 0, { posted: true })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_CLOSED',
    });
    expect(() => {
      region.write32Sync(0, 0, { posted: true });
    }).toThrow(like({ code: 'ERR_VFIO_USER_CLOSED' }));
    expect(server.count(REGION_WRITE)).toBe(0);
  });

  test('a region that is not writable', async () => {
    const { device } = await fakeDevice({ [GET_REGION_INFO]: regionInfo(0, { flags: 1 }) });
    const region = await device.region(0);
    await expect(region.write32(0, 0, { posted: true })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_UNSUPPORTED',
    });
  });

  test('a server that replies all the same, also with an error, is counted', async () => {
    const { device, region } = await bar0({
      [REGION_WRITE]: ({ payload }) => ((words(payload)[0] ?? 0) === 0 ? payload.subarray(0, 16) : 22),
    });
    await region.write32(0, 1, { posted: true });
    await region.write32(4, 1, { posted: true });
    await device.flush();
    expect(device.statistics.unexpectedReplies).toBe(2);
    expect(device.closed).toBe(false);
    expect(await region.read32(0)).toBe(0);
  });

  test('flush is one DEVICE_GET_INFO, and waits for its reply', async () => {
    let answer = (): void => undefined;
    const { device, server } = await bar0({
      [GET_INFO]: ({ id }) => {
        answer = () => {
          server.send(join(new Uint8Array(Uint16Array.of(id, 4).buffer), u32(32, 1, 0, 16, 2, 9, 5)));
        };
        return 'silence';
      },
    });
    let flushed = false;
    const flush = device.flush().then(() => (flushed = true));
    await until(() => server.count(GET_INFO) === 1);
    expect(server.payloads(GET_INFO)).toEqual([bare('10000000 00000000 00000000 00000000')]);
    expect(flushed).toBe(false);
    answer();
    await flush;
  });

  test('back-pressure: at once while there is room, later when there is not', async () => {
    const { region, device, server } = await bar0();
    const data = new Uint8Array(1 << 20);
    let early = false;
    const first = region.writeBytes(0, data, { posted: true }).then(() => (early = true));
    await Promise.resolve();
    await Promise.resolve();
    await first;
    expect(early).toBe(true);
    let settled = 0;
    const all = Array.from({ length: 8 }, (_, i) =>
      region.writeBytes((i + 1) * data.length, data, { posted: true }).then(() => settled++),
    );
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
    expect(settled).toBeGreaterThan(0);
    expect(settled).toBeLessThan(8);
    await Promise.all(all);
    await device.flush();
    // In the order of the calls, in pieces that libvfio-user takes.
    const offsets = writesSeen(server).map((write) => Number(write.split(' ')[0]));
    expect(offsets).toEqual(Array.from({ length: (9 * data.length) / 32768 }, (_, i) => i * 32768));
  });

  test('a connection that ends lets writers go', async () => {
    const { region, device, server } = await bar0();
    const data = new Uint8Array(1 << 20);
    const all = Array.from({ length: 8 }, () => region.writeBytes(0, data, { posted: true }));
    await device.close();
    expect(await Promise.all(all)).toEqual(all.map(() => undefined));
    expect(server.count(REGION_WRITE)).toBeLessThan(all.length);
  });

  test('the synchronous form gives up when the server does not read', async () => {
    const { device, server } = await fakeDevice(
      { [GET_REGION_INFO]: regionInfo(0, { size: 1 << 24 }) },
      { messageTimeout: 100 },
    );
    const region = await device.region(0);
    // The server of this process cannot read while we block.
    expect(() => {
      region.writeBytesSync(0, new Uint8Array(8 << 20), { posted: true });
    }).toThrow(like({ code: 'ERR_VFIO_USER_TIMEOUT' }));
    expect(server.count(REGION_WRITE)).toBe(0);
  });
});

describe('coalescing', () => {
  const posted = { posted: true };

  test('what would have to wait shares messages, in order, when both sides take REGION_WRITE_MULTI', async () => {
    const { device, server, region } = await bar0({ [VERSION]: MULTI });
    expect(device.negotiated).toMatchObject({
      client: { writeMultiple: true },
      server: { writeMultiple: true },
      limits: { writeMultiple: true },
    });
    for (let i = 0; i < MANY; i++) void region.write32(4 * i, i, posted);
    await device.flush();
    expect(writesSeen(server)).toEqual(Array.from({ length: MANY }, (_, i) => `${4 * i} ${toHex(u32(i))}`));
    const multi = server.heard.filter(({ command }) => command === REGION_WRITE_MULTI);
    expect(multi.length).toBeGreaterThan(0);
    expect(multi.every(({ flags }) => flags === NO_REPLY)).toBe(true);
    // At most 200 in a message.
    expect(Math.max(...multi.map(({ payload }) => words(payload)[0] ?? 0))).toBe(200);
    const { postedWrites, coalescedWrites } = device.statistics;
    expect(postedWrites).toBe(MANY);
    expect(coalescedWrites).toBe(multi.reduce((sum, { payload }) => sum + (words(payload)[0] ?? 0), 0));
  });

  test('the bytes', async () => {
    const { device, server, region } = await bar0({ [VERSION]: MULTI });
    region.writeBytesSync(0, new Uint8Array(1 << 20), posted);
    void region.write32(0x1000, 0x1122_3344, posted);
    void region.write64(0x1008, 0x0102_0304_0506_0708n, posted);
    void region.write8(0x1011, 0xff, posted);
    await device.flush();
    expect(server.payloads(REGION_WRITE_MULTI)).toEqual([
      bare(`0300000000000000
            0010000000000000 00000000 04000000 4433221100000000
            0810000000000000 00000000 08000000 0807060504030201
            1110000000000000 00000000 01000000 ff00000000000000`),
    ]);
    expect(device.statistics.coalescedWrites).toBe(3);
  });

  test('a single one is a plain write; larger ones, and what needs a reply, are sent as they are', async () => {
    const { device, server, region } = await bar0({ [VERSION]: MULTI });
    region.writeBytesSync(0, new Uint8Array(1 << 20), posted);
    void region.write32(0x10, 1, posted);
    const read = region.read32(0x14);
    void region.writeBytes(0x20, new Uint8Array(9), posted);
    void region.write32(0x30, 2, posted);
    const written = region.write32(0x40, 3);
    await Promise.all([read, written]);
    expect(server.count(REGION_WRITE_MULTI)).toBe(0);
    expect(
      server.heard
        .filter(({ payload }) => payload.length < 16 + 32768)
        .slice(-5)
        .map(({ command, payload }) => [command, words(payload.subarray(0, 4))[0]]),
    ).toEqual([
      [REGION_WRITE, 0x10],
      [REGION_READ, 0x14],
      [REGION_WRITE, 0x20],
      [REGION_WRITE, 0x30],
      [REGION_WRITE, 0x40],
    ]);
    expect(device.statistics.coalescedWrites).toBe(0);
  });

  test('not with a server that did not announce it', async () => {
    const { device, server, region } = await bar0();
    expect(device.negotiated.limits.writeMultiple).toBe(false);
    for (let i = 0; i < MANY; i++) void region.write32(4 * i, i, posted);
    await device.flush();
    expect(server.count(REGION_WRITE)).toBe(MANY);
    expect(device.statistics.coalescedWrites).toBe(0);
  });

  test('whatever is sent when, the server sees the order of the calls', async () => {
    const { device, server, region } = await bar0({ [VERSION]: MULTI });
    const call = fc.record({
      kind: fc.constantFrom('posted', 'posted', 'posted', 'posted64', 'bulk', 'read', 'write', 'yield'),
      repeat: fc.constantFrom(1, 1, 2, 3, 250, 600),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(call, { maxLength: 12 }), async (calls) => {
        server.heard.length = 0;
        const expected: string[] = [];
        const waiting: Promise<unknown>[] = [];
        let offset = 0;
        for (const { kind, repeat } of calls) {
          // Our server does not queue replies: few of them at a time.
          const times = kind === 'read' || kind === 'write' ? Math.min(repeat, 3) : repeat;
          for (let i = 0; i < times; i++) {
            offset += 8;
            const value = offset & 0xff;
            if (kind === 'read') waiting.push(region.read32(offset));
            else if (kind === 'yield') {
              if (i === 0) await new Promise((resolve) => setImmediate(resolve));
            } else if (kind === 'posted64') {
              waiting.push(region.write64(offset, BigInt(value), posted));
              expected.push(`${offset} ${toHex(Uint8Array.of(value))}00000000000000`);
            } else if (kind === 'bulk') {
              waiting.push(region.writeBytes(offset, new Uint8Array(100).fill(value), posted));
              expected.push(`${offset} ${toHex(new Uint8Array(100).fill(value))}`);
            } else {
              waiting.push(region.write8(offset, value, kind === 'write' ? {} : posted));
              expected.push(`${offset} ${toHex(Uint8Array.of(value))}`);
            }
          }
        }
        await Promise.all(waiting);
        await device.flush();
        expect(writesSeen(server)).toEqual(expected);
      }),
      { numRuns: 60 },
    );
    expect(device.statistics.coalescedWrites).toBeGreaterThan(0);
  });
});

test('a served device takes posted and coalesced writes', async () => {
  const model = new TestModel();
  atEnd(() => {
    model.close();
  });
  const path = `@vfio-user-posted-${process.pid}`;
  for (const writeMultiple of [true, false]) {
    await using server = await serve(path, model, { capabilities: { writeMultiple } });
    expect(server.path).toBe(path);
    // The flush waits for all of them, which a busy machine takes its time for.
    await using device = await connect(path, { messageTimeout: 60_000 });
    expect(device.negotiated.limits.writeMultiple).toBe(writeMultiple);
    const region = await device.region('bar0');
    region.posted = true;
    model.bar0.fill(0);
    for (let round = 1; round <= 4; round++)
      for (let i = 0; i < 0x1000; i++) void region.write32(4 * (i % 0x400), round * 0x10000 + i);
    await device.flush();
    const view = new DataView(model.bar0.buffer);
    for (let i = 0; i < 0x400; i++) expect(view.getUint32(4 * i, true)).toBe(0x40000 + 0xc00 + i);
    expect(device.statistics.coalescedWrites > 0).toBe(writeMultiple);
  }
});
