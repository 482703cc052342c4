// SPDX-License-Identifier: MIT
import { EventFd, closeFd, createSharedMemory } from '../../lib/native';
import { serve, type ServedIoFd } from '../../lib/server';
import { useServer } from './fixture';
import { RawClient, TestModel, join, message, u16, u32, u64, type RawReply } from './support';

const t = useServer();

describe('DEVICE_GET_REGION_IO_FDS', () => {
  let events: EventFd[];
  let memory: number;
  beforeEach(() => {
    events = [EventFd.create(), EventFd.create()];
    memory = createSharedMemory(4096);
  });
  afterEach(() => {
    for (const event of events) event.close();
    closeFd(memory);
  });
  const declare = (...ioFds: ServedIoFd[]): void => {
    t.model.regions.set(3, { size: 64, ioFds, write: () => undefined });
  };
  /** `struct vfio_user_region_io_fds_request`: argsz, flags, index, count. */
  const ask = async (argsz: number, raw = t.raw): Promise<RawReply> => {
    const reply = await raw.ask(message(6, u32(argsz, 0, 3, 0)));
    for (const fd of reply.fds) closeFd(fd);
    return reply;
  };
  const bytes = (reply: RawReply): number[] => [...reply.payload];

  test('eventfds and sockets are entries of 40 bytes; a descriptor comes once', async () => {
    const [a, b] = events.map((event) => event.fd) as [number, number];
    declare(
      { kind: 'ioeventfd', offset: 0, size: 4, fd: a },
      { kind: 'ioeventfd', offset: 4, size: 0, fd: b, datamatch: 0x1122334455667788n },
      { kind: 'ioeventfd', offset: 8, size: 2, fd: a, datamatch: 0 },
      { kind: 'ioregionfd', offset: 16, size: 32, fd: b, userData: 7 },
      { kind: 'ioregionfd', offset: 48, size: 0, fd: b, userData: 8, postedWrites: true },
    );
    const reply = await ask(4096);
    // offset, size, fd_index, type (0 ioeventfd, 1 ioregionfd), flags, padding, datamatch or user_data
    expect(bytes(reply)).toEqual([
      ...join(
        u32(16 + 200, 0, 3, 5),
        ...[u64(0, 4), u32(0, 0, 0, 0), u64(0)],
        ...[u64(4, 0), u32(1, 0, 1, 0), u64(0x1122334455667788n)],
        ...[u64(8, 2), u32(0, 0, 1, 0), u64(0)],
        ...[u64(16, 32), u32(1, 1, 0, 0), u64(7)],
        ...[u64(48, 0), u32(1, 1, 2, 0), u64(8)],
      ),
    ]);
    expect(reply.fds).toHaveLength(2);
  });

  test('with shadow memory entries have the 48 bytes of libvfio-user', async () => {
    const [a] = events.map((event) => event.fd) as [number];
    declare(
      { kind: 'ioeventfd', offset: 0, size: 4, fd: a, datamatch: 5 },
      { kind: 'shadow-ioeventfd', offset: 8, size: 8, fd: a, shadow: { fd: memory, offset: 0x20 } },
    );
    const reply = await ask(4096);
    // gpa_offset, size, fd_index, type (2 shadow), flags, shadow_mem_fd_index, shadow_offset, datamatch
    expect(bytes(reply)).toEqual([
      ...join(
        u32(16 + 96, 0, 3, 2),
        ...[u64(0, 4), u32(0, 0, 1, 0), u64(0, 5)],
        ...[u64(8, 8), u32(0, 2, 0, 1), u64(0x20, 0)],
      ),
    ]);
    expect(reply.fds).toHaveLength(2);
  });

  test('without room for the entries comes what is needed, and no descriptor', async () => {
    declare({ kind: 'ioeventfd', offset: 0, size: 4, fd: events[0]!.fd });
    const short = await ask(55);
    expect(bytes(short)).toEqual([...u32(56, 0, 3, 1)]);
    expect(short.fds).toHaveLength(0);
    expect((await ask(56)).fds).toHaveLength(1);
    expect((await ask(15)).errno).toBe(22);
  });

  test('a client gets no more descriptors than it takes', async () => {
    declare(
      { kind: 'ioeventfd', offset: 0, size: 4, fd: events[0]!.fd },
      { kind: 'shadow-ioeventfd', offset: 8, size: 8, fd: events[0]!.fd, shadow: { fd: memory, offset: 0 } },
      { kind: 'ioeventfd', offset: 16, size: 4, fd: events[0]!.fd },
    );
    t.raw.close();
    const raw = await RawClient.connect(t.endpoint, false);
    const json = Buffer.from('{"capabilities":{"max_msg_fds":1}}\0');
    expect((await raw.ask(message(1, join(u16(0, 1), json)))).errno).toBe(0);
    const reply = await ask(4096, raw);
    expect([...new Uint32Array(reply.payload.slice().buffer).subarray(0, 4)]).toEqual([16 + 80, 0, 3, 2]);
    expect(reply.fds).toHaveLength(1);
    raw.close();
  });
});

test.each([
  ['beyond the region', { kind: 'ioeventfd', offset: 62, size: 4, fd: 0 }],
  ['at its end', { kind: 'ioeventfd', offset: 64, size: 0, fd: 0 }],
  ['at a negative offset', { kind: 'ioeventfd', offset: -4, size: 4, fd: 0 }],
  ['for writes of 3 bytes', { kind: 'ioeventfd', offset: 0, size: 3, fd: 0 }],
  ['without size that is answered', { kind: 'ioregionfd', offset: 0, size: 0, fd: 0, userData: 0 }],
] as const)('a declaration %s', async (_name, entry) => {
  const model = new TestModel();
  model.regions.set(3, { size: 64, ioFds: [entry] });
  await expect(serve('@vfio-user-declaration', model)).rejects.toMatchObject({
    code: 'ERR_INVALID_ARG_VALUE',
  });
  model.close();
});
