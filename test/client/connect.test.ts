// SPDX-License-Identifier: MIT
import { linkSync, mkdirSync, writeFileSync } from 'node:fs';
import { join as joinPath } from 'node:path';
import { connect } from '../../lib/client';
import { VfioUserError } from '../../lib/errors';
import { ListeningSocket, Socket } from '../../lib/native';
import { serve } from '../../lib/server';
import { TestModel } from '../server/support';
import {
  DMA_MAP,
  PLAIN_VERSION,
  VERSION,
  atEnd,
  directory,
  failure,
  fakeDevice,
  fakeServer,
  openFds,
  toHex,
  turns,
  until,
  version,
  warmUp,
} from './support';

/** Serves a device at a path, for the length of the test. */
async function served(path: string): Promise<TestModel> {
  const model = new TestModel();
  atEnd(() => {
    model.close();
  });
  const server = await serve(path, model);
  atEnd(() => server.close());
  return model;
}

/** Listens at a path without ever accepting. */
function silent(path: string, backlog = 1): ListeningSocket {
  const socket = ListeningSocket.listen(path, { backlog });
  atEnd(() => {
    socket.close();
  });
  return socket;
}

const uniqueName = (): string => `@vfio-user-connect-${process.pid}-${Math.random()}`;

describe('endpoints', () => {
  test('a socket path', async () => {
    const path = joinPath(directory(), 'socket');
    const model = await served(path);
    await using device = await connect(path);
    expect(device.name).toBe(path);
    expect(device.closed).toBe(false);
    expect(model.log).toEqual(['attach']);
  });

  test("SPDK's listener directory", async () => {
    const path = directory();
    await served(joinPath(path, 'cntrl'));
    await using device = await connect(path);
    expect(device.name).toBe(path);
    expect((await device.info()).regionCount).toBe(9);
  });

  test('an abstract name', async () => {
    const path = uniqueName();
    await served(path);
    await using device = await connect(path);
    expect(device.name).toBe(path);
  });

  test('a descriptor, which is closed with the device', async () => {
    warmUp();
    const server = fakeServer();
    const before = openFds();
    const device = await connect(server.endpoint);
    expect(device.name).toBe(`fd ${server.endpoint.fd}`);
    await device.close();
    expect(openFds()).toBe(before - 1);
  });

  test('a descriptor that is no socket', async () => {
    await expect(connect({ fd: 0x7fff_fff0 })).rejects.toMatchObject({ errnoName: 'EBADF' });
  });

  test.each([
    ['no such path', (path: string) => joinPath(path, 'missing'), /no such path.*Is the server running/],
    ['a directory without cntrl', (path: string) => path, /directory without a socket "cntrl".*SPDK/],
    [
      'a directory whose cntrl is a file',
      (path: string) => {
        writeFileSync(joinPath(path, 'cntrl'), '');
        return path;
      },
      /directory without a socket "cntrl"/,
    ],
    [
      'a file',
      (path: string) => {
        writeFileSync(joinPath(path, 'file'), '');
        return joinPath(path, 'file');
      },
      /is not a socket/,
    ],
    [
      'a path below a file',
      (path: string) => {
        writeFileSync(joinPath(path, 'file'), '');
        return joinPath(path, 'file', 'cntrl');
      },
      /ENOTDIR/,
    ],
    ['an abstract name that nobody listens at', uniqueName, /nobody listens on @.*same network namespace/],
  ])('%s', async (_what, make, text) => {
    await expect(connect(make(directory()))).rejects.toMatchObject(failure('ERR_VFIO_USER_CONNECT', text));
  });

  test('a socket that its server left behind', async () => {
    const path = joinPath(directory(), 'stale');
    const listener = ListeningSocket.listen(path);
    // A second name of the socket outlives the listener, which removes its own.
    linkSync(path, `${path}-left`);
    listener.close();
    await expect(connect(`${path}-left`)).rejects.toMatchObject({
      ...failure('ERR_VFIO_USER_CONNECT', /nobody listens on .*left the socket behind/),
      errnoName: 'ECONNREFUSED',
    });
  });

  test('a path that is too long', async () => {
    const path = joinPath(directory(), 'x'.repeat(100));
    mkdirSync(path);
    await expect(connect(`@${'x'.repeat(107)}`)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
    await expect(connect(path)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CONNECT' });
  });

  test.each([0, -1, NaN])('a time-out of %p', async (value) => {
    const { endpoint } = fakeServer();
    for (const name of ['connectTimeout', 'messageTimeout', 'quiesceTimeout']) {
      await expect(connect(endpoint, { [name]: value })).rejects.toMatchObject({
        code: 'ERR_INVALID_ARG_VALUE',
        message: expect.stringContaining(name) as string,
      });
    }
    Socket.fromFd(endpoint.fd).close();
  });
});

describe('deadline', () => {
  test('it covers VERSION: a listener that stays silent is busy', async () => {
    const path = uniqueName();
    silent(path);
    await expect(connect(path, { connectTimeout: 30 })).rejects.toMatchObject(
      failure('ERR_VFIO_USER_BUSY', /one client at a time/),
    );
  });

  test('a second client of a served device is told that it is busy, and gets through once the first leaves', async () => {
    const path = uniqueName();
    await served(path);
    const first = await connect(path);
    await expect(connect(path, { connectTimeout: 30 })).rejects.toMatchObject({ code: 'ERR_VFIO_USER_BUSY' });
    const second = connect(path);
    await first.close();
    await using device = await second;
    expect(device.closed).toBe(false);
  });

  test('a backlog that is full', async () => {
    const path = uniqueName();
    silent(path, 0);
    const waiting: Socket[] = [];
    atEnd(() => {
      for (const socket of waiting) socket.close();
    });
    expect(() => {
      for (let index = 0; index < 10; index++) waiting.push(Socket.connect(path));
    }).toThrow(VfioUserError);
    await expect(connect(path, { connectTimeout: 30 })).rejects.toMatchObject(
      failure('ERR_VFIO_USER_BUSY', path),
    );
  });

  test('a backlog that becomes free while we try', async () => {
    const path = uniqueName();
    const listener = silent(path, 0);
    const waiting: Socket[] = [];
    expect(() => {
      for (;;) waiting.push(Socket.connect(path));
    }).toThrow(VfioUserError);
    const device = connect(path, { connectTimeout: 60_000 });
    await turns();
    for (let socket; (socket = listener.accept()) !== null;) socket.close();
    for (const socket of waiting) socket.close();
    listener.close();
    // The next attempt reaches it: now nobody listens any more.
    await expect(device).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CONNECT' });
  });
});

describe('abort', () => {
  const reason = new Error('not wanted any more');

  test('before the start', async () => {
    const path = uniqueName();
    silent(path);
    await expect(connect(path, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const { endpoint } = fakeServer();
    await expect(connect(endpoint, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  });

  test('while VERSION is unanswered', async () => {
    const server = fakeServer({ [VERSION]: 'silence' });
    const controller = new AbortController();
    const device = connect(server.endpoint, { signal: controller.signal });
    await until(() => server.count(VERSION) === 1);
    controller.abort(reason);
    await expect(device).rejects.toBe(reason);
  });

  test('while the backlog is full', async () => {
    const path = uniqueName();
    silent(path, 0);
    const waiting: Socket[] = [];
    expect(() => {
      for (;;) waiting.push(Socket.connect(path));
    }).toThrow(VfioUserError);
    const controller = new AbortController();
    const device = connect(path, { signal: controller.signal });
    controller.abort(reason);
    await expect(device).rejects.toBe(reason);
    for (const socket of waiting) socket.close();
  });
});

describe('negotiation', () => {
  test('what is sent: 0.1, capabilities with their NUL, no descriptor', async () => {
    const { server } = await fakeDevice();
    const [first] = server.heard;
    expect(first).toMatchObject({ command: VERSION, flags: 0, errno: 0 });
    expect(first!.fds.length).toBe(0);
    expect(toHex(first!.payload.subarray(0, 4))).toBe('00000100');
    expect(first!.payload.at(-1)).toBe(0);
    const json: unknown = JSON.parse(Buffer.from(first!.payload.subarray(4, -1)).toString());
    expect(json).toMatchObject({ capabilities: { max_msg_fds: 16, max_data_xfer_size: 1048576 } });
  });

  test('what the server told is known, keys of the future too', async () => {
    const json =
      '{"capabilities":{"max_msg_fds":2,"max_data_xfer_size":4096,"max_dma_maps":7,"later":1},"x":2}';
    const { device } = await fakeDevice({ [VERSION]: version(json, 0, 0) });
    expect(device.negotiated).toMatchObject({
      major: 0,
      minor: 0,
      limits: { maxMsgFds: 2, maxDataXferSize: 4096, maxDmaMaps: 7 },
      serverJson: { x: 2 },
    });
  });

  test.each([
    ['no JSON', version(null)],
    ['JSON without capabilities', version('{}')],
    ['an empty text', version('')],
  ])('%s: the defaults of the specification', async (_what, payload) => {
    const { device } = await fakeDevice({ [VERSION]: payload });
    // vfio-user, VFIO_USER_VERSION, Capabilities: 1 descriptor, 1 MiB, 65535 mappings, 4 KiB pages.
    expect(device.negotiated.limits).toEqual({
      maxMsgFds: 1,
      maxDataXferSize: 1048576,
      maxDmaMaps: 65535,
      pageSizes: 4096,
      twinSocket: false,
      writeMultiple: false,
    });
  });

  test.each([
    ['garbage for JSON', version('{"capabilities":')],
    ['JSON that is no object', version('7')],
    ['a capability of the wrong type', version('{"capabilities":{"max_msg_fds":"many"}}')],
    ['a transfer size of 0', version('{"capabilities":{"max_data_xfer_size":0}}')],
    ['three bytes', PLAIN_VERSION.subarray(0, 3)],
  ])('%s', async (_what, payload) => {
    const server = fakeServer({ [VERSION]: payload });
    await expect(connect(server.endpoint)).rejects.toMatchObject(
      failure('ERR_VFIO_USER_PROTOCOL', 'VERSION'),
    );
  });

  test.each([
    ['1.0', version(null, 1, 0)],
    ['0.2', version(null, 0, 2)],
  ])('version %s', async (text, payload) => {
    const server = fakeServer({ [VERSION]: payload });
    await expect(connect(server.endpoint)).rejects.toMatchObject(
      failure('ERR_VFIO_USER_VERSION', `speaks vfio-user ${text}`),
    );
  });

  test('a server that closes the connection instead of answering', async () => {
    const server = fakeServer({ [VERSION]: 'close' });
    await expect(connect(server.endpoint)).rejects.toMatchObject({
      ...failure('ERR_VFIO_USER_VERSION', /closed the connection instead of answering VERSION 0\.1/),
      cause: { code: 'ERR_VFIO_USER_DISCONNECTED' },
    });
  });

  test('an error reply', async () => {
    const server = fakeServer({ [VERSION]: 22 });
    await expect(connect(server.endpoint)).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_REMOTE',
      command: 'VERSION',
      errnoName: 'EINVAL',
    });
  });

  test('descriptors that come with the reply are closed', async () => {
    warmUp();
    const before = openFds();
    const [one, other] = Socket.pair();
    const { device, server } = await fakeDevice({
      [VERSION]: { payload: PLAIN_VERSION, fds: [one.fd, one.fd] },
    });
    await device.close();
    server.close();
    one.close();
    other.close();
    expect(openFds()).toBe(before);
  });

  test('every failure closes the connection and leaves nothing open', async () => {
    warmUp();
    const before = openFds();
    for (const answer of [version(null, 9, 9), version('x'), 5, 'close'] as const) {
      const server = fakeServer({ [VERSION]: answer });
      await expect(connect(server.endpoint)).rejects.toBeInstanceOf(VfioUserError);
      await until(() => server.closed);
    }
    expect(openFds()).toBe(before);
  });

  test('a container whose mappings the server refuses: no device, but the container lives on', async () => {
    const first = await fakeDevice();
    await first.device.dma.allocate(4096);
    const server = fakeServer({ [DMA_MAP]: 22 });
    await expect(connect(server.endpoint, { dma: first.device.dma })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_REMOTE',
      command: 'DMA_MAP',
    });
    await until(() => server.closed);
    await first.device.dma.allocate(4096);
    expect(first.server.count(DMA_MAP)).toBe(2);
    expect(server.count(DMA_MAP)).toBe(1);
  });
});
