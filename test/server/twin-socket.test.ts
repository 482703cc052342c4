// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { Socket } from '../../lib/native';
import { serve } from '../../lib/server';
import { useServer } from './fixture';
import { RawClient, TestModel, dmaMap, join, message, u16, u32, u64, until } from './support';

const { EINVAL } = constants.errno;
const t = useServer();

const version = (json: string): Uint8Array => message(1, join(u16(0, 1), Buffer.from(`${json}\0`)));
const ASKING = version('{"capabilities":{"max_msg_fds":1,"twin_socket":{"supported":true}}}');

interface Agreed {
  capabilities: Record<string, unknown>;
  fds: number[];
}

/** Negotiates on a new connection. */
async function negotiate(bytes: Uint8Array): Promise<Agreed> {
  t.raw.close();
  t.raw = await RawClient.connect(t.endpoint, false);
  const reply = await t.raw.ask(bytes);
  expect(reply.errno).toBe(0);
  const text = Buffer.from(reply.payload.subarray(4)).toString().replace(/\0$/, '');
  const json = (text === '' ? {} : JSON.parse(text)) as { capabilities?: Record<string, unknown> };
  return { capabilities: json.capabilities ?? {}, fds: reply.fds };
}

/** The client's end of a twin socket. */
async function twin(): Promise<RawClient> {
  const { fds } = await negotiate(ASKING);
  expect(fds.length).toBe(1);
  return new RawClient(Socket.fromFd(fds[0] as number));
}

describe('a twin socket', () => {
  test('is set up for a client that asks for one and takes a descriptor', async () => {
    const { capabilities, fds } = await negotiate(ASKING);
    expect(capabilities['twin_socket']).toEqual({ supported: true, fd_index: 0 });
    // Said in full: a client that knows the twin socket is no QEMU with a short buffer.
    expect(capabilities['max_data_xfer_size']).toBe(1048576);
    expect(fds.length).toBe(1);
    Socket.fromFd(fds[0] as number).close();
  });

  test.each([
    ['does not ask', '{"capabilities":{"max_msg_fds":8,"pgsizes":4096,"max_data_xfer_size":1048576}}'],
    ['says no', '{"capabilities":{"max_msg_fds":8,"twin_socket":{"supported":false}}}'],
    ['takes no descriptors', '{"capabilities":{"max_msg_fds":0,"twin_socket":{"supported":true}}}'],
  ])('is not set up for a client that %s', async (_what, json) => {
    const { capabilities, fds } = await negotiate(version(json));
    expect(capabilities['twin_socket']).toBeUndefined();
    expect(fds).toEqual([]);
  });

  test('is not set up when the server is told not to', async () => {
    const model = new TestModel();
    const path = `${t.endpoint}-2`;
    const server = await serve(path, model, { twinSocket: false });
    const raw = await RawClient.connect(path, false);
    expect((await raw.ask(ASKING)).fds).toEqual([]);
    raw.close();
    await server.close();
    model.close();
  });

  test('carries our commands and their replies', async () => {
    const other = await twin();
    expect(await t.raw.errnoOf(2, dmaMap(0x10_0000, 0x10_0000))).toBe(0);
    const read = t.model.client?.memory.read(0x10_0000, 3);
    const request = await other.receive();
    expect(request).toMatchObject({ command: 11, flags: 0, payload: u64(0x10_0000, 3) });
    other.send(message(11, join(u64(0x10_0000, 3), Uint8Array.of(1, 2, 3)), request.id, 1));
    expect(await read).toEqual(Uint8Array.of(1, 2, 3));
    const write = t.model.client?.memory.write(0x10_0000, Uint8Array.of(4));
    const second = await other.receive();
    expect(second).toMatchObject({ command: 12, payload: join(u64(0x10_0000, 1), Uint8Array.of(4)) });
    other.send(message(12, u64(0x10_0000, 1), second.id, 1));
    await write;
    // The main socket has seen nothing of it.
    expect(await t.raw.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
    other.close();
  });

  test("takes no commands of the client's", async () => {
    const other = await twin();
    expect(await other.errnoOf(4, u32(16, 0, 0, 0))).toBe(EINVAL);
    other.close();
  });

  test('that the client closes ends the session; and it ends with the session', async () => {
    const first = await twin();
    first.close();
    await t.raw.end();
    const second = await twin();
    t.raw.close();
    await second.end();
    second.close();
    await until(() => t.model.client === null);
    expect(t.errors).toEqual([]);
  });

  test('of a client that the model refuses is closed', async () => {
    t.raw.close();
    await until(() => t.model.client === null);
    t.model.attach = () => {
      throw new Error('no');
    };
    t.raw = await RawClient.connect(t.endpoint, false);
    expect((await t.raw.ask(ASKING)).errno).toBe(constants.errno.EIO);
    await t.raw.end();
  });
});

test('REGION_WRITE_MULTI is announced to clients that announce it, when the server is told to', async () => {
  const model = new TestModel();
  const path = `${t.endpoint}-3`;
  for (const [asked, offered, expected] of [
    [true, true, true],
    [true, false, undefined],
    [false, true, undefined],
  ]) {
    const server = await serve(path, model, { capabilities: { writeMultiple: offered === true } });
    const raw = await RawClient.connect(path, false);
    const reply = await raw.ask(version(`{"capabilities":{"max_msg_fds":16,"write_multiple":${asked}}}`));
    const json = JSON.parse(Buffer.from(reply.payload.subarray(4, -1)).toString()) as {
      capabilities: Record<string, unknown>;
    };
    if (expected === true) expect(json.capabilities['write_multiple']).toBe(true);
    else expect(json.capabilities['write_multiple']).not.toBe(true);
    raw.close();
    await server.close();
  }
  model.close();
});

test('a client that takes no descriptors gets none: the region cannot be mapped', async () => {
  await negotiate(version('{"capabilities":{"max_msg_fds":0}}'));
  // `struct vfio_region_info`: argsz, flags, index, cap_offset, size, offset.
  const reply = await t.raw.ask(message(5, join(u32(4096, 0, 0, 0), u64(0, 0))));
  expect(reply.errno).toBe(0);
  expect(reply.fds).toEqual([]);
  expect(new Uint32Array(reply.payload.slice(0, 16).buffer)[1]).toBe(3);
});

test('a device-specific region tells its type', async () => {
  const model = new TestModel();
  model.regions.set(9, {
    size: 0x2000,
    type: { type: 0x8000_8086, subtype: 2 },
    read: () => undefined,
  });
  const path = `${t.endpoint}-4`;
  const server = await serve(path, model);
  const raw = await RawClient.connect(path);
  const reply = await raw.ask(message(5, join(u32(4096, 0, 9, 0), u64(0, 0))));
  expect(reply.payload).toEqual(
    join(
      u32(48, 9, 9, 32),
      u64(0x2000, 0),
      // `struct vfio_region_info_cap_type`: id 2, version 1, next 0; type, subtype.
      u16(2, 1),
      u32(0, 0x8000_8086, 2),
    ),
  );
  raw.close();
  await server.close();
  model.close();
});
