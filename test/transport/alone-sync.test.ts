// SPDX-License-Identifier: MIT
/** The synchronous form while nothing else is under way. The peer has sent before it is asked: the first id is 1. */
import { closeFd, createSharedMemory } from '../../lib/native';
import type { Connection, IncomingCommand, Reply } from '../../lib/transport';
import { coded } from '../support/errors';
import { connected, message, openFds, until, warmUp, type Peer } from './support';

const GET_REGION_INFO = 5;
const READ = 9;
const DMA_READ = 11;
const REPLY = 1;
const MINUTE = 60_000;

beforeAll(warmUp);

describe.each(['client', 'server'] as const)('as the %s', (role) => {
  let connection: Connection;
  let peer: Peer;
  const served: IncomingCommand[] = [];

  beforeEach(() => {
    served.length = 0;
    ({ connection, peer } = connected({
      role,
      messageTimeout: MINUTE,
      onCommand: (command) => {
        served.push(command);
        return { payload: Uint8Array.of(42) };
      },
    }));
  });
  afterEach(() => {
    connection.close();
    peer.socket.close();
  });

  const ask = (command = READ, timeout = 1000): Reply =>
    connection.requestSync({ command, payload: Uint8Array.of(7), timeout, maxReply: 100 });
  const reply = (id: number, payload = Uint8Array.of(1, 2), flags = REPLY, errno = 0): Uint8Array =>
    message(READ, payload, { id, flags, errno });

  test('the reply is returned, and nothing is left behind', () => {
    for (const id of [1, 2, 3]) {
      peer.send(reply(id));
      expect([...ask().payload]).toEqual([1, 2]);
      expect(peer.take()).toEqual({ id, command: READ, flags: 0, payload: [7] });
    }
    expect(connection.statistics).toEqual({
      messagesSent: 3,
      messagesReceived: 3,
      lateReplies: 0,
      unexpectedReplies: 0,
    });
    expect(connection.inFlight).toBe(0);
  });

  test('replies keep their bytes when others follow', () => {
    peer.send(reply(1, Uint8Array.of(1)));
    const first = ask();
    peer.send(reply(2, Uint8Array.of(2)));
    expect([...ask().payload, ...first.payload]).toEqual([2, 1]);
  });

  test.each([
    ['to another command', message(READ + 1, undefined, { id: 1, flags: REPLY }), 'ERR_VFIO_USER_PROTOCOL'],
    [
      'that is too large',
      message(READ, new Uint8Array(101), { id: 1, flags: REPLY }),
      'ERR_VFIO_USER_PROTOCOL',
    ],
    ['with an error', message(READ, undefined, { id: 1, flags: 0x21, errno: 22 }), 'ERR_VFIO_USER_REMOTE'],
  ])('a reply %s is told, and the connection lives on', (_, bytes, code) => {
    peer.send(bytes);
    expect(() => ask()).toThrow(coded(code));
    expect([connection.closed, connection.inFlight]).toEqual([false, 0]);
    peer.send(reply(2));
    expect(ask().payload.length).toBe(2);
  });

  test('a command of the peer that comes first is served', () => {
    peer.send(message(DMA_READ, Uint8Array.of(5), { id: 1 }));
    peer.send(reply(1));
    expect([...ask().payload]).toEqual([1, 2]);
    expect(served.map(({ command, payload }) => [command, ...payload])).toEqual([[DMA_READ, 5]]);
    expect(peer.take()).toMatchObject({ id: 1, command: READ, flags: 0 });
    expect(peer.take()).toEqual({ id: 1, command: DMA_READ, flags: REPLY, payload: [42] });
  });

  test('a command that was read together with the reply does not wait for another event', async () => {
    peer.send(Buffer.concat([reply(1), message(DMA_READ, Uint8Array.of(5), { id: 9 })]));
    expect(ask().payload.length).toBe(2);
    if (role === 'server') await until(() => served.length > 0);
    expect(served.length).toBe(1);
  });

  test('a reply that nobody waits for, and a late one, are dropped and counted', () => {
    const start = performance.now();
    expect(() => ask(READ, 1)).toThrow(coded('ERR_VFIO_USER_TIMEOUT'));
    // Not after the time-out of the connection.
    expect(performance.now() - start).toBeLessThan(MINUTE);
    expect(connection.inFlight).toBe(0);
    for (const id of [1, 500, 2]) peer.send(reply(id, Uint8Array.of(id & 0xff)));
    expect([...ask().payload]).toEqual([2]);
    expect(connection.statistics).toMatchObject({ lateReplies: 1, unexpectedReplies: 1 });
  });

  test.each([0, 1, 15, 16, 17])('a peer that closes after %d bytes of the reply ends the call', (bytes) => {
    if (bytes > 0) peer.send(reply(1).subarray(0, bytes));
    peer.socket.close();
    expect(() => ask()).toThrow(coded('ERR_VFIO_USER_DISCONNECTED'));
    expect([connection.closed, connection.inFlight]).toEqual([true, 0]);
    expect(() => ask()).toThrow(coded('ERR_VFIO_USER_DISCONNECTED'));
  });

  test('a header that cannot be ends the connection', () => {
    const bytes = reply(1);
    bytes[4] = 8;
    peer.send(bytes);
    expect(() => ask()).toThrow(coded('ERR_VFIO_USER_PROTOCOL'));
    expect(connection.closed).toBe(true);
  });

  test('descriptors belong to who asked, and those of a wrong reply are closed', () => {
    const memory = createSharedMemory(4096);
    const before = openFds();
    const info = (id: number, flags: number): void => {
      peer.send(message(GET_REGION_INFO, Uint8Array.of(id), { id, flags }), [memory, memory]);
    };
    info(1, REPLY);
    const { fds } = ask(GET_REGION_INFO);
    expect([fds.length, openFds()]).toEqual([2, before + 2]);
    fds.close();
    info(2, REPLY | 0x20);
    expect(() => ask(GET_REGION_INFO)).toThrow(coded('ERR_VFIO_USER_REMOTE'));
    expect(openFds()).toBe(before);
    closeFd(memory);
  });

  test.each([0, 100, 5000])('%d bytes of data follow the payload', (size) => {
    const data = Uint8Array.from({ length: size }, (_, index) => index);
    peer.send(reply(1));
    connection.requestSync({ command: READ, payload: Uint8Array.of(7), data });
    expect(peer.take()).toEqual({ id: 1, command: READ, flags: 0, payload: [7, ...data] });
  });

  test('a reply that is larger than what is read at once', () => {
    const payload = Uint8Array.from({ length: 40_000 }, (_, index) => index);
    peer.send(message(READ, payload, { id: 1, flags: REPLY }));
    const { payload: got } = connection.requestSync({ command: READ, payload: Uint8Array.of(7) });
    expect(Buffer.compare(got, payload)).toBe(0);
  });

  test('a request that the socket does not take, or not whole, is sent when there is room', async () => {
    const size = 3000;
    let taken = 0;
    // As many as the socket takes; the last may have been taken in part.
    while (connection.queuedBytes === 0) {
      connection.post(READ, new Uint8Array(size));
      taken++;
    }
    let bytes = 0;
    await until(() => (bytes += peer.drain()) === taken * (16 + size));
    for (let sent = 1; sent < taken; sent++) connection.post(READ, new Uint8Array(size));
    expect(connection.queuedBytes).toBe(0);

    expect(() =>
      connection.requestSync({ command: READ, payload: new Uint8Array(4000).fill(3), timeout: 5 }),
    ).toThrow(coded('ERR_VFIO_USER_TIMEOUT'));
    expect(connection.queuedBytes).toBeGreaterThan(0);
    for (let sent = 1; sent < taken; sent++) peer.take();
    await until(() => connection.queuedBytes === 0);
    expect(peer.take().payload).toEqual(Array.from({ length: 4000 }, () => 3));
  });

  test('what was gathered before, and given up, goes first', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const given = [1, 2].map((byte) =>
      connection.request({ command: READ, payload: Uint8Array.of(byte) }, signal),
    );
    controller.abort(new Error('given up'));
    peer.send(reply(3));
    expect(ask().payload.length).toBe(2);
    expect([peer.take(), peer.take(), peer.take()].map(({ payload }) => payload)).toEqual([[1], [2], [7]]);
    for (const each of given) await expect(each).rejects.toThrow('given up');
  });

  test('the same, when the peer has gone meanwhile', async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const given = [1, 2].map((byte) =>
      connection.request({ command: READ, payload: Uint8Array.of(byte) }, signal),
    );
    controller.abort(new Error('given up'));
    peer.socket.close();
    expect(() => ask()).toThrow(coded('ERR_VFIO_USER_DISCONNECTED'));
    expect(connection.closed).toBe(true);
    for (const each of given) await expect(each).rejects.toThrow('given up');
  });

  test('a reply in two parts is waited for', () => {
    const bytes = reply(1);
    peer.send(bytes.subarray(0, 10));
    expect(() => ask(READ, 5)).toThrow(coded('ERR_VFIO_USER_TIMEOUT'));
    peer.send(bytes.subarray(10));
    peer.send(reply(2));
    expect(ask().payload.length).toBe(2);
    expect(connection.statistics.lateReplies).toBe(1);
  });
});
