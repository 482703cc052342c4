// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../lib/errors';
import { Outgoing } from '../../lib/transport/outgoing';
import { Requests } from '../../lib/transport/requests';
import type { Connection } from '../../lib/transport';
import { connected, message, openFds, until, warmUp, type Peer } from './support';

const READ = 9;
const WRITE = 10;
const EMPTY = new Uint8Array(0);
const BULK = new Uint8Array(1 << 20);

let connection: Connection;
let peer: Peer;
let before = 0;

beforeAll(warmUp);
beforeEach(() => {
  before = openFds();
});
afterEach(() => {
  connection.close();
  peer.socket.close();
  expect(openFds()).toBe(before);
});

/** Commands and first payload bytes of what arrives, once `count` messages have. */
async function arrivals(count: number): Promise<[number, number][]> {
  const seen: [number, number][] = [];
  let bytes = Buffer.alloc(0);
  const buffer = new Uint8Array(1 << 20);
  await until(() => {
    const got = peer.socket.receive(buffer, 0, buffer.length);
    if (got > 0) bytes = Buffer.concat([bytes, buffer.subarray(0, got)]);
    while (bytes.length >= 17 && bytes.length >= bytes.readUInt32LE(4)) {
      seen.push([bytes.readUInt16LE(2), bytes[16] ?? -1]);
      bytes = bytes.subarray(bytes.readUInt32LE(4));
    }
    return seen.length >= count;
  });
  return seen;
}

describe('a message that is held back', () => {
  const held: string[] = [];
  const hold = (tag: number): void => {
    connection.hold(() => {
      held.push(String(tag));
      connection.post(WRITE, Uint8Array.of(tag));
    });
  };
  beforeEach(() => {
    held.length = 0;
    ({ connection, peer } = connected());
    expect(connection.backlogged).toBe(false);
    connection.post(WRITE, Uint8Array.of(1), BULK);
    expect(connection.backlogged).toBe(true);
    expect(connection.full).toBe(false);
  });

  test('leaves when the socket has taken what waits', async () => {
    hold(2);
    expect(held).toEqual([]);
    expect(await arrivals(2)).toEqual([
      [WRITE, 1],
      [WRITE, 2],
    ]);
    expect(held).toEqual(['2']);
  });

  test('leaves before a request, a posted message, a reply, and the next one that is held', async () => {
    hold(2);
    connection.request({ command: READ, payload: Uint8Array.of(3) }).catch(() => undefined);
    hold(4);
    connection.post(WRITE, Uint8Array.of(5));
    hold(6);
    hold(7);
    peer.send(message(99));
    expect(await arrivals(7)).toEqual([
      [WRITE, 1],
      [WRITE, 2],
      [READ, 3],
      [WRITE, 4],
      [WRITE, 5],
      [WRITE, 6],
      [WRITE, 7],
    ]);
    expect(held).toEqual(['2', '4', '6', '7']);
  });

  test('is dropped with the connection', () => {
    hold(2);
    connection.close();
    expect(held).toEqual([]);
  });

  test('takes its turn behind what waits above the high-water mark', async () => {
    for (let tag = 2; tag < 8; tag++) connection.post(WRITE, Uint8Array.of(tag), BULK);
    expect(connection.full).toBe(true);
    hold(8);
    connection.post(WRITE, Uint8Array.of(9));
    const order = (await arrivals(9)).map(([, tag]) => tag);
    expect(order).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });
});

describe('waiting for room without the event loop', () => {
  test('a peer that does not read: a time-out', () => {
    ({ connection, peer } = connected({ messageTimeout: 50 }));
    for (let i = 0; i < 6; i++) connection.post(WRITE, EMPTY, BULK);
    expect(() => {
      connection.drainSync();
    }).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_TIMEOUT' }) as Error);
    expect(connection.closed).toBe(false);
  });

  test('at once when there is room, or the connection has ended', () => {
    ({ connection, peer } = connected());
    connection.drainSync();
    for (let i = 0; i < 6; i++) connection.post(WRITE, EMPTY, BULK);
    peer.socket.close();
    connection.drainSync();
    expect(connection.error).toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
  });
});

describe('a companion', () => {
  test('is served while the synchronous form waits, and closed with the connection', () => {
    ({ connection, peer } = connected());
    const twin = connected({ onCommand: ({ payload }) => ({ payload }) });
    connection.pairWith(twin.connection);
    twin.peer.send(message(11, Uint8Array.of(7), { id: 3 }));
    expect(() => connection.requestSync({ command: READ, payload: EMPTY, timeout: 20 })).toThrow(
      expect.objectContaining({ code: 'ERR_VFIO_USER_TIMEOUT' }) as Error,
    );
    expect(twin.peer.take()).toEqual({ id: 3, command: 11, flags: 1, payload: [7] });
    connection.close();
    expect(twin.connection.closed).toBe(true);
    twin.peer.socket.close();
  });
});

test('a connection can be ended with an error of ours, which pending requests get', async () => {
  let told: unknown;
  ({ connection, peer } = connected({ onClose: (error) => (told = error) }));
  const pending = connection.request({ command: READ, payload: EMPTY });
  const error = new VfioUserError('ERR_VFIO_USER_DISCONNECTED', 'its twin is gone');
  connection.close(error);
  await expect(pending).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED', cause: error });
  expect([told, connection.error]).toEqual([error, error]);
});

test('ids of posted messages are found also when all ids are in use', () => {
  ({ connection, peer } = connected());
  const dropped = new Outgoing(
    { send: (_head, headLength) => headLength },
    { name: 'nobody', watchWritable: () => undefined, failed: () => undefined },
  );
  const requests = new Requests('the peer', dropped, Infinity, 0);
  const submit = (): number =>
    requests.submit({ command: READ, payload: EMPTY }, { resolve: () => undefined, reject: () => undefined });
  for (let i = 0; i < 0x10000; i++) submit();
  expect(submit).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_TIMEOUT' }) as Error);
  // They go on where the last one was.
  expect([requests.freeId(), requests.freeId()]).toEqual([1, 2]);
});
