// SPDX-License-Identifier: MIT
import fc from 'fast-check';
import { type VfioUserError } from '../../lib/errors';
import { closeFd, createSharedMemory, fileSize } from '../../lib/native';
import { READ, WRITE, message, until, useConnection } from './support';

const GET_REGION_INFO = 5;
const t = useConnection();
/** The peer blocks the thread for what it takes, so that what was gathered has to be sent first. */
const endOfTurn = (): Promise<void> => Promise.resolve();
const failing = (code: string): object => ({ code });

describe('request', () => {
  test('many in flight, answered in any order', async () => {
    t.open();
    await fc.assert(
      fc.asyncProperty(fc.shuffledSubarray([...Array(40).keys()], { minLength: 40 }), async (order) => {
        const replies = order.map((_, tag) => t.read(tag));
        expect(t.connection.inFlight).toBe(40);
        await endOfTurn();
        const requests = order.map(() => t.peer.take());
        expect(requests.map(({ payload }) => payload[0])).toEqual([...Array(40).keys()]);
        expect(new Set(requests.map(({ id }) => id)).size).toBe(40);
        for (const i of order) t.peer.reply(requests[i] ?? { id: 0, command: 0 }, Uint8Array.of(i, 1));
        expect((await Promise.all(replies)).map(({ payload }) => payload[0])).toEqual([...Array(40).keys()]);
        expect(t.connection.inFlight).toBe(0);
      }),
      { numRuns: 20 },
    );
  });

  test('error replies: with an errno, without, and without the reply type', async () => {
    t.open();
    for (const [flags, errno, errnoName] of [
      [0x21, 22, 'EINVAL'],
      [0x21, 0, 'no errno'],
      [0x20, 95, 'EOPNOTSUPP'],
      [0x21, 0xffffffff, 'errno 4294967295'],
    ] as const) {
      const result = t.read(1);
      t.peer.reply(t.peer.take(), undefined, flags, errno);
      const error: unknown = await result.catch((reason: unknown) => reason);
      expect(error).toMatchObject({ code: 'ERR_VFIO_USER_REMOTE', errno, command: 'REGION_READ' });
      if (errnoName !== 'EOPNOTSUPP') expect((error as VfioUserError).errnoName).toBe(errnoName);
    }
  });

  test('a reply to another command, and one that is too large, fail only their request', async () => {
    t.open();
    const wrong = t.read(1);
    const large = t.read(2, { maxReply: 4 });
    const right = t.read(3, { maxReply: 4 });
    await endOfTurn();
    const [first, second, third] = [t.peer.take(), t.peer.take(), t.peer.take()];
    t.peer.reply({ ...first, command: WRITE });
    t.peer.reply(second, new Uint8Array(5));
    t.peer.reply(third, new Uint8Array(4));
    await expect(wrong).rejects.toMatchObject(failing('ERR_VFIO_USER_PROTOCOL'));
    await expect(large).rejects.toMatchObject(failing('ERR_VFIO_USER_PROTOCOL'));
    expect((await right).payload.length).toBe(4);
  });

  test('duplicate and unexpected replies are counted, their descriptors closed', async () => {
    t.open();
    const fd = createSharedMemory(4096);
    const result = t.read(1);
    const request = t.peer.take();
    t.peer.reply(request);
    t.peer.send(message(READ, undefined, { id: request.id, flags: 1 }), [fd, fd]);
    t.peer.send(message(READ, undefined, { id: 4711, flags: 1 }), [fd]);
    closeFd(fd);
    await result;
    await until(() => t.connection.statistics.unexpectedReplies === 2);
    expect(t.connection.statistics).toEqual({
      messagesSent: 1,
      messagesReceived: 3,
      lateReplies: 0,
      unexpectedReplies: 2,
    });
  });

  test('a time-out; the late reply is counted, and the id is not used before', async () => {
    t.open();
    await expect(t.read(1, { timeout: 20 })).rejects.toMatchObject({
      code: 'ERR_VFIO_USER_TIMEOUT',
      command: 'REGION_READ',
    });
    const late = t.peer.take();
    // Every id once: posted messages take the next free one.
    const reused = (): boolean => {
      const ids = new Set<number>();
      const bytes = Buffer.alloc(128 * 16);
      for (let i = 0; i < 0x10000 / 128; i++) {
        for (let k = 0; k < 128; k++) t.connection.post(WRITE, new Uint8Array(0));
        for (let have = 0; have < bytes.length;)
          have += t.peer.socket.receive(bytes, have, bytes.length - have, 0, 1000);
        for (let k = 0; k < 128; k++) ids.add(bytes.readUInt16LE(16 * k));
      }
      return ids.has(late.id);
    };
    expect(reused()).toBe(false);
    t.peer.reply(late);
    await until(() => t.connection.statistics.lateReplies === 1);
    expect(reused()).toBe(true);
  });

  test('an abort signal, before and during', async () => {
    t.open();
    const reason = new Error('no more');
    await expect(t.read(1, {}, AbortSignal.abort(reason))).rejects.toBe(reason);
    const controller = new AbortController();
    const result = t.read(2, {}, controller.signal);
    const request = t.peer.take();
    expect(request.payload).toEqual([2]);
    controller.abort(reason);
    await expect(result).rejects.toBe(reason);
    t.peer.reply(request);
    await until(() => t.connection.statistics.lateReplies === 1);
    // An abort after the reply changes nothing.
    const other = new AbortController();
    const answered = t.read(3, {}, other.signal);
    t.peer.reply(t.peer.take());
    await answered;
    other.abort();
    expect(t.connection.inFlight).toBe(0);
  });

  test('descriptors of a reply that may bring some are the caller’s', async () => {
    t.open();
    const fd = createSharedMemory(8192);
    const command = GET_REGION_INFO;
    const result = t.connection.request({ command, payload: new Uint8Array(8) });
    t.peer.send(message(command, undefined, { id: t.peer.take().id, flags: 1 }), [fd]);
    closeFd(fd);
    const { fds } = await result;
    const own = fds.take(0) ?? -1;
    expect(fileSize(own)).toBe(8192);
    expect([fds.take(0), fds.take(1)]).toEqual([undefined, undefined]);
    closeFd(own);
  });

  test('descriptors of a reply that brings none are closed', async () => {
    t.open();
    const fd = createSharedMemory(4096);
    const result = t.read(1);
    t.peer.send(message(READ, undefined, { id: t.peer.take().id, flags: 1 }), [fd, fd]);
    closeFd(fd);
    const { fds } = await result;
    expect([fds.length, fds.take(0)]).toEqual([2, undefined]);
  });
});

describe('the end', () => {
  test.each([0, 1, 16, 20])('a peer that closes after %i bytes of a message', async (length) => {
    t.open();
    const all = [t.read(1), t.read(2)];
    await endOfTurn();
    if (length > 0) t.peer.send(message(READ, new Uint8Array(8), { flags: 1 }).subarray(0, length));
    t.peer.drain();
    t.peer.socket.close();
    for (const result of all)
      await expect(result).rejects.toMatchObject({
        code: 'ERR_VFIO_USER_DISCONNECTED',
        command: 'REGION_READ',
      });
    await expect(t.read(3)).rejects.toMatchObject(failing('ERR_VFIO_USER_DISCONNECTED'));
    expect(() => t.connection.requestSync({ command: READ, payload: new Uint8Array(0) })).toThrow(
      'closed the connection',
    );
    expect(t.connection.error?.message.includes('in the middle of a message')).toBe(length > 0);
  });

  test('close() fails what is pending', async () => {
    t.open();
    const result = t.read(1);
    t.connection.close();
    t.connection.close();
    await expect(result).rejects.toMatchObject(failing('ERR_VFIO_USER_CLOSED'));
    await expect(t.read(2)).rejects.toMatchObject(failing('ERR_VFIO_USER_CLOSED'));
    expect(() => t.connection.post(WRITE, new Uint8Array(0))).toThrow('is closed');
    expect(t.ended).toEqual([null]);
  });

  test('bytes that are no message', async () => {
    t.open();
    const result = t.read(1);
    t.peer.send(message(READ, undefined, { flags: 3 }));
    await expect(result).rejects.toMatchObject(failing('ERR_VFIO_USER_PROTOCOL'));
    expect(t.connection.closed).toBe(true);
    expect(t.connection.error?.message).toMatch(
      new RegExp(`^${t.connection.name} broke the protocol: REGION_READ .*message type is 3`),
    );
  });
});
