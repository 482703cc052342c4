// SPDX-License-Identifier: MIT
import { connect, type IoRegionFd } from '../../lib/client';
import { closeFd } from '../../lib/native';
import { CommandError } from '../../lib/server';
import { command, ended, response, send, useIoRegion } from './io-region-fixture';
import { access, gate, hex, join, message, turns, u32, u64, until } from './support';

const io = useIoRegion();
const { t } = io;

test('one socket serves all ioregionfds of a region, told apart by user data', async () => {
  const reply = await io.ask();
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
  const [event, channel] = reply.fds as [number, number];
  closeFd(event);
  closeFd(channel);
});

test('reads, writes, and posted writes, byte by byte', async () => {
  const socket = await io.channel();
  send(socket, hex('0002000000000000 0100000000000000 0400000000000000 0000000000000000'));
  expect(await response(socket)).toBe('14151617');
  send(socket, hex('0113000000000000 0100000000000000 1800000000000000 8877665544332211'));
  expect(await response(socket)).toBe('');
  expect([...io.memory.subarray(0x28, 0x30)]).toEqual([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
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
  expect(io.log).toEqual([
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
  const socket = await io.channel();
  const bytes = join(command(0, 0, 1, 0), command(0, 0, 1, 1), command(0, 0, 1, 2));
  io.hold();
  for (const [from, to] of [
    [0, 1],
    [1, 31],
    [31, 70],
    [70, 96],
  ]) {
    send(socket, bytes.subarray(from, to));
    await turns();
  }
  expect(io.log).toEqual(['read 1 at 16']);
  io.release();
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
    io.declare({ read });
    const socket = await io.channel();
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
  const socket = await io.channel();
  send(socket, command(0, 2, 1, 0));
  expect(await response(socket)).toBe('ffffffff');
  send(socket, command(1, 0x10, 1, 0, 5));
  expect(await response(socket)).toBe('');
});

describe('among the messages of the client', () => {
  test('accesses of the region are done one at a time, other regions meanwhile', async () => {
    const socket = await io.channel();
    io.hold();
    t.raw.send(message(9, access(3, 0x80, 4), 1));
    await until(() => io.log.length === 1);
    send(socket, command(0, 2, 1, 0));
    await turns();
    expect(io.log).toEqual(['read 4 at 128']);
    io.release();
    expect((await t.raw.receive()).id).toBe(1);
    expect(await response(socket)).toBe('10111213');
    io.hold();
    send(socket, command(0, 2, 1, 4));
    await until(() => io.log.length === 3);
    t.raw.send(message(9, access(0, 0, 4), 2));
    t.raw.send(message(9, access(3, 0x84, 4), 3));
    t.raw.send(message(13, undefined, 4));
    expect((await t.raw.receive()).id).toBe(2);
    await turns();
    expect([io.log.length, t.model.log.includes('reset')]).toEqual([3, false]);
    io.release();
    expect(await response(socket)).toBe('14151617');
    expect([(await t.raw.receive()).id, (await t.raw.receive()).id]).toEqual([3, 4]);
  });

  test('reads overlap in a region that allows it', async () => {
    io.declare({ concurrent: true });
    const socket = await io.channel();
    io.hold();
    t.raw.send(message(9, access(3, 0x80, 4), 1));
    send(socket, command(0, 2, 1, 0));
    await until(() => io.log.length === 2);
    io.release();
    expect(await response(socket)).toBe('10111213');
    expect((await t.raw.receive()).id).toBe(1);
  });

  test('a reset holds it up', async () => {
    const socket = await io.channel();
    const reset = gate();
    t.model.gate = reset.opened;
    t.raw.send(message(13));
    await until(() => t.model.log.includes('reset'));
    send(socket, join(command(0, 0, 1, 2), command(0, 0, 1, 3)));
    await turns();
    expect(io.log).toEqual([]);
    reset.open();
    expect([await response(socket), await response(socket)]).toEqual(['12', '13']);
  });
});

test('closing the server waits for the handler, and closes the socket', async () => {
  const socket = await io.channel();
  io.hold();
  send(socket, command(0, 0, 1, 0));
  await until(() => io.log.length === 1);
  let closed = false;
  const closing = t.server.close().then(() => {
    closed = true;
  });
  await ended(socket);
  await turns();
  expect(closed).toBe(false);
  io.release();
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
