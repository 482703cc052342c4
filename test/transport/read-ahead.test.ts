// SPDX-License-Identifier: MIT
/** Several messages in one read, and several requests in one sendmsg. */
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { Socket, closeFd, createSharedMemory, fileSize } from '../../lib/native';
import type { Connection } from '../../lib/transport';
import { Incoming } from '../../lib/transport/incoming';
import { Outgoing, type ByteSink, type OutgoingMessage } from '../../lib/transport/outgoing';
import { connected, message, openFds, until, warmUp, type Peer } from './support';

const GET_REGION_INFO = 5;
const READ = 9;

beforeAll(warmUp);

describe('a reader that reads ahead', () => {
  const pair = (): { near: Socket; far: Socket; reader: Incoming } => {
    const [near, far] = Socket.pair();
    const reader = new Incoming(far, 1 << 20);
    reader.readAhead = true;
    return { near, far, reader };
  };
  const payloads = (reader: Incoming): number[][] => {
    const all = [];
    for (let next; (next = reader.next()) !== null && next !== 'end';) all.push([...next.payload]);
    return all;
  };

  test('gives the same messages, over any split of the bytes, and when it is switched on and off', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ maxLength: 400 }), { minLength: 1, maxLength: 10 }),
        fc.array(fc.tuple(fc.integer({ min: 1, max: 700 }), fc.boolean()), { minLength: 1, maxLength: 10 }),
        (sent, steps) => {
          const { near, far, reader } = pair();
          const bytes = Buffer.concat(sent.map((payload) => message(READ, payload)));
          const got = [];
          for (let at = 0, step = 0; at < bytes.length; step++) {
            const [size, ahead] = steps[step % steps.length]!;
            const piece = bytes.subarray(at, at + size);
            expect(near.send(piece, piece.length, null, 0, null)).toBe(piece.length);
            at += piece.length;
            reader.readAhead = ahead;
            got.push(...payloads(reader));
          }
          expect(got).toEqual(sent.map((payload) => [...payload]));
          expect([reader.partial, reader.buffered]).toEqual([false, false]);
          near.close();
          far.close();
        },
      ),
    );
  });

  test('tells what it has read beyond a message', () => {
    const { near, far, reader } = pair();
    const bytes = Buffer.concat([
      message(READ, Uint8Array.of(1)),
      message(READ, Uint8Array.of(2)).subarray(0, 9),
    ]);
    near.send(bytes, bytes.length, null, 0, null);
    expect(reader.next()).toMatchObject({ payload: Uint8Array.of(1) });
    expect([reader.buffered, reader.partial]).toEqual([true, true]);
    expect(reader.next()).toBeNull();
    expect([reader.buffered, reader.partial]).toEqual([false, true]);
    near.close();
    far.close();
  });

  test('payloads do not share bytes', () => {
    const { near, far, reader } = pair();
    for (const tag of [1, 2]) near.send(message(READ, new Uint8Array(5).fill(tag)), 21, null, 0, null);
    const [first, second] = [reader.next(), reader.next()];
    if (first === null || first === 'end' || second === null || second === 'end')
      throw new Error('no message');
    first.payload.fill(9);
    expect([...second.payload]).toEqual([2, 2, 2, 2, 2]);
    near.close();
    far.close();
  });
});

describe('a connection that reads ahead', () => {
  let connection: Connection;
  let peer: Peer;
  let before = 0;
  let commands = 0;
  beforeEach(() => {
    before = openFds();
    commands = 0;
    ({ connection, peer } = connected({
      role: 'client',
      onCommand: () => {
        commands++;
        return undefined;
      },
    }));
  });
  afterEach(() => {
    connection.close();
    peer.socket.close();
    expect(openFds()).toBe(before);
  });
  const reply = (id: number, command: number, payload = Uint8Array.of(id)): Uint8Array =>
    message(command, payload, { id, flags: 1 });

  test('leaves descriptors with the reply that they belong to', async () => {
    const memory = createSharedMemory(8192);
    const read = connection.request({ command: READ, payload: new Uint8Array(0) });
    const info = connection.request({ command: GET_REGION_INFO, payload: new Uint8Array(0) });
    const other = connection.request({ command: READ, payload: new Uint8Array(0) });
    await Promise.resolve();
    const [first, second, third] = [peer.take(), peer.take(), peer.take()];
    // One sendmsg with two replies, of which the first brings the descriptor.
    peer.send(reply(first.id, READ));
    const both = Buffer.concat([reply(second.id, GET_REGION_INFO), reply(third.id, READ)]);
    peer.send(both, [memory]);
    expect((await read).fds.length).toBe(0);
    const { fds } = await info;
    const own = fds.take(0)!;
    expect(fileSize(own)).toBe(8192);
    expect((await other).fds.length).toBe(0);
    closeFd(own);
    closeFd(memory);
  });

  test('closes descriptors that nobody asked for', async () => {
    const memory = createSharedMemory(8192);
    const reads = [1, 2].map(() => connection.request({ command: READ, payload: new Uint8Array(0) }));
    await Promise.resolve();
    const [first, second] = [peer.take(), peer.take()];
    peer.send(reply(first.id, READ));
    peer.send(reply(second.id, READ), [memory]);
    for (const result of reads) expect((await result).fds.take(0)).toBeUndefined();
    closeFd(memory);
  });

  test('serves everything that it has read, also what is more than it takes at a time', async () => {
    const bytes = Buffer.concat(Array.from({ length: 900 }, () => message(99, undefined, { flags: 0x10 })));
    peer.send(bytes);
    await until(() => commands === 900);
    // Waiting without the event loop does the same.
    peer.send(bytes);
    peer.send(reply(1, READ));
    connection.requestSync({ command: READ, payload: new Uint8Array(0) }).fds.close();
    expect(commands).toBe(1800);
  });
});

describe('requests of one turn of the event loop', () => {
  let connection: Connection;
  let peer: Peer;
  beforeEach(() => {
    ({ connection, peer } = connected());
  });
  afterEach(() => {
    connection.close();
    peer.socket.close();
  });
  const read = (tag: number): void => {
    connection.request({ command: READ, payload: Uint8Array.of(tag) }).catch(() => undefined);
  };
  const arrived = (): (number | undefined)[] => {
    const tags = [];
    let size;
    while ((size = peer.socket.receive(buffer, 0, 17)) === 17) tags.push(buffer[16]);
    expect(size).toBe(0);
    return tags;
  };
  const buffer = new Uint8Array(17);

  test('the first leaves at once, the others together', async () => {
    for (const tag of [1, 2, 3]) read(tag);
    expect(arrived()).toEqual([1]);
    await turn();
    expect(arrived()).toEqual([2, 3]);
    read(4);
    expect(arrived()).toEqual([4]);
  });

  test('other messages do not overtake them', () => {
    for (const tag of [1, 2]) read(tag);
    connection.post(READ, Uint8Array.of(3));
    expect(arrived()).toEqual([1, 2, 3]);
    read(4);
    expect(() => connection.requestSync({ command: READ, payload: Uint8Array.of(5), timeout: 20 })).toThrow(
      expect.objectContaining({ code: 'ERR_VFIO_USER_TIMEOUT' }),
    );
    expect(arrived()).toEqual([4, 5]);
  });

  test('what was gathered fails with the connection', async () => {
    read(1);
    const late = connection.request({ command: READ, payload: Uint8Array.of(2) });
    peer.socket.close();
    await expect(late).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
  });
});

describe('gathering', () => {
  /** A socket that takes so many bytes. */
  function sink(room: number): { outgoing: Outgoing; sent: number[]; writable: () => boolean } {
    const sent: number[] = [];
    let watched = false;
    const socket: ByteSink = {
      send: (head, headLength, body, bodyOffset) => {
        const bytes = [...head.subarray(0, headLength), ...(body ?? []).slice(bodyOffset)].slice(0, room);
        room -= bytes.length;
        sent.push(...bytes);
        return bytes.length;
      },
    };
    const outgoing = new Outgoing(socket, {
      name: 'a sink',
      watchWritable: (on) => (watched = on),
      failed: (error) => {
        throw error;
      },
    });
    return { outgoing, sent, writable: () => watched };
  }
  const request = (size: number, data?: Uint8Array): OutgoingMessage => ({
    id: 1,
    command: READ,
    flags: 0,
    errno: 0,
    payload: new Uint8Array(size - 16),
    data,
  });
  const posted = (size: number): OutgoingMessage => ({ ...request(size), flags: 0x10 });

  test('keeps the order and counts what waits', () => {
    const { outgoing, sent, writable } = sink(60);
    outgoing.send(request(16));
    outgoing.send(request(20));
    outgoing.send(request(20));
    expect([sent.length, outgoing.bytes]).toEqual([16, 0]);
    outgoing.send(posted(30));
    // What was gathered comes first; the socket takes the first 4 bytes of the posted message.
    expect([sent.length, sent[56], outgoing.bytes, writable()]).toEqual([60, 1, 26, true]);
    // Nothing is gathered behind what waits.
    outgoing.send(request(24));
    expect(outgoing.bytes).toBe(50);
    outgoing.close();
    outgoing.release();
    expect([outgoing.bytes, sent.length]).toEqual([0, 60]);
  });

  test('sends when it is full, and takes nothing that is larger', () => {
    const { outgoing, sent } = sink(1 << 20);
    const large = new Uint8Array(10_000);
    outgoing.send(request(16));
    outgoing.send(request(16, large));
    expect(sent.length).toBe(16);
    outgoing.send(request(16, large));
    expect(sent.length).toBe(16 + 10_016);
    outgoing.send(request(16, new Uint8Array(20_000)));
    expect(sent.length).toBe(16 + 2 * 10_016 + 20_016);
    outgoing.release();
    expect(sent.length).toBe(16 + 2 * 10_016 + 20_016);
  });
});
