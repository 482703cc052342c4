// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import fc from 'fast-check';
import { connect, type IoRegionFd } from '../../lib/client';
import { EventFd, Socket, closeFd } from '../../lib/native';
import { CommandError, type ServedIoFd, type ServedRegion } from '../../lib/server';
import { useServer } from './fixture';
import {
  RawClient,
  access,
  gate,
  hex,
  join,
  message,
  openFds,
  turns,
  u32,
  u64,
  until,
  type RawReply,
} from './support';

/** What the region's handlers did, and what they return. */
let log: string[];
let memory: Uint8Array;
let held: ReturnType<typeof gate> | undefined;
let events: EventFd;
let sockets: Socket[];

// Before the one that counts descriptors.
afterEach(() => {
  for (const socket of sockets) socket.close();
  events.close();
});
const t = useServer();

const IO_FDS: readonly ServedIoFd[] = [
  { kind: 'ioregionfd', offset: 0x10, size: 0x20 },
  { kind: 'ioregionfd', offset: 0x40, size: 0x10, postedWrites: true },
  { kind: 'ioregionfd', offset: 0x60, size: 0, postedWrites: true },
];
const declare = (region: Partial<ServedRegion> = {}): void => {
  t.model.regions.set(3, {
    size: 0x100,
    ioFds: [{ kind: 'ioeventfd', offset: 0, size: 4, fd: events.fd }, ...IO_FDS],
    read: async (offset, data) => {
      log.push(`read ${data.length} at ${offset}`);
      await held?.opened;
      data.set(memory.subarray(offset, offset + data.length));
    },
    write: (offset, data, posted) => {
      log.push(`${posted ? 'post' : 'write'} ${data.length} at ${offset}`);
      memory.set(data, offset);
    },
    ...region,
  });
};
beforeEach(() => {
  log = [];
  memory = Uint8Array.from({ length: 0x100 }, (_, index) => index);
  held = undefined;
  events = EventFd.create();
  sockets = [];
  declare();
});
const close = (): void => {
  held = gate();
};
const open = (): void => {
  held?.open();
  held = undefined;
};

/** `struct vfio_user_region_io_fds_request`: argsz, flags, index, count. */
const ask = (argsz = 4096): Promise<RawReply> => t.raw.ask(message(6, u32(argsz, 0, 3, 0)));
/** The socket that a client gets. */
function socketOf(reply: RawReply): Socket {
  const [event, fd] = reply.fds as [number, number];
  closeFd(event);
  const socket = Socket.fromFd(fd);
  sockets.push(socket);
  return socket;
}
const channel = async (): Promise<Socket> => socketOf(await ask());
/**
 * `struct ioregionfd_cmd`: u8 cmd (0 read, 1 write), u8 size_exponent : 4 and resp : 1, 6 bytes of padding, u64 user_data,
 * offset, data.
 */
const command = (
  cmd: number,
  sizeAndFlags: number,
  userData: number | bigint,
  offset: number | bigint,
  data: number | bigint = 0,
): Uint8Array => join(Uint8Array.of(cmd, sizeAndFlags, 0, 0, 0, 0, 0, 0), u64(userData, offset, data));
const send = (socket: Socket, bytes: Uint8Array): void => {
  expect(socket.send(bytes, bytes.length, null, 0, null)).toBe(bytes.length);
};
async function response(socket: Socket): Promise<string> {
  const bytes = new Uint8Array(32);
  let have = 0;
  await until(() => {
    const count = socket.receive(bytes, have, 32 - have);
    if (count < 0) throw new Error('the server closed the socket');
    have += count;
    return have === 32;
  });
  // 24 bytes of padding, and the upper bytes of a narrow value, are 0.
  return Buffer.from(bytes)
    .toString('hex')
    .replace(/(00)+$/, '');
}
const ended = (socket: Socket): Promise<void> => new RawClient(socket).end();

test('one socket serves all ioregionfds of a region, told apart by user data', async () => {
  const reply = await ask();
  expect(reply.fds.length).toBe(2);
  // offset, size, fd_index, type 1, flags (2: KVM_IOREGION_POSTED_WRITES), padding, user_data
  const entry = (offset: number, size: number, flags: number, userData: number): Uint8Array =>
    join(u64(offset, size), u32(1, 1, flags, 0), u64(userData));
  expect(reply.payload).toEqual(
    join(
      u32(16 + 4 * 40, 0, 3, 4),
      join(u64(0, 4), u32(0, 0, 0, 0), u64(0)),
      entry(0x10, 0x20, 0, 1),
      entry(0x40, 0x10, 2, 2),
      entry(0x60, 0, 2, 3),
    ),
  );
  socketOf(reply);
});

test('reads, writes, and posted writes, byte by byte', async () => {
  const socket = await channel();
  send(socket, hex('0002000000000000 0100000000000000 0400000000000000 0000000000000000'));
  expect(await response(socket)).toBe('14151617');
  send(socket, hex('0113000000000000 0100000000000000 1800000000000000 8877665544332211'));
  expect(await response(socket)).toBe('');
  expect([...memory.subarray(0x28, 0x30)]).toEqual([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
  send(socket, hex('0003000000000000 0100000000000000 1800000000000000 0000000000000000'));
  expect(await response(socket)).toBe('8877665544332211');
  // Without the resp bit there is no response: the next one is that of the read. Bytes above the width do not count.
  send(
    socket,
    join(
      hex('0101000000000000 0200000000000000 0e00000000000000 bbaaffffffffffff'),
      hex('0001000000000000 0200000000000000 0e00000000000000 0000000000000000'),
    ),
  );
  expect(await response(socket)).toBe('bbaa');
  // Size 0: one register of any width.
  send(socket, join(command(1, 0, 3, 0, 0x7f), command(0, 3, 3, 0)));
  expect(await response(socket)).toBe('7f61626364656667');
  expect(log).toEqual([
    'read 4 at 20',
    'write 8 at 40',
    'read 8 at 40',
    'post 2 at 78',
    'read 2 at 78',
    'post 1 at 96',
    'read 8 at 96',
  ]);
});

test('commands in pieces, and several at once, while the handler is slow', async () => {
  const socket = await channel();
  const bytes = join(command(0, 0, 1, 0), command(0, 0, 1, 1), command(0, 0, 1, 2));
  close();
  for (const [from, to] of [
    [0, 1],
    [1, 31],
    [31, 70],
    [70, 96],
  ]) {
    send(socket, bytes.subarray(from, to));
    await turns();
  }
  expect(log).toEqual(['read 1 at 16']);
  open();
  expect([await response(socket), await response(socket), await response(socket)]).toEqual([
    '10',
    '11',
    '12',
  ]);
});

test('what the device refuses reads as all ones; a write that it refuses is answered as any other', async () => {
  const failure = new TypeError('a defect of the model');
  for (const [read, width, expected] of [
    [
      () => {
        throw new CommandError(6, 'not now');
      },
      0,
      'ff',
    ],
    [() => Promise.reject(failure), 3, 'ffffffffffffffff'],
  ] as const) {
    declare({ read });
    const socket = await channel();
    send(socket, command(0, width, 1, 0));
    expect(await response(socket)).toBe(expected);
    send(socket, command(0, 0, 1, 0));
    expect(await response(socket)).toBe('ff');
  }
  expect(t.errors.map(({ error }) => error)).toEqual([failure, failure]);
  t.model.regions.set(3, {
    size: 0x100,
    ioFds: t.model.regions.get(3)?.ioFds ?? [],
    write: () => Promise.reject(new CommandError(6, 'not now')),
  });
  const socket = await channel();
  send(socket, command(0, 2, 1, 0));
  expect(await response(socket)).toBe('ffffffff');
  send(socket, command(1, 0x10, 1, 0, 5));
  expect(await response(socket)).toBe('');
});

describe('among the messages of the client', () => {
  test('accesses of the region are done one at a time, other regions meanwhile', async () => {
    const socket = await channel();
    close();
    t.raw.send(message(9, access(3, 0x80, 4), 1));
    await until(() => log.length === 1);
    send(socket, command(0, 2, 1, 0));
    await turns();
    expect(log).toEqual(['read 4 at 128']);
    open();
    expect((await t.raw.receive()).id).toBe(1);
    expect(await response(socket)).toBe('10111213');
    close();
    send(socket, command(0, 2, 1, 4));
    await until(() => log.length === 3);
    t.raw.send(message(9, access(0, 0, 4), 2));
    t.raw.send(message(9, access(3, 0x84, 4), 3));
    t.raw.send(message(13, undefined, 4));
    expect((await t.raw.receive()).id).toBe(2);
    await turns();
    expect([log.length, t.model.log.includes('reset')]).toEqual([3, false]);
    open();
    expect(await response(socket)).toBe('14151617');
    expect([(await t.raw.receive()).id, (await t.raw.receive()).id]).toEqual([3, 4]);
  });

  test('reads overlap in a region that allows it', async () => {
    declare({ concurrent: true });
    const socket = await channel();
    close();
    t.raw.send(message(9, access(3, 0x80, 4), 1));
    send(socket, command(0, 2, 1, 0));
    await until(() => log.length === 2);
    open();
    expect(await response(socket)).toBe('10111213');
    expect((await t.raw.receive()).id).toBe(1);
  });

  test('a reset holds it up', async () => {
    const socket = await channel();
    const reset = gate();
    t.model.gate = reset.opened;
    t.raw.send(message(13));
    await until(() => t.model.log.includes('reset'));
    send(socket, join(command(0, 0, 1, 2), command(0, 0, 1, 3)));
    await turns();
    expect(log).toEqual([]);
    reset.open();
    expect([await response(socket), await response(socket)]).toEqual(['12', '13']);
  });
});

describe('a client', () => {
  const lives = async (): Promise<void> => {
    expect(await t.raw.errnoOf(9, access(3, 0, 4))).toBe(0);
    const socket = await channel();
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
    const socket = await channel();
    send(socket, bytes);
    await ended(socket);
    expect(t.errors.splice(0)).toMatchObject([
      { error: { code: 'ERR_VFIO_USER_PROTOCOL' }, client: t.model.client },
    ]);
    expect(log).toEqual([]);
    await lives();
  });

  test('that sends descriptors', async () => {
    const socket = await channel();
    const before = openFds();
    const bytes = command(0, 0, 1, 0);
    expect(socket.send(bytes, bytes.length, null, 0, [events.fd, events.fd])).toBe(32);
    await ended(socket);
    // The server's end, and the watcher's.
    expect(openFds()).toBe(before - 2);
    expect(t.errors).toMatchObject([{ error: { code: 'ERR_VFIO_USER_PROTOCOL' } }]);
  });

  test('that leaves in the middle of a command, or of a handler', async () => {
    const half = await channel();
    send(half, command(0, 0, 1, 0).subarray(0, 17));
    await turns();
    half.close();
    close();
    const slow = await channel();
    send(slow, command(0, 0, 1, 0));
    await until(() => log.length === 1);
    slow.close();
    await turns();
    open();
    await lives();
    expect(t.errors).toEqual([]);
  });

  test('that asks when the socket cannot be watched is refused, and nothing stays open', async () => {
    const before = openFds();
    jest.spyOn(Socket.prototype, 'watch').mockImplementationOnce(() => {
      throw new Error('no descriptor is left');
    });
    expect((await ask()).errno).toBe(constants.errno.EIO);
    expect(openFds()).toBe(before);
    await lives();
  });

  test('that asks again gets another socket; the first is closed', async () => {
    const before = openFds();
    const first = await channel();
    for (let round = 0; round < 50; round++) await channel();
    await ended(first);
    for (const socket of sockets) socket.close();
    await lives();
    for (const socket of sockets) socket.close();
    await until(() => openFds() === before);
  });

  test('whose room is too small gets none', async () => {
    const before = openFds();
    const reply = await ask(16);
    expect([reply.payload.length, reply.fds]).toEqual([16, []]);
    expect(openFds()).toBe(before);
  });

  test('that does not read its responses is not read from any more', async () => {
    declare({ read: (offset) => void log.push(`read ${offset}`), concurrent: true });
    const socket = await channel();
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
    const answered = log.length;
    await turns();
    expect(log.length).toBe(answered);
    expect(sent / 32).toBeGreaterThan(answered);
    expect(await t.raw.errnoOf(9, access(0, 0, 4))).toBe(0);
    const buffer = new Uint8Array(1 << 16);
    let got = 0;
    await until(
      () => (got += Math.max(0, socket.receive(buffer, 0, buffer.length))) === Math.floor(sent / 32) * 32,
    );
    expect(log.length).toBe(Math.floor(sent / 32));
  });

  test('that floods with posted writes is served beside others', async () => {
    const socket = await channel();
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
    await until(() => log.length === 5000);
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
          const socket = await channel();
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
    memory[0x12] = 0x12;
    await lives();
  });
});

test('closing the server waits for the handler, and closes the socket', async () => {
  const socket = await channel();
  close();
  send(socket, command(0, 0, 1, 0));
  await until(() => log.length === 1);
  let closed = false;
  const closing = t.server.close().then(() => {
    closed = true;
  });
  await ended(socket);
  await turns();
  expect(closed).toBe(false);
  open();
  await closing;
});

test('our own client: its accesses are no messages', async () => {
  t.raw.close();
  await using device = await connect(t.endpoint);
  const region = await device.region('bar3');
  const subRegions = await region.ioFds();
  const [, first, second, third] = subRegions as [unknown, IoRegionFd, IoRegionFd, IoRegionFd];
  expect([first, second, third]).toMatchObject([
    { kind: 'ioregionfd', offset: 0x10, size: 0x20, postedWrites: false },
    { kind: 'ioregionfd', offset: 0x40, size: 0x10, postedWrites: true },
    { kind: 'ioregionfd', offset: 0x60, size: 0, postedWrites: true },
  ]);
  const before = device.statistics.messagesSent;
  expect(await first.read32(0x14)).toBe(0x17161514);
  await first.write16(0x14, 0xbeef);
  expect(await first.read64(0x10)).toBe(0x1716_beef_1312_1110n);
  await second.write64(0x48, 0x0102_0304_0506_0708n);
  expect(await second.read8(0x48)).toBe(8);
  await third.write8(0x60, 0xaa);
  expect(await third.read16(0x60)).toBe(0x61aa);
  expect(await Promise.all([first.read8(0x20), second.read8(0x40), first.read8(0x21)])).toEqual([
    0x20, 0x40, 0x21,
  ]);
  expect(device.statistics.messagesSent).toBe(before);
  expect(await region.read16(0x14)).toBe(0xbeef);
  expect(device.statistics.messagesSent).toBe(before + 1);
  await device.close();
  await expect(first.read32(0x14)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
  expect(t.errors).toEqual([]);
});
