// SPDX-License-Identifier: MIT
import { connect } from '../../lib/client';
import { Socket, closeFd, createSharedMemory } from '../../lib/native';
import { serve } from '../../lib/server';
import { Peer, message } from '../transport/support';
import { TestModel } from '../server/support';
import { childServer } from './child-server';
import {
  DMA_READ,
  DMA_WRITE,
  PLAIN_VERSION,
  VERSION,
  atEnd,
  failure,
  fakeDevice,
  fakeServer,
  join,
  openFds,
  toHex,
  u64,
  until,
  version,
  warmUp,
  type Answer,
} from './support';

const PAGE = 4096;
const TWIN = version('{"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":true,"fd_index":0}}}');

/** A pair of sockets, of which both ends are closed after the test; and an answer to VERSION with the first. */
function pair(payload = TWIN): { far: Peer; answer: Answer } {
  const [near, far] = Socket.pair();
  atEnd(() => {
    near.close();
    far.close();
  });
  return { far: new Peer(far), answer: { payload, fds: [near.fd] } };
}

/** The next message at the server's end, once it is there. */
async function next(peer: Peer): Promise<ReturnType<Peer['take']>> {
  await new Promise<void>((resolve) => {
    const watcher = peer.socket.watch(() => {
      watcher.close();
      resolve();
    });
  });
  return peer.take();
}

describe('asking for a twin socket', () => {
  test('is off by default, and in the JSON when it is on', async () => {
    const json = (heard: { payload: Uint8Array }): unknown =>
      JSON.parse(Buffer.from(heard.payload.subarray(4, -1)).toString());
    const plain = await fakeDevice();
    expect(json(plain.server.heard[0]!)).toMatchObject({
      capabilities: { twin_socket: { supported: false } },
    });
    expect(plain.device.negotiated.limits.twinSocket).toBe(false);
    const asking = await fakeDevice({}, { twinSocket: true });
    expect(json(asking.server.heard[0]!)).toMatchObject({
      capabilities: { twin_socket: { supported: true } },
    });
  });

  test.each([
    ['says nothing of it', PLAIN_VERSION],
    ['says that it has none', version('{"capabilities":{"twin_socket":{"supported":false}}}')],
    ['does not say whether it has', version('{"capabilities":{"twin_socket":{}}}')],
  ])('a server that %s serves without', async (_what, payload) => {
    const { device, server } = await fakeDevice({ [VERSION]: payload }, { twinSocket: true });
    expect(device.negotiated.limits.twinSocket).toBe(false);
    const memory = await device.dma.allocate(PAGE);
    expect(await server.ask(DMA_READ, u64(memory.iova, 1))).toMatchObject({ flags: 1 });
  });

  test.each([
    ['no index', version('{"capabilities":{"twin_socket":{"supported":true}}}'), 1],
    ['no descriptor', TWIN, 0],
    [
      'an index beyond the descriptors',
      version('{"capabilities":{"twin_socket":{"supported":true,"fd_index":1}}}'),
      1,
    ],
  ])('an inconsistent reply, %s: the connection is closed', async (_what, payload, fdCount) => {
    warmUp();
    const { answer } = pair(payload);
    const { fds = [] } = answer as { fds?: number[] };
    const server = fakeServer({ [VERSION]: { payload, fds: fds.slice(0, fdCount) } });
    const before = openFds();
    await expect(connect(server.endpoint, { twinSocket: true })).rejects.toMatchObject(
      failure('ERR_VFIO_USER_PROTOCOL', 'twin socket'),
    );
    await until(() => server.closed);
    // Gone are the main connection's two ends, and what watches the server's; nothing of the twin socket is left.
    expect(openFds()).toBe(before - 3);
  });

  test('a descriptor that is no socket', async () => {
    warmUp();
    const fd = createSharedMemory(PAGE);
    atEnd(() => {
      closeFd(fd);
    });
    const server = fakeServer({ [VERSION]: { payload: TWIN, fds: [fd] } });
    const before = openFds();
    await expect(connect(server.endpoint, { twinSocket: true })).rejects.toMatchObject(
      failure('ERR_VFIO_USER_PROTOCOL', 'no connected unix stream socket'),
    );
    await until(() => server.closed);
    expect(openFds()).toBe(before - 3);
  });

  test('one that was not asked for is closed', async () => {
    const { answer, far } = pair();
    const { device } = await fakeDevice({ [VERSION]: answer });
    expect(device.negotiated).toMatchObject({
      server: { twinSocket: { supported: true, fdIndex: 0 } },
      limits: { twinSocket: false },
    });
    expect(far.socket.closed).toBe(false);
  });
});

describe('a twin socket', () => {
  test('carries DMA_READ and DMA_WRITE and their replies', async () => {
    const { answer, far } = pair();
    const { device, server } = await fakeDevice({ [VERSION]: answer }, { twinSocket: true });
    expect(device.negotiated.limits.twinSocket).toBe(true);
    const memory = await device.dma.allocate(PAGE);
    new Uint8Array(memory.buffer).set([1, 2, 3]);
    far.send(message(DMA_READ, u64(memory.iova, 3), { id: 7 }));
    expect(await next(far)).toEqual({
      id: 7,
      command: DMA_READ,
      flags: 1,
      payload: [...u64(memory.iova, 3), 1, 2, 3],
    });
    far.send(message(DMA_WRITE, join(u64(memory.iova + 8, 1), Uint8Array.of(9)), { id: 8 }));
    expect(await next(far)).toMatchObject({ id: 8, flags: 1, payload: [...u64(memory.iova + 8, 1)] });
    expect(new Uint8Array(memory.buffer)[8]).toBe(9);
    // Nothing of it on the main socket.
    expect(server.heard.map(({ command }) => command)).toEqual([VERSION, 2]);
  });

  test('ends with the device, and the device with it', async () => {
    warmUp();
    const first = pair();
    const one = await fakeDevice({ [VERSION]: first.answer }, { twinSocket: true });
    await one.device.close();
    // Our own copy of the client's end is still open, so that the pair is not; what the client had of it is closed.
    const second = pair();
    const two = await fakeDevice({ [VERSION]: second.answer }, { twinSocket: true });
    const closed = new Promise<Error | null>((resolve) => two.device.once('close', resolve));
    second.far.socket.close();
    expect(await closed).toMatchObject(failure('ERR_VFIO_USER_DISCONNECTED', 'twin socket'));
    await expect(two.device.info()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
  });

  test('leaves no descriptor behind', async () => {
    warmUp();
    const model = new TestModel();
    const path = `@vfio-user-twin-${process.pid}`;
    const server = await serve(path, model);
    const before = openFds();
    const device = await connect(path, { twinSocket: true });
    expect(openFds()).toBeGreaterThan(before);
    await device.close();
    await until(() => openFds() === before);
    await server.close();
    model.close();
  });

  test('between our client and our server; the server may decline', async () => {
    const model = new TestModel();
    atEnd(() => {
      model.close();
    });
    const path = `@vfio-user-twin-2-${process.pid}`;
    for (const twinSocket of [true, false]) {
      const server = await serve(path, model, { twinSocket });
      const device = await connect(path, { twinSocket: true, dma: { directDma: false } });
      expect(device.negotiated.limits.twinSocket).toBe(twinSocket);
      const memory = await device.dma.allocate(PAGE);
      const { messagesReceived } = device.statistics;
      const bytes = new Uint8Array(memory.buffer).fill(0);
      const view = model.client!.memory;
      await view.write(memory.iova, Uint8Array.of(1, 2));
      // Requests of both sides at once.
      const [read] = await Promise.all([view.read(memory.iova, 3), device.flush(), device.flush()]);
      expect(toHex(read)).toBe('010200');
      expect(bytes[1]).toBe(2);
      expect(device.statistics.messagesReceived - messagesReceived).toBe(twinSocket ? 2 : 4);
      await device.close();
      await server.close();
    }
  });

  test.each([true, false])(
    'synchronous accesses serve the device meanwhile (twin socket: %p)',
    async (twinSocket) => {
      const server = await childServer(`
        let client;
        return {
          name: 'reads memory on each access',
          pci,
          regions: new Map([
            [0, {
              size: 4096,
              read: async (offset, data) => data.set(await client.memory.read(2 ** 32 + offset, data.length)),
              write: async (offset, data) => client.memory.write(2 ** 32 + offset, data),
            }],
          ]),
          attach: (attached) => { client = attached; },
        };
      `);
      await using device = await connect(server.path, { twinSocket, dma: { directDma: false } });
      expect(device.negotiated.limits.twinSocket).toBe(twinSocket);
      const memory = await device.dma.allocate(PAGE);
      expect(memory.iova).toBe(2 ** 32);
      const words = new Uint32Array(memory.buffer);
      const region = await device.region('bar0');
      for (let i = 0; i < 200; i++) {
        region.write32Sync(8, i);
        expect(words[2]).toBe(i);
        words[3] = i + 1;
        expect(region.read32Sync(12)).toBe(i + 1);
      }
    },
  );
});
