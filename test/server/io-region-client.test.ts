// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import fc from 'fast-check';
import { Socket } from '../../lib/native';
import { command, ended, response, send, useIoRegion } from './io-region-fixture';
import { access, openFds, turns, u32, until } from './support';

const io = useIoRegion();
const { t } = io;

describe('a client', () => {
  const lives = async (): Promise<void> => {
    expect(await t.raw.errnoOf(9, access(3, 0, 4))).toBe(0);
    const socket = await io.channel();
    send(socket, command(0, 0, 1, 2));
    expect(await response(socket)).toBe('12');
  };

  test.each([
    ['bytes that are no command', new Uint8Array(32).fill(0xee)],
    ['a command that does not exist', command(2, 0, 1, 0)],
    ['a width that does not exist', command(0, 4, 1, 0)],
    ['flags that do not exist', command(0, 0x20, 1, 0)],
    ['user data that were not given', command(0, 0, 4, 0)],
    ['user data beyond 2^53', command(0, 0, 0xffff_ffff_ffff_ffffn, 0)],
    ['user data of an ioeventfd', command(0, 0, 0, 0)],
    ['an offset at the end of the sub-region', command(0, 0, 1, 0x20)],
    ['an access over the end of the sub-region', command(1, 0x12, 1, 0x1e, 5)],
    ['an offset near 2^64', command(0, 2, 1, 0xffff_ffff_ffff_fffen)],
    ['another offset than that of the one register', command(1, 0, 3, 1, 5)],
  ])('that sends %s: its socket is closed, and that is all', async (_name, bytes) => {
    const socket = await io.channel();
    send(socket, bytes);
    await ended(socket);
    expect(t.errors.splice(0)).toMatchObject([
      { error: { code: 'ERR_VFIO_USER_PROTOCOL' }, client: t.model.client },
    ]);
    expect(io.log).toEqual([]);
    await lives();
  });

  test('that sends descriptors', async () => {
    const socket = await io.channel();
    const before = openFds();
    const bytes = command(0, 0, 1, 0);
    expect(socket.send(bytes, bytes.length, null, 0, [io.events.fd, io.events.fd])).toBe(32);
    await ended(socket);
    // The server's end, and the watcher's.
    expect(openFds()).toBe(before - 2);
    expect(t.errors).toMatchObject([{ error: { code: 'ERR_VFIO_USER_PROTOCOL' } }]);
  });

  test('that leaves in the middle of a command, or of a handler', async () => {
    const half = await io.channel();
    send(half, command(0, 0, 1, 0).subarray(0, 17));
    await turns();
    half.close();
    io.hold();
    const slow = await io.channel();
    send(slow, command(0, 0, 1, 0));
    await until(() => io.log.length === 1);
    slow.close();
    await turns();
    io.release();
    await lives();
    expect(t.errors).toEqual([]);
  });

  test('that asks when the socket cannot be watched is refused, and nothing stays open', async () => {
    const before = openFds();
    jest.spyOn(Socket.prototype, 'watch').mockImplementationOnce(() => {
      throw new Error('no descriptor is left');
    });
    expect((await io.ask()).errno).toBe(constants.errno.EIO);
    expect(openFds()).toBe(before);
    await lives();
  });

  test('that asks again gets another socket; the first is closed', async () => {
    const before = openFds();
    const first = await io.channel();
    for (let round = 0; round < 50; round++) await io.channel();
    await ended(first);
    for (const socket of io.sockets) socket.close();
    await lives();
    for (const socket of io.sockets) socket.close();
    await until(() => openFds() === before);
  });

  test('whose room is too small gets none', async () => {
    const before = openFds();
    const reply = await io.ask(16);
    expect([reply.payload.length, reply.fds]).toEqual([16, []]);
    expect(openFds()).toBe(before);
  });

  test('that does not read its responses is not read from any more', async () => {
    io.declare({ read: (offset) => void io.log.push(`read ${offset}`), concurrent: true });
    const socket = await io.channel();
    const bytes = command(0, 0, 1, 0);
    let sent = 0;
    let taken = bytes.length;
    for (let idle = 0; idle < 20;) {
      taken = socket.send(new Uint8Array(0), 0, bytes, sent % 32, null);
      sent += taken;
      if (taken > 0) idle = 0;
      else {
        idle++;
        await turns(1);
      }
    }
    // What both directions of the socket take, and one response that waits.
    const answered = io.log.length;
    await turns();
    expect(io.log.length).toBe(answered);
    expect(sent / 32).toBeGreaterThan(answered);
    expect(await t.raw.errnoOf(9, access(0, 0, 4))).toBe(0);
    const buffer = new Uint8Array(1 << 16);
    let got = 0;
    await until(
      () => (got += Math.max(0, socket.receive(buffer, 0, buffer.length))) === Math.floor(sent / 32) * 32,
    );
    expect(io.log.length).toBe(Math.floor(sent / 32));
  });

  test('that floods with posted writes is served beside others', async () => {
    const socket = await io.channel();
    const bytes = command(1, 2, 2, 0, 1);
    let sent = 0;
    const all = 5000 * 32;
    const flood = until(() => {
      while (sent < all) {
        const taken = socket.send(new Uint8Array(0), 0, bytes, sent % 32, null);
        if (taken === 0) break;
        sent += taken;
      }
      return sent === all;
    });
    while (sent < all) expect(await t.raw.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
    await flood;
    await until(() => io.log.length === 5000);
  });

  test('that sends any bytes', async () => {
    const anyCommand = fc
      .record({
        cmd: fc.nat({ max: 2 }),
        flags: fc.constantFrom(0, 1, 2, 3, 0x10, 0x12, 0x13, 4, 0x20),
        userData: fc.constantFrom(0, 1, 2, 3, 4, 1n << 60n),
        offset: fc.oneof(fc.nat({ max: 0x28 }), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })),
      })
      .map(({ cmd, flags, userData, offset }) => command(cmd, flags, userData, offset, 7));
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.oneof(anyCommand, anyCommand, fc.uint8Array({ minLength: 1, maxLength: 70 })), {
          maxLength: 8,
        }),
        async (parts) => {
          const socket = await io.channel();
          try {
            for (const part of parts) send(socket, part);
          } catch {
            // EPIPE: it was closed.
          }
          await turns(5);
          socket.close();
          expect(await t.raw.errnoOf(9, access(3, 0, 4))).toBe(0);
        },
      ),
      { numRuns: 60 },
    );
    expect(t.errors).not.toEqual([]);
    for (const { error } of t.errors) expect(error).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
    io.memory[0x12] = 0x12;
    await lives();
  });
});
