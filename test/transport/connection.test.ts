// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { VfioUserError } from '../../lib/errors';
import { closeFd, createSharedMemory, fileSize } from '../../lib/native';
import { CommandError, type CommandReply, type Connection, type IncomingCommand } from '../../lib/transport';
import { connected, gate, message, openFds, turns, until, warmUp, type Peer } from './support';

const READ = 9;
const WRITE = 10;
const GET_REGION_INFO = 5;
let connection: Connection;
let peer: Peer;
let ended: (VfioUserError | null)[];
let fdsBefore: number;
beforeAll(warmUp);

function open(options: Parameters<typeof connected>[0] = {}): void {
  ended = [];
  ({ connection, peer } = connected({ onClose: (error) => void ended.push(error), ...options }));
}

beforeEach(() => {
  fdsBefore = openFds();
});
afterEach(() => {
  connection.close();
  peer.socket.close();
  expect(ended.length).toBe(1);
  expect(openFds()).toBe(fdsBefore);
});

const read = (tag: number, more = {}, signal?: AbortSignal): ReturnType<Connection['request']> =>
  connection.request({ command: READ, payload: Uint8Array.of(tag), ...more }, signal);
/** The peer blocks the thread for what it takes, so that what was gathered has to be sent first. */
const endOfTurn = (): Promise<void> => Promise.resolve();
const failing = (code: string): object => ({ code });

describe('request', () => {
  test('many in flight, answered in any order', async () => {
    open();
    await fc.assert(
      fc.asyncProperty(fc.shuffledSubarray([...Array(40).keys()], { minLength: 40 }), async (order) => {
        const replies = order.map((_, tag) => read(tag));
        expect(connection.inFlight).toBe(40);
        await endOfTurn();
        const requests = order.map(() => peer.take());
        expect(requests.map(({ payload }) => payload[0])).toEqual([...Array(40).keys()]);
        expect(new Set(requests.map(({ id }) => id)).size).toBe(40);
        for (const i of order) peer.reply(requests[i] ?? { id: 0, command: 0 }, Uint8Array.of(i, 1));
        expect((await Promise.all(replies)).map(({ payload }) => payload[0])).toEqual([...Array(40).keys()]);
        expect(connection.inFlight).toBe(0);
      }),
      { numRuns: 20 },
    );
  });

  test('error replies: with an errno, without, and without the reply type', async () => {
    open();
    for (const [flags, errno, errnoName] of [
      [0x21, 22, 'EINVAL'],
      [0x21, 0, 'no errno'],
      [0x20, 95, 'EOPNOTSUPP'],
      [0x21, 0xffffffff, 'errno 4294967295'],
    ] as const) {
      const result = read(1);
      peer.reply(peer.take(), undefined, flags, errno);
      const error: unknown = await result.catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code: 'ERR_VFIO_USER_REMOTE', errno, command: 'REGION_READ' });
      if (errnoName !== 'EOPNOTSUPP') expect((error as VfioUserError).errnoName).toBe(errnoName);
    }
  });

  test('a reply to another command, and one that is too large, fail only their request', async () => {
    open();
    const wrong = read(1);
    const large = read(2, { maxReply: 4 });
    const right = read(3, { maxReply: 4 });
    await endOfTurn();
    const [first, second, third] = [peer.take(), peer.take(), peer.take()];
    peer.reply({ ...first, command: WRITE });
    peer.reply(second, new Uint8Array(5));
    peer.reply(third, new Uint8Array(4));
    await expect(wrong).rejects.toMatchObject(failing('ERR_VFIO_USER_PROTOCOL'));
    await expect(large).rejects.toMatchObject(failing('ERR_VFIO_USER_PROTOCOL'));
    expect((await right).payload.length).toBe(4);
  });

  test('duplicate and unexpected replies are counted, their descriptors closed', async () => {
    open();
    const fd = createSharedMemory(4096);
    const result = read(1);
    const request = peer.take();
    peer.reply(request);
    peer.send(message(READ, undefined, { id: request.id, flags: 1 }), [fd, fd]);
    peer.send(message(READ, undefined, { id: 4711, flags: 1 }), [fd]);
    closeFd(fd);
    await result;
    await until(() => connection.statistics.unexpectedReplies === 2);
    expect(connection.statistics).toEqual({
      messagesSent: 1,
      messagesReceived: 3,
      lateReplies: 0,
      unexpectedReplies: 2,
    });
  });

  test('a time-out; the late reply is counted, and the id is not used before', async () => {
    open();
    await expect(read(1, { timeout: 20 })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_TIMEOUT',
      command: 'REGION_READ',
    });
    const late = peer.take();
    // Every id once: posted messages take the next free one.
    const reused = (): boolean => {
      const ids = new Set<number>();
      const bytes = Buffer.alloc(128 * 16);
      for (let i = 0; i < 0x10000 / 128; i++) {
        for (let k = 0; k < 128; k++) connection.post(WRITE, new Uint8Array(0));
        for (let have = 0; have < bytes.length;)
          have += peer.socket.receive(bytes, have, bytes.length - have, 0, 1000);
        for (let k = 0; k < 128; k++) ids.add(bytes.readUInt16LE(16 * k));
      }
      return ids.has(late.id);
    };
    expect(reused()).toBe(false);
    peer.reply(late);
    await until(() => connection.statistics.lateReplies === 1);
    expect(reused()).toBe(true);
  });

  test('an abort signal, before and during', async () => {
    open();
    const reason = new Error('no more');
    await expect(read(1, {}, AbortSignal.abort(reason))).rejects.toBe(reason);
    const controller = new AbortController();
    const result = read(2, {}, controller.signal);
    const request = peer.take();
    expect(request.payload).toEqual([2]);
    controller.abort(reason);
    await expect(result).rejects.toBe(reason);
    peer.reply(request);
    await until(() => connection.statistics.lateReplies === 1);
    // An abort after the reply changes nothing.
    const other = new AbortController();
    const answered = read(3, {}, other.signal);
    peer.reply(peer.take());
    await answered;
    other.abort();
    expect(connection.inFlight).toBe(0);
  });

  test('descriptors of a reply that may bring some are the caller’s', async () => {
    open();
    const fd = createSharedMemory(8192);
    const command = GET_REGION_INFO;
    const result = connection.request({ command, payload: new Uint8Array(8) });
    peer.send(message(command, undefined, { id: peer.take().id, flags: 1 }), [fd]);
    closeFd(fd);
    const { fds } = await result;
    const own = fds.take(0) ?? -1;
    expect(fileSize(own)).toBe(8192);
    expect([fds.take(0), fds.take(1)]).toEqual([undefined, undefined]);
    closeFd(own);
  });

  test('descriptors of a reply that brings none are closed', async () => {
    open();
    const fd = createSharedMemory(4096);
    const result = read(1);
    peer.send(message(READ, undefined, { id: peer.take().id, flags: 1 }), [fd, fd]);
    closeFd(fd);
    const { fds } = await result;
    expect([fds.length, fds.take(0)]).toEqual([2, undefined]);
  });
});

describe('the end', () => {
  test.each([0, 1, 16, 20])('a peer that closes after %i bytes of a message', async (length) => {
    open();
    const all = [read(1), read(2)];
    await endOfTurn();
    if (length > 0) peer.send(message(READ, new Uint8Array(8), { flags: 1 }).subarray(0, length));
    peer.drain();
    peer.socket.close();
    for (const result of all)
      await expect(result).rejects.toMatchObject({
        code: 'ERR_VFIO_USER_DISCONNECTED',
        command: 'REGION_READ',
      });
    await expect(read(3)).rejects.toMatchObject(failing('ERR_VFIO_USER_DISCONNECTED'));
    expect(() => connection.requestSync({ command: READ, payload: new Uint8Array(0) })).toThrow(
      'closed the connection',
    );
    expect(connection.error?.message.includes('in the middle of a message')).toBe(length > 0);
  });

  test('close() fails what is pending', async () => {
    open();
    const result = read(1);
    connection.close();
    connection.close();
    await expect(result).rejects.toMatchObject(failing('ERR_VFIO_USER_CLOSED'));
    await expect(read(2)).rejects.toMatchObject(failing('ERR_VFIO_USER_CLOSED'));
    expect(() => connection.post(WRITE, new Uint8Array(0))).toThrow('is closed');
    expect(ended).toEqual([null]);
  });

  test('bytes that are no message', async () => {
    open();
    const result = read(1);
    peer.send(message(READ, undefined, { flags: 3 }));
    await expect(result).rejects.toMatchObject(failing('ERR_VFIO_USER_PROTOCOL'));
    expect(connection.closed).toBe(true);
    expect(connection.error?.message).toMatch(
      new RegExp(`^${connection.name} broke the protocol: REGION_READ .*message type is 3`),
    );
  });
});

describe('commands of the peer', () => {
  const echo = ({ payload }: IncomingCommand): CommandReply => ({ payload });

  test('are answered, with an errno when refused, and not at all when posted', () => {
    const posts: number[] = [];
    open({
      onCommand: ({ command, payload, posted }) => {
        if (posted) posts.push(command);
        if (command === 1) return echo({ payload } as IncomingCommand);
        if (command === 2) throw new CommandError(28, 'full');
        if (command === 3) throw new TypeError('a defect');
        if (command === 4) throw new VfioUserError('ERR_VFIO_USER_PROTOCOL', 'does not decode');
        return undefined;
      },
    });
    for (const [command, flags] of [
      [1, 0],
      [5, 0x10],
      [2, 0],
      [3, 0],
      [2, 0x10],
      [4, 0],
    ] as const)
      peer.send(message(command, Uint8Array.of(7), { id: command, flags }));
    expect(() => connection.requestSync({ command: READ, payload: new Uint8Array(0), timeout: 20 })).toThrow(
      'within',
    );
    const head = Buffer.alloc(16);
    const errnos = [];
    expect(peer.take().command).toBe(READ);
    expect(peer.take()).toEqual({ id: 1, command: 1, flags: 1, payload: [7] });
    for (let i = 0; i < 3; i++) {
      expect(peer.socket.receive(head, 0, 16, 0, 1000)).toBe(16);
      errnos.push([head.readUInt16LE(2), head.readUInt32LE(8), head.readUInt32LE(12)]);
    }
    expect(errnos).toEqual([
      [2, 0x21, 28],
      [3, 0x21, 5],
      [4, 0x21, 22],
    ]);
    expect(peer.drain()).toBe(0);
    expect(posts).toEqual([5, 2]);
  });

  test('wait for a slow one, in order', async () => {
    const order: number[] = [];
    const slow = gate();
    open({
      onCommand: async ({ command }) => {
        order.push(command);
        if (command === 1) await slow.opened;
        order.push(-command);
        return undefined;
      },
    });
    for (const command of [1, 2, 3]) peer.send(message(command, undefined, { id: command }));
    await until(() => connection.statistics.messagesReceived === 3);
    await turns();
    expect(order).toEqual([1]);
    slow.open();
    await until(() => order.length === 6);
    expect(order).toEqual([1, -1, 2, -2, 3, -3]);
    expect([peer.take().id, peer.take().id, peer.take().id]).toEqual([1, 2, 3]);
  });

  test('may ask the peer something before they answer', async () => {
    open({ onCommand: async () => ({ payload: (await read(9)).payload }) });
    peer.send(message(WRITE, undefined, { id: 5 }));
    await until(() => connection.inFlight === 1);
    const question = peer.take();
    expect(question).toMatchObject({ command: READ, flags: 0, payload: [9] });
    peer.reply(question, Uint8Array.of(42));
    await until(() => connection.inFlight === 0);
    expect(peer.take()).toEqual({ id: 5, command: WRITE, flags: 1, payload: [42] });
  });

  test('are dropped with their descriptors when the connection ends behind a slow one', async () => {
    const fd = createSharedMemory(4096);
    const slow = gate();
    open({ onCommand: () => slow.opened.then(() => undefined) });
    for (let i = 0; i < 5; i++) peer.send(message(1), [fd, fd]);
    closeFd(fd);
    await until(() => connection.statistics.messagesReceived === 5);
    connection.close();
    slow.open();
    await turns();
    expect(connection.statistics.messagesSent).toBe(0);
  });

  test('descriptors of those that wait are bounded', async () => {
    const fd = createSharedMemory(4096);
    open({ onCommand: () => new Promise<undefined>(() => undefined) });
    peer.send(message(1));
    await until(() => connection.statistics.messagesReceived === 1);
    // One at a time: the kernel bounds the descriptors that are under way.
    for (let i = 0; i < 6 && !connection.closed; i++) {
      peer.send(message(2), new Array<number>(250).fill(fd));
      await until(() => connection.closed || connection.statistics.messagesReceived === i + 2);
    }
    closeFd(fd);
    expect(connection.error).toMatchObject(failing('ERR_VFIO_USER_PROTOCOL'));
    expect(connection.error?.message).toContain(
      `${connection.name} broke the protocol: the peer sent too much`,
    );
  });

  test('bytes of those that wait are bounded', async () => {
    open({ onCommand: () => new Promise<undefined>(() => undefined) });
    const bytes = message(2, new Uint8Array(1 << 20));
    for (let sent = 0; !connection.closed;) {
      // The end of one, or the next.
      const at = sent % bytes.length;
      const count = peer.socket.send(bytes, 0, bytes, at, null);
      sent += count;
      if (count === 0) await turns(1);
      expect(sent).toBeLessThan(70 << 20);
    }
    expect(connection.error).toMatchObject(failing('ERR_VFIO_USER_PROTOCOL'));
    expect(connection.statistics.messagesReceived).toBeGreaterThan(60);
  });
});

describe('a peer that does not read', () => {
  const data = new Uint8Array(1 << 20).fill(7);

  test('requests wait for their turn, keep their order and their deadlines', async () => {
    open();
    const order: number[] = [];
    // The fixed part may be reused at once, also of those that wait.
    const payload = new Uint8Array(1);
    const all = [...Array(10).keys()].map((tag) => {
      payload[0] = tag;
      return connection.request({ command: READ, payload, data }).then(() => order.push(tag));
    });
    payload[0] = 77;
    expect(connection.queuedBytes).toBeLessThan(6 << 20);
    const impatient = read(99, { timeout: 20 });
    const reason = new Error('no more');
    const controller = new AbortController();
    const aborted = read(98, {}, controller.signal);
    expect(connection.post(WRITE, Uint8Array.of(100))).toBe(false);
    controller.abort(reason);
    await expect(aborted).rejects.toBe(reason);
    await expect(impatient).rejects.toMatchObject(failing('ERR_VFIO_USER_TIMEOUT'));
    let drained = false;
    void connection.drained().then(() => {
      drained = true;
    });
    await turns();
    expect(drained).toBe(false);

    const received: number[] = [];
    const buffer = new Uint8Array(1 << 20);
    let rest = 0;
    let head = Buffer.alloc(0);
    while (received.length < 11) {
      const count = peer.socket.receive(
        buffer,
        0,
        rest > 0 ? Math.min(rest, buffer.length) : 17 - head.length,
      );
      if (count <= 0) {
        await turns(1);
        continue;
      }
      if (rest > 0) {
        rest -= count;
        continue;
      }
      head = Buffer.concat([head, buffer.subarray(0, count)]);
      if (head.length < 17) continue;
      received.push(head[16] ?? -1);
      rest = head.readUInt32LE(4) - 17;
      if (head.readUInt16LE(2) === READ) peer.reply({ id: head.readUInt16LE(0), command: READ });
      head = Buffer.alloc(0);
    }
    await Promise.all(all);
    // What was given up while it waited never left.
    expect(received).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100]);
    expect(order).toEqual([...Array(10).keys()]);
    expect(drained).toBe(true);
  });

  test('reading pauses while too many replies wait', async () => {
    open({ onCommand: () => ({ payload: new Uint8Array(0), data }) });
    const command = message(READ);
    for (let i = 0; i < 100; i++) peer.send(command);
    await turns();
    expect(connection.statistics.messagesReceived).toBeLessThan(10);
    expect(connection.queuedBytes).toBeLessThan(6 << 20);
    let bytes = 0;
    await until(() => (bytes += peer.drain()) === 100 * (16 + data.length));
    expect(connection.statistics.messagesReceived).toBe(100);
  });

  test('queued descriptors survive their closing by the caller', async () => {
    open();
    const fd = createSharedMemory(12288);
    connection.post(WRITE, new Uint8Array(0), data);
    expect(connection.queuedBytes).toBeGreaterThan(0);
    const result = read(1, { fds: [fd] });
    closeFd(fd);
    let bytes = 0;
    await until(() => (bytes += peer.drain()) === data.length + 16 + 17);
    const fds = peer.socket.takeFds();
    expect(fds.map(fileSize)).toEqual([12288]);
    fds.forEach(closeFd);
    connection.close();
    await expect(result).rejects.toMatchObject(failing('ERR_VFIO_USER_CLOSED'));
  });

  test('queued descriptors are closed with the connection', () => {
    open();
    const fd = createSharedMemory(12288);
    connection.post(WRITE, new Uint8Array(0), data);
    read(1, { fds: [fd, fd] }).catch(() => undefined);
    closeFd(fd);
    connection.close();
  });

  test('the synchronous form keeps its deadline', () => {
    open();
    for (let i = 0; i < 6; i++) connection.post(WRITE, new Uint8Array(0), data);
    const start = performance.now();
    expect(() => connection.requestSync({ command: READ, payload: new Uint8Array(0), timeout: 50 })).toThrow(
      expect.objectContaining({ code: 'ERR_VFIO_USER_TIMEOUT' }) as Error,
    );
    const elapsed = performance.now() - start;
    expect(elapsed).toBeGreaterThanOrEqual(49);
    expect(elapsed).toBeLessThan(2000);
  });
});
