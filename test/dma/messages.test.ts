// SPDX-License-Identifier: MIT
import { connect } from '../../lib/client';
import {
  DMA_READ,
  DMA_WRITE,
  atEnd,
  fakeDevice,
  fakeServer,
  join,
  sharedMemory,
  toHex,
  u64,
  type Heard,
} from '../client/support';

import { PAGE } from './support';

describe('messages of the server', () => {
  /** Mappings of one page: 0x1000 and 0x2000 for both, 0x4000 to be read, 0x5000 to be written, 0x8000 without memory. */
  async function world() {
    const { fd, bytes } = sharedMemory(4 * PAGE);
    const { device, server } = await fakeDevice();
    await device.dma.map({ iova: 0x1000, size: PAGE, fd });
    await device.dma.map({ iova: 0x2000, size: PAGE, fd, offset: PAGE });
    await device.dma.map({ iova: 0x4000, size: PAGE, fd, offset: 2 * PAGE, access: 'read' });
    await device.dma.map({ iova: 0x5000, size: PAGE, fd, offset: 3 * PAGE, access: 'write' });
    await device.dma.map({ iova: 0x8000, size: PAGE });
    return { device, server, bytes };
  }
  const write = (address: number | bigint, data: Uint8Array): Uint8Array =>
    join(u64(address, data.length), data);
  const ok = { flags: 1, errno: 0 };
  const refused = (errno: number): object => ({ flags: 0x21, errno, payload: new Uint8Array(0) });

  test('DMA_READ, also across adjacent mappings', async () => {
    const { server, bytes } = await world();
    bytes.set([1, 2, 3, 4], PAGE - 2);
    const reply: Heard = await server.ask(DMA_READ, u64(0x1ffe, 4), 9);
    expect(reply).toMatchObject({ ...ok, id: 9, command: DMA_READ });
    expect(toHex(reply.payload)).toBe(toHex(u64(0x1ffe, 4)) + '01020304');
  });

  test('DMA_WRITE, also across adjacent mappings, is answered with 16 bytes', async () => {
    const { server, bytes } = await world();
    const reply = await server.ask(DMA_WRITE, write(0x1ffe, Uint8Array.of(5, 6, 7)));
    expect(reply).toMatchObject(ok);
    expect(toHex(reply.payload)).toBe(toHex(u64(0x1ffe, 3)));
    expect([...bytes.subarray(PAGE - 2, PAGE + 2)]).toEqual([5, 6, 7, 0]);
  });

  test('permissions', async () => {
    const { server, bytes } = await world();
    expect(await server.ask(DMA_READ, u64(0x4000, 1))).toMatchObject(ok);
    expect(await server.ask(DMA_WRITE, write(0x4000, Uint8Array.of(1)))).toMatchObject(refused(14));
    expect(await server.ask(DMA_WRITE, write(0x5000, Uint8Array.of(1)))).toMatchObject(ok);
    expect(await server.ask(DMA_READ, u64(0x5000, 1))).toMatchObject(refused(14));
    // From what may be read into what may not: nothing is written at all.
    expect(await server.ask(DMA_READ, u64(0x4fff, 2))).toMatchObject(refused(14));
    expect(await server.ask(DMA_WRITE, write(0x4fff, Uint8Array.of(1, 7)))).toMatchObject(refused(14));
    expect(bytes[3 * PAGE]).toBe(1);
  });

  test.each([
    ['before', 0xfff, 2],
    ['between', 0x2fff, 2],
    ['behind', 0x9000, 1],
    ['without memory', 0x8000, 1],
    ['at the end of 64 bits', 2n ** 64n - 1n, 1],
  ])('what is not mapped, %s, is EFAULT', async (_what, address, count) => {
    const { server } = await world();
    expect(await server.ask(DMA_READ, u64(address, count))).toMatchObject(refused(14));
    expect(await server.ask(DMA_WRITE, write(address, new Uint8Array(count)))).toMatchObject(refused(14));
  });

  test.each([
    ['a payload that is too short', DMA_READ, u64(0x1000)],
    ['more than the limit', DMA_READ, u64(0x1000, 1048577)],
    ['an end above 2^64', DMA_READ, u64(2n ** 64n - 1n, 2)],
    ['less data than it says', DMA_WRITE, join(u64(0x1000, 2), new Uint8Array(1))],
    ['more data than it says', DMA_WRITE, join(u64(0x1000, 2), new Uint8Array(3))],
  ])('%s is EINVAL, and the connection lives on', async (_what, command, payload) => {
    const { server } = await world();
    expect(await server.ask(command, payload)).toMatchObject(refused(22));
    expect(await server.ask(DMA_READ, u64(0x1000, 1))).toMatchObject(ok);
  });

  test('what a client does not serve', async () => {
    const { server } = await world();
    for (const command of [1, 2, 9, 99])
      expect(await server.ask(command, new Uint8Array(0))).toMatchObject(refused(95));
  });

  test('they are served while we wait for a reply', async () => {
    const server = fakeServer({ 9: 'silence' });
    const device = await connect(server.endpoint);
    atEnd(() => device.close());
    const memory = await device.dma.allocate(PAGE);
    const info = device.info();
    const outcome = expect(info).rejects.toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
    expect(await server.ask(DMA_READ, u64(memory.iova, 8))).toMatchObject(ok);
    await outcome;
  });
});
