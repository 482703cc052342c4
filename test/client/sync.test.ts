// SPDX-License-Identifier: MIT
/** Blocking calls, against a server in another process over dist/. */
import { connect, type VfioUserDevice, type VfioUserRegion } from '../../lib/client';
import { childServer, type ChildServer } from './child-server';
import { atEnd, failure, like } from './support';

let server: ChildServer;

beforeAll(async () => {
  // BAR 0 remembers. A write to BAR 1 copies a word of the client's memory, whose address is written, to its successor.
  server = await childServer(`
    const bytes = new Uint8Array(0x20_0000);
    let memory;
    return {
      name: 'sync',
      pci,
      regions: new Map([
        [0, {
          size: bytes.length,
          read: (offset, data) => data.set(bytes.subarray(offset, offset + data.length)),
          write: (offset, data) => { if (offset === 0xff8) throw new CommandError(Errno.EPERM, 'no'); bytes.set(data, offset); },
        }],
        [1, {
          size: 8,
          write: async (offset, data) => {
            const address = Buffer.from(data).readBigUInt64LE(0);
            await memory.write(address + 4n, await memory.read(address, 4));
          },
        }],
        [2, { size: 8, read: () => new Promise(() => undefined) }],
      ]),
      attach: (client) => { memory = client.memory; },
    };
  `);
});

async function open(options: Parameters<typeof connect>[1] = {}): Promise<VfioUserDevice> {
  const device = await connect(server.path, options);
  atEnd(() => device.close());
  return device;
}

test('registers and bulk data', async () => {
  const bar: VfioUserRegion = await (await open()).region('bar0');
  bar.write8Sync(1, 0xab);
  bar.write16Sync(2, 0xcdef);
  bar.write32Sync(4, 0xfedc_ba98);
  bar.write64Sync(8, 0xfedc_ba98_7654_3210n);
  expect([bar.read8Sync(1), bar.read16Sync(2), bar.read32Sync(4), bar.read64Sync(8)]).toEqual([
    0xab,
    0xcdef,
    0xfedc_ba98,
    0xfedc_ba98_7654_3210n,
  ]);
  // More than a message carries, and more than the socket buffers.
  const data = Uint8Array.from({ length: 0x18_0001 }, (_, index) => index * 31);
  bar.writeBytesSync(0x1001, data);
  expect(Buffer.compare(bar.readBytesSync(0x1001, data.length), data)).toBe(0);
});

test('errors carry the name of their errno', async () => {
  const bar = await (await open()).region('bar0');
  expect(() => {
    bar.write32Sync(0xff8, 1);
  }).toThrow(like({ ...failure('ERR_VFIO_USER_REMOTE'), errnoName: 'EPERM' }));
});

test('promises that are pending meanwhile settle', async () => {
  const bar = await (await open()).region('bar0');
  bar.write32Sync(16, 7);
  const pending = bar.read32(16);
  expect(bar.read32Sync(16)).toBe(7);
  expect(await pending).toBe(7);
});

test("the server's DMA requests are served while we block", async () => {
  const device = await open({ dma: { directDma: false } });
  const bar = await device.region('bar1');
  const memory = await device.dma.allocate(4096);
  const words = new Uint32Array(memory.buffer);
  words[2] = 0x1234_5678;
  bar.write64Sync(0, BigInt(memory.iova + 8));
  expect(words[3]).toBe(0x1234_5678);
});

test('a call that is never answered, then a server that dies', async () => {
  const device = await open({ messageTimeout: 50 });
  const stuck = await device.region('bar2');
  expect(() => stuck.read32Sync(0)).toThrow(
    like({ ...failure('ERR_VFIO_USER_TIMEOUT', '50 ms'), command: 'REGION_READ' }),
  );
  await device.close();

  await server.kill();
  server = await childServer(`return {
    name: 'deadly', pci,
    regions: new Map([[3, { size: 8, read: () => process.exit() }]]),
  };`);
  const other = await open();
  const bar = await other.region('bar3');
  const events: (Error | null)[] = [];
  other.once('close', (error) => events.push(error));
  expect(() => bar.read32Sync(0)).toThrow(like(failure('ERR_VFIO_USER_DISCONNECTED')));
  expect(events).toMatchObject([{ code: 'ERR_VFIO_USER_DISCONNECTED' }]);
});
