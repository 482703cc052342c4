// SPDX-License-Identifier: MIT
/** What becomes of a connection to an NBD server: it is lost, made again, and finds the export as it is then. */
import { BackendResult, NbdBackend } from '../../../../lib/nvme/backends';
import { failure } from '../../../support/errors';
import { turns, until } from '../../../support/wait';
import { FakeServer, Golden, hex, simple } from './fake-server';

const { success, unavailable } = BackendResult;
const MIB = 2 ** 20;

let server: FakeServer;
let backend: NbdBackend | undefined;
let lines: string[];
/** Requests by connection and type. */
const seen: [index: number, type: number][] = [];
beforeEach(() => {
  server = new FakeServer();
  lines = [];
  seen.length = 0;
});
afterEach(() => {
  backend?.close();
  backend = undefined;
  server[Symbol.dispose]();
});

async function open(timeout = 5000): Promise<NbdBackend> {
  backend = await NbdBackend.connect(server.uri, { timeout, onState: (line) => lines.push(line) });
  return backend;
}

const bytes = (length: number): Uint8Array => new Uint8Array(length);

/**
 * Answers all requests of connection `index` until the function returns false.
 *
 * @param sizes of the export by connection; those behind have the last
 */
function serve(answers: (index: number, type: number) => boolean, sizes = [MIB]): Promise<void> {
  return server.listen(async (peer, index) => {
    const size = (sizes[index] ?? sizes.at(-1) ?? 0).toString(16).padStart(16, '0');
    // NBD_INFO_EXPORT (proto.md): size, then has flags, flush, FUA, trim, write zeroes.
    const info = hex(`0003e889045565a9 00000007 00000003 0000000c 0000 ${size} 006d`);
    await peer.handshake({ infos: [info, Golden.infoBlockSize] });
    for (;;) {
      const request = await peer.request();
      seen.push([index, request.type]);
      if (request.type === 2) return;
      if (!answers(index, request.type)) {
        peer.socket.destroy();
        return;
      }
      peer.send(simple(request, 0, request.type === 0 ? Buffer.alloc(request.length) : undefined));
    }
  });
}

describe('a server that is gone', () => {
  test('fails what is in flight; what comes later waits for it', async () => {
    await serve((index, type) => index > 0 || type !== 0);
    const nbd = await open();
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
    const results = await Promise.all([nbd.read(0, bytes(512), 0, 512), nbd.write(0, bytes(512), 0, 512)]);
    expect(results).toEqual([success, success]);
    expect(lines).toEqual([
      expect.stringMatching(/is lost: .*; connecting again$/),
      expect.stringMatching(/again$/),
    ]);
    await nbd.flush();
  });

  test('and has what was not flushed with it: flushes fail until it is written again', async () => {
    await serve((index, type) => index > 0 || type !== 0);
    const nbd = await open();
    expect(await nbd.write(0, bytes(1024), 0, 1024)).toBe(success);
    await nbd.flush();
    expect(await nbd.write(1024, bytes(1024), 0, 1024)).toBe(success);
    expect(await nbd.zero(8192, 512, true)).toBe(success);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
    await expect(nbd.flush()).rejects.toThrow(/3 blocks of 512 bytes .* were not written again/);
    expect(await nbd.write(1024, bytes(1024), 0, 1024)).toBe(success);
    await expect(nbd.flush()).rejects.toThrow(/1 blocks/);
    expect(await nbd.write(8192, bytes(512), 0, 512)).toBe(success);
    await nbd.flush();
  });

  test('during a flush fails it', async () => {
    await serve((index, type) => index > 0 || type !== 3);
    const nbd = await open();
    expect(await nbd.write(0, bytes(512), 0, 512)).toBe(success);
    await expect(nbd.flush()).rejects.toMatchObject(failure('ERR_VFIO_USER_DISCONNECTED'));
    await expect(nbd.flush()).rejects.toThrow(/1 blocks/);
  });

  test('and comes back with another export is not used', async () => {
    await serve((index) => index > 0, [MIB, 511]);
    const nbd = await open(400);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
    expect(lines[1]).toMatch(/it is not the export that it was: its size was 1048576 bytes and is 511/);
    // Told once, however often it is tried.
    expect(lines).toHaveLength(2);
  });

  test('for good does not hold up those who close', async () => {
    await serve(() => false);
    const nbd = await open(60_000);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
    server.stop();
    const waiting = [nbd.read(0, bytes(512), 0, 512), nbd.write(0, bytes(512), 0, 512)];
    nbd.close();
    nbd.close();
    expect(await Promise.all(waiting)).toEqual([unavailable, unavailable]);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
  });

  test('by its own word is told', async () => {
    await server.listen(async (peer, index) => {
      await peer.handshake();
      const request = await peer.request();
      peer.send(simple(request, index === 0 ? 108 : 0, index === 0 ? undefined : Buffer.alloc(512)));
    });
    const nbd = await open();
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
    expect(lines[0]).toMatch(/the server is shutting down/);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(success);
  });
});

test('more than there is room for waits, and ends with the connection', async () => {
  let requests = 0;
  await server.listen(async (peer) => {
    await peer.handshake();
    for (;;) {
      await peer.request();
      // Those that have no room would be there in the same turn, or the next.
      if (++requests === 256) void turns().then(() => peer.socket.destroy());
    }
  });
  const nbd = await open();
  const reads = Array.from({ length: 1000 }, () => nbd.read(0, bytes(512), 0, 512));
  await until(() => lines.length > 0);
  expect(new Set(await Promise.all(reads))).toEqual(new Set([unavailable]));
  expect(requests).toBe(256);
});

describe('an export with another size', () => {
  test('is noticed when the connection is made again, and told', async () => {
    await serve((index, type) => index > 1 || type !== 0, [MIB, 2 * MIB, MIB / 2]);
    const nbd = await open();
    const sizes: number[] = [];
    nbd.onSizeChange((size) => sizes.push(size));
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
    expect(await nbd.write(0, bytes(512), 0, 512)).toBe(success);
    expect(sizes).toEqual([2 * MIB]);
    // The namespace is the controller's: it takes the size over.
    expect(nbd.size).toBe(MIB);
    await nbd.resize(2 * MIB);
    expect(nbd.size).toBe(2 * MIB);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(unavailable);
    expect(await nbd.read(0, bytes(512), 0, 512)).toBe(success);
    expect(sizes).toEqual([2 * MIB, MIB / 2]);
  });

  test('is asked for by another connection, behind what is in flight and its flush', async () => {
    await serve(() => true, [MIB, 2 * MIB]);
    const nbd = await open();
    const written = nbd.write(0, bytes(512), 0, 512);
    const resized = nbd.resize();
    expect(await written).toBe(success);
    await resized;
    expect(nbd.size).toBe(2 * MIB);
    expect(await nbd.read(2 * MIB - 512, bytes(512), 0, 512)).toBe(success);
    await nbd.flush();
    await until(() => seen.length === 5);
    // Write and flush by the first connection, then its end; read and flush by the second.
    expect(seen.filter(([index]) => index === 0)).toEqual([
      [0, 1],
      [0, 3],
      [0, 2],
    ]);
    expect(seen.filter(([index]) => index === 1)).toEqual([
      [1, 0],
      [1, 3],
    ]);
    expect(lines).toEqual([]);
  });

  test('cannot be exceeded; a smaller one leaves the rest alone', async () => {
    await serve(() => true);
    const nbd = await open();
    await expect(nbd.resize(MIB + 512)).rejects.toThrow(/has 1048576 bytes, fewer than 1049088/);
    expect(nbd.size).toBe(MIB);
    await nbd.resize(4096);
    expect(nbd.size).toBe(4096);
    await nbd.resize();
    expect(nbd.size).toBe(MIB);
  });

  test('a server that is gone cannot be asked, and nothing has changed', async () => {
    await serve(() => true);
    const nbd = await open(200);
    server.stop();
    await expect(nbd.resize()).rejects.toThrow();
    expect(nbd.size).toBe(MIB);
  });

  test('what was written and not flushed is known as lost when the old connection does not make it', async () => {
    await serve((index, type) => index > 0 || type !== 3, [MIB, 2 * MIB]);
    const nbd = await open();
    expect(await nbd.write(0, bytes(512), 0, 512)).toBe(success);
    await nbd.resize();
    expect(nbd.size).toBe(2 * MIB);
    await expect(nbd.flush()).rejects.toThrow(/1 blocks/);
    expect(await nbd.write(0, bytes(512), 0, 512)).toBe(success);
    await nbd.flush();
  });
});
