// SPDX-License-Identifier: MIT
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  fstatSync,
  lstatSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ListeningSocket, Socket, createSharedMemory, duplicateFd } from '../../lib/native';
import { Ready } from '../../lib/native/watcher';
import { coded, errno } from '../support/errors';
import { openFds } from '../support/resources';
import { loopSleeps, turns, until } from '../support/wait';

const directory = mkdtempSync(join(tmpdir(), 'vfio-user-'));
afterAll(() => {
  rmSync(directory, { recursive: true });
});

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values);

describe('Socket', () => {
  let near: Socket;
  let far: Socket;
  const buffer = new Uint8Array(65536);

  beforeEach(() => {
    [near, far] = Socket.pair();
  });
  afterEach(() => {
    near.close();
    far.close();
  });

  test('sends head and body as one message', () => {
    expect(near.send(bytes(1, 2, 3, 4), 2, bytes(9, 8, 7, 6), 1, null)).toBe(5);
    expect(far.receive(buffer, 10, 100)).toBe(5);
    expect([...buffer.subarray(10, 15)]).toEqual([1, 2, 8, 7, 6]);
  });

  test('receive gives 0 when nothing is there, -1 at the end of the stream', () => {
    expect(far.receive(buffer, 0, 16)).toBe(0);
    near.send(bytes(1), 1, null, 0, null);
    near.close();
    expect(far.receive(buffer, 0, 16)).toBe(1);
    expect(far.receive(buffer, 0, 16)).toBe(-1);
  });

  test('receive waits, but not longer than told', () => {
    const start = performance.now();
    expect(far.receive(buffer, 0, 16, 0, 30)).toBe(0);
    expect(far.receive(buffer, 0, 16, 20_000, 0)).toBe(0);
    expect(far.receive(buffer, 0, 16, 100.5, 10.2)).toBe(0);
    const elapsed = performance.now() - start;
    expect(elapsed).toBeGreaterThanOrEqual(60);
    expect(elapsed).toBeLessThan(5000);
    near.send(bytes(5), 1, null, 0, null);
    expect(far.receive(buffer, 0, 16, 1000, 1000)).toBe(1);
  });

  test('a full socket buffer takes a part, then nothing, then goes on', () => {
    near.setSendBuffer(4096);
    const data = new Uint8Array(1 << 20).map((_, index) => index % 251);
    let sent = near.send(bytes(), 0, data, 0, null);
    expect(sent).toBeGreaterThan(0);
    expect(sent).toBeLessThan(data.length);
    while (near.send(bytes(), 0, data, sent, null) > 0) throw new Error('took more after a partial write');
    expect(near.waitWritable(5)).toBe(false);
    const got: number[] = [];
    for (;;) {
      const count = far.receive(buffer, 0, buffer.length);
      if (count > 0) got.push(...buffer.subarray(0, count));
      if (got.length === data.length) break;
      expect(near.waitWritable(1000)).toBe(true);
      sent += near.send(bytes(), 0, data, sent, null);
    }
    expect(Buffer.compare(Buffer.from(got), data)).toBe(0);
  });

  test('passes descriptors, closed on exec', () => {
    const memory = createSharedMemory(8192);
    near.send(bytes(1), 1, null, 0, [memory, memory]);
    closeSync(memory);
    expect(far.receive(buffer, 0, 16)).toBe(1);
    expect(far.pendingFds).toBe(2);
    const fds = far.takeFds();
    expect(fds.map((fd) => fstatSync(fd).size)).toEqual([8192, 8192]);
    expect(far.takeFds()).toEqual([]);
    expect(far.fdsTruncated).toBe(false);
    for (const fd of fds) closeSync(fd);
  });

  test('253 descriptors go in one message, 254 and 300 do not', () => {
    const memory = createSharedMemory(4096);
    expect(near.send(bytes(1), 1, null, 0, new Array<number>(253).fill(memory))).toBe(1);
    far.receive(buffer, 0, 16);
    expect(far.pendingFds).toBe(253);
    for (const count of [254, 300]) {
      expect(() => near.send(bytes(1), 1, null, 0, new Array<number>(count).fill(memory))).toThrow(
        coded('ERR_OUT_OF_RANGE'),
      );
    }
    closeSync(memory);
  });

  test('descriptors that were not taken are closed with the socket', () => {
    const before = openFds();
    const memory = createSharedMemory(4096);
    near.send(bytes(1), 1, null, 0, [memory, memory, memory]);
    closeSync(memory);
    far.receive(buffer, 0, 16);
    expect(openFds()).toBe(before + 3);
    far.close();
    expect(openFds()).toBe(before - 1);
  });

  test('a descriptor that is not open fails the message', () => {
    expect(() => near.send(bytes(1), 1, null, 0, [0x7fffffff])).toThrow(errno('EBADF'));
    expect(far.receive(buffer, 0, 16)).toBe(0);
  });

  test('descriptors without a byte are refused: the kernel would drop them', () => {
    expect(() => near.send(bytes(), 0, null, 0, [1])).toThrow(coded('ERR_INVALID_ARG_VALUE'));
  });

  test('sending to a closed peer is EPIPE, and no signal', () => {
    far.close();
    expect(() => near.send(bytes(1), 1, null, 0, null)).toThrow(errno('EPIPE'));
  });

  test('a peer that closes with unread data is ECONNRESET', () => {
    near.send(bytes(1), 1, null, 0, null);
    far.close();
    expect(() => near.receive(buffer, 0, 16)).toThrow(errno('ECONNRESET'));
  });

  test('parts outside their array are refused', () => {
    for (const [offset, length] of [
      [0, 0],
      [-1, 4],
      [0, 65537],
      [65536, 1],
      [NaN, 1],
    ] as const) {
      expect(() => near.receive(buffer, offset, length)).toThrow(coded('ERR_OUT_OF_RANGE'));
    }
    expect(() => near.send(bytes(1), 2, null, 0, null)).toThrow(coded('ERR_OUT_OF_RANGE'));
    expect(() => near.send(bytes(1), 1, bytes(1), 2, null)).toThrow(coded('ERR_OUT_OF_RANGE'));
    expect(() => near.send(bytes(1), -1, null, 0, null)).toThrow(coded('ERR_OUT_OF_RANGE'));
  });

  test("knows the peer's process", () => {
    expect(near.peerCredentials()).toEqual({
      pid: process.pid,
      uid: process.getuid?.(),
      gid: process.getgid?.(),
    });
  });

  test('use after close throws, closing twice does not', () => {
    near.close();
    near.close();
    const uses = [
      () => near.fd,
      () => near.send(bytes(1), 1, null, 0, null),
      () => near.receive(buffer, 0, 1),
      () => near.waitWritable(0),
      () => near.peerCredentials(),
      () => near.watch(() => undefined),
      () => {
        near.setSendBuffer(1);
      },
    ];
    for (const use of uses) expect(use).toThrow(coded('ERR_VFIO_USER_CLOSED'));
  });

  test('fromFd takes unix stream sockets only', () => {
    const file = openSync(__filename, 'r');
    expect(() => Socket.fromFd(file)).toThrow(errno('ENOTSOCK'));
    closeSync(file);
    expect(() => Socket.fromFd(0x7fffffff)).toThrow(errno('EBADF'));
    using listener = ListeningSocket.listen('@vfio-user-test-adopt');
    expect(() => Socket.fromFd(listener.fd)).toThrow(errno('EINVAL'));
    expect(() => ListeningSocket.fromFd(0x7fffffff)).toThrow(errno('EBADF'));
    const pair = Socket.pair();
    expect(ListeningSocket.fromFd(pair[0].fd)).toBeNull();
    for (const socket of pair) socket.close();
  });

  test('a socket that listens is taken over from its descriptor', () => {
    using listener = ListeningSocket.listen('@vfio-user-test-adopt');
    const fd = duplicateFd(listener.fd);
    using adopted = ListeningSocket.fromFd(fd)!;
    expect([adopted.fd, adopted.path]).toEqual([fd, `fd ${fd}`]);
    expect(adopted.accept()).toBeNull();
    using near = Socket.connect('@vfio-user-test-adopt');
    using far = adopted.accept()!;
    expect(far.peerCredentials().pid).toBe(process.pid);
    expect(near.closed).toBe(false);
  });

  test('fromFd refuses a TCP socket', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const fd = Number(Reflect.get(Reflect.get(server, '_handle') as object, 'fd'));
    expect(() => Socket.fromFd(fd)).toThrow(errno('EPROTOTYPE'));
    await new Promise((resolve) => server.close(resolve));
  });

  test('watch tells what the socket is ready for', async () => {
    const seen: number[] = [];
    const watcher = near.watch((events) => {
      seen.push(events);
      if ((events & Ready.read) !== 0) near.receive(buffer, 0, 16);
      else watcher.setWritable(false);
    });
    await turns();
    expect(seen).toEqual([]);
    watcher.setWritable(true);
    await until(() => seen.length > 0);
    expect(seen).toEqual([Ready.write]);
    far.send(bytes(1), 1, null, 0, null);
    await until(() => seen.length > 1);
    expect(seen).toEqual([Ready.write, Ready.read]);
    watcher.setReadable(false);
    far.send(bytes(1), 1, null, 0, null);
    await turns();
    expect(seen).toHaveLength(2);
    watcher.setReadable(true);
    await until(() => seen.length > 2);
    watcher.close();
    expect(() => {
      watcher.setWritable(true);
    }).toThrow(coded('ERR_VFIO_USER_CLOSED'));
  });

  test('a watcher that spins looks for more after each call, then falls asleep', async () => {
    let calls = 0;
    let asleep: Promise<boolean> | undefined;
    const watcher = near.watch(() => {
      calls++;
      near.receive(buffer, 0, 16);
      asleep = loopSleeps();
    });
    watcher.setSpin(500_000);
    far.send(bytes(1), 1, null, 0, null);
    await until(() => calls > 0);
    expect(await asleep).toBe(false);
    far.send(bytes(1), 1, null, 0, null);
    await until(() => calls > 1);
    // What is not to be watched is not looked for either.
    watcher.setReadable(false);
    far.send(bytes(1), 1, null, 0, null);
    await until(loopSleeps);
    expect(calls).toBe(2);
    watcher.setReadable(true);
    await until(() => calls > 2);
    watcher.setSpin(0);
    await until(loopSleeps);
    watcher.close();
  });

  test('a watcher that spins tells the end of the stream, and may be closed by its handler', async () => {
    const watcher = near.watch(() => {
      if (near.receive(buffer, 0, 16) < 0) watcher.close();
    });
    watcher.setSpin(Infinity);
    await turns(1);
    expect(await loopSleeps()).toBe(false);
    far.close();
    await until(() => watcher.closed);
    await until(loopSleeps);
  });

  test('a reset connection is told for as long as the handler does not close', async () => {
    // EPOLLERR, at which libuv stops watching: data that came before the reset must still arrive in pieces.
    far.send(bytes(1, 2, 3), 3, null, 0, null);
    near.send(bytes(1), 1, null, 0, null);
    far.close();
    const got: number[] = [];
    let end: unknown;
    const watcher = near.watch(() => {
      try {
        if (near.receive(buffer, 0, 1) < 0) watcher.close();
        else got.push(buffer[0] as number);
      } catch (error) {
        end = error;
        watcher.close();
      }
    });
    await until(() => watcher.closed);
    expect(got).toEqual([1, 2, 3]);
    expect(end).toEqual(errno('ECONNRESET'));
  });
});

describe('ListeningSocket', () => {
  const path = join(directory, 'cntrl');

  test('accepts clients, and removes its file', () => {
    const listener = ListeningSocket.listen(path, { mode: 0o600 });
    expect(lstatSync(path).mode & 0o777).toBe(0o600);
    expect(listener.accept()).toBeNull();
    using client = Socket.connect(path);
    using server = listener.accept();
    client.send(bytes(7), 1, null, 0, null);
    const buffer = new Uint8Array(4);
    expect(server?.receive(buffer, 0, 4)).toBe(1);
    listener.close();
    listener.close();
    expect(existsSync(path)).toBe(false);
    expect(() => listener.accept()).toThrow(coded('ERR_VFIO_USER_CLOSED'));
  });

  test('a full backlog is EAGAIN for the client', () => {
    using listener = ListeningSocket.listen(path, { backlog: 0 });
    using client = Socket.connect(path);
    expect(() => Socket.connect(path)).toThrow(errno('EAGAIN'));
    expect(client.closed || listener.closed).toBe(false);
  });

  test('abstract names, by @ or NUL', () => {
    using listener = ListeningSocket.listen('@vfio-user-test-abstract');
    using client = Socket.connect('\0vfio-user-test-abstract');
    using server = listener.accept();
    expect(server?.peerCredentials().pid).toBe(client.peerCredentials().pid);
    expect(() => ListeningSocket.listen('@vfio-user-test-abstract')).toThrow(errno('EADDRINUSE'));
  });

  test('replaces the file of a server that died', () => {
    execFileSync('python3', [
      '-c',
      `import socket; socket.socket(socket.AF_UNIX).bind(${JSON.stringify(path)})`,
    ]);
    expect(() => Socket.connect(path)).toThrow(errno('ECONNREFUSED'));
    using listener = ListeningSocket.listen(path);
    using client = Socket.connect(path);
    expect(client.closed || listener.closed).toBe(false);
  });

  test('a live server stays, and so does what is no socket', () => {
    using listener = ListeningSocket.listen(path, { backlog: 0 });
    expect(() => ListeningSocket.listen(path)).toThrow(errno('EADDRINUSE'));
    expect(existsSync(path)).toBe(true);
    expect(listener.closed).toBe(false);
    const file = join(directory, 'file');
    writeFileSync(file, 'precious');
    expect(() => ListeningSocket.listen(file)).toThrow(errno('EADDRINUSE'));
    expect(existsSync(file)).toBe(true);
  });

  test('does not remove a file that replaced its own', () => {
    const listener = ListeningSocket.listen(path);
    rmSync(path);
    writeFileSync(path, 'of another');
    listener.close();
    expect(existsSync(path)).toBe(true);
    rmSync(path);
  });

  test('watch tells of clients', async () => {
    using listener = ListeningSocket.listen(path);
    const accepted: (Socket | null)[] = [];
    const watcher = listener.watch(() => accepted.push(listener.accept()));
    using client = Socket.connect(path);
    await until(() => accepted.length > 0);
    expect(accepted[0]?.closed).toBe(false);
    expect(client.closed).toBe(false);
    accepted[0]?.close();
    watcher.close();
  });

  test.each(['', 'x'.repeat(108), 'ä'.repeat(54), 'a\0b'])('path %p is refused', (bad) => {
    expect(() => Socket.connect(bad)).toThrow(coded('ERR_INVALID_ARG_VALUE'));
    expect(() => ListeningSocket.listen(bad)).toThrow(coded('ERR_INVALID_ARG_VALUE'));
  });

  test('a path of 107 bytes works', () => {
    const longest = join(directory, 'x'.repeat(107 - Buffer.byteLength(directory) - 1));
    expect(Buffer.byteLength(longest)).toBe(107);
    using listener = ListeningSocket.listen(longest);
    using client = Socket.connect(longest);
    expect(client.closed || listener.closed).toBe(false);
  });

  test('connect tells what is missing', () => {
    expect(() => Socket.connect(join(directory, 'none'))).toThrow(errno('ENOENT'));
    expect(() => Socket.connect('@vfio-user-test-none')).toThrow(errno('ECONNREFUSED'));
    expect(() => ListeningSocket.listen(join(directory, 'none', 'cntrl'))).toThrow(errno('ENOENT'));
  });
});
