// SPDX-License-Identifier: MIT
import { type IoRegionFd } from '../../lib/client';
import { Socket } from '../../lib/native';
import { GET_REGION_IO_FDS, entry40, reply } from './io-fds-support';
import { GET_REGION_INFO, atEnd, bare, fakeDevice, hex, join, regionInfo, toHex, until } from './support';

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
  for (const read of reads) await expect(read).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
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
