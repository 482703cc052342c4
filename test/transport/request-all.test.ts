// SPDX-License-Identifier: MIT
import type { Connection } from '../../lib/transport';
import { connected, until, type Peer, type Seen } from './support';

const COMMAND = 5;
const opened: { connection: Connection; peer: Peer }[] = [];

function open(): { connection: Connection; peer: Peer } {
  const pair = connected();
  opened.push(pair);
  return pair;
}
afterEach(() => {
  for (const { connection, peer } of opened.splice(0)) {
    connection.close();
    peer.socket.close();
  }
});

/** A request that tells its number. */
const numbered = (number: number): { command: number; payload: Uint8Array } => ({
  command: COMMAND,
  payload: Uint8Array.of(number & 0xff, number >> 8),
});

/** Takes the next requests, once so many have been sent in all. */
async function arrived(connection: Connection, peer: Peer, count: number, sent: number): Promise<Seen[]> {
  await until(() => connection.statistics.messagesSent === sent);
  // What was gathered leaves at the end of the turn.
  await new Promise(setImmediate);
  return Array.from({ length: count }, () => peer.take());
}

const numberOf = ({ payload: [low = 0, high = 0] }: Seen): number => low + (high << 8);

test('requests leave in order, at most 256 before the first reply', async () => {
  const { connection, peer } = open();
  const all = connection.requestAll(600, numbered);
  const order: number[] = [];
  for (const count of [256, 256, 88]) {
    const seen = await arrived(connection, peer, count, order.length + count);
    expect(connection.inFlight).toBe(count);
    order.push(...seen.map(numberOf));
    for (const request of seen) peer.reply(request, Uint8Array.from(request.payload));
  }
  const results = await all;
  expect(order).toEqual(Array.from({ length: 600 }, (_, index) => index));
  expect(results.map((result) => (result.status === 'fulfilled' ? [...result.value.payload] : null))).toEqual(
    order.map((number) => [number & 0xff, number >> 8]),
  );
});

test('connections share the window, and take turns', async () => {
  const [first, second] = [open(), open()];
  const all = [first, second].map(({ connection }) => connection.requestAll(1000, numbered));
  expect([first.connection.inFlight, second.connection.inFlight]).toEqual([256, 0]);
  const seen = await arrived(first.connection, first.peer, 256, 256);
  for (const request of seen.slice(0, 100)) first.peer.reply(request);
  await until(() => first.connection.statistics.messagesReceived === 100);
  expect([first.connection.inFlight, second.connection.inFlight]).toEqual([206, 50]);
  for (const { connection } of [first, second]) connection.close();
  const results = await Promise.all(all);
  expect(results.map((one) => one.filter(({ status }) => status === 'rejected').length)).toEqual([900, 1000]);
});

test('the requests of a second call leave behind those of the first', async () => {
  const { connection, peer } = open();
  const all = [
    connection.requestAll(300, numbered),
    connection.requestAll(2, (index) => numbered(1000 + index)),
  ];
  const first = await arrived(connection, peer, 256, 256);
  for (const request of first) peer.reply(request);
  const last = await arrived(connection, peer, 46, 302);
  for (const request of last) peer.reply(request);
  expect(last.map(numberOf).slice(-3)).toEqual([299, 1000, 1001]);
  expect((await Promise.all(all)).flat().every(({ status }) => status === 'fulfilled')).toBe(true);
});

test('each failure is told in its place', async () => {
  const { connection, peer } = open();
  const refused = new Error('no such request');
  const all = connection.requestAll(4, (index) => {
    if (index === 2) throw refused;
    return numbered(index);
  });
  const seen = await arrived(connection, peer, 3, 3);
  for (const request of seen) peer.reply(request, undefined, ...(numberOf(request) === 1 ? [0x21, 16] : []));
  expect(await all).toMatchObject([
    { status: 'fulfilled' },
    { status: 'rejected', reason: { code: 'ERR_VFIO_USER_REMOTE', errnoName: 'EBUSY' } },
    { status: 'rejected', reason: refused },
    { status: 'fulfilled' },
  ]);
});

test('a payload may be reused for the next request, also when the socket takes no more', async () => {
  const { connection, peer } = open();
  connection.post(COMMAND, new Uint8Array(0), new Uint8Array(5 << 20));
  expect(connection.full).toBe(true);
  const payload = new Uint8Array(2);
  const all = connection.requestAll(3, (index) => {
    payload[0] = index;
    return { command: COMMAND, payload };
  });
  const seen: number[] = [];
  let bytes = Buffer.alloc(0);
  const buffer = new Uint8Array(1 << 20);
  await until(() => {
    for (let got; (got = peer.socket.receive(buffer, 0, buffer.length)) > 0;)
      bytes = Buffer.concat([bytes, buffer.subarray(0, got)]);
    while (bytes.length >= 16 && bytes.length >= bytes.readUInt32LE(4)) {
      const size = bytes.readUInt32LE(4);
      if (size === 18) seen.push(bytes[16]!);
      bytes = bytes.subarray(size);
    }
    return seen.length === 3;
  });
  expect(seen).toEqual([0, 1, 2]);
  connection.close();
  expect((await all).map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected']);
});

test('of nothing, and on a connection that is closed', async () => {
  const { connection } = open();
  expect(await connection.requestAll(0, numbered)).toEqual([]);
  connection.close();
  const results = await connection.requestAll(100_000, numbered);
  expect(results.length).toBe(100_000);
  expect(results[99_999]).toMatchObject({ status: 'rejected', reason: { code: 'ERR_VFIO_USER_CLOSED' } });
});
