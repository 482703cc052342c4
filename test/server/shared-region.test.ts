// SPDX-License-Identifier: MIT
import { closeSync, fstatSync } from 'node:fs';
import { constants } from 'node:os';
import { connect } from '../../lib/client';
import * as server from '../../lib/server';
import { RawClient, TestModel, join, message, openFds, u32, u64, warmUp } from './support';

beforeAll(warmUp);

test('a region that clients can map is made with what the server entry exports', async () => {
  const before = openFds();
  const { Mapping, createSharedMemory, pageSize, serve } = server;
  const size = 2 * pageSize;
  const fd = createSharedMemory(size, { name: 'registers' });
  const mapping = Mapping.map(fd, 0, size);
  const registers = new Uint8Array(mapping.buffer);
  const model = new TestModel();
  model.regions.set(5, {
    size,
    shared: { fd, offset: 0, areas: [{ offset: pageSize, size: pageSize }] },
    read: (offset, data) => {
      data.set(registers.subarray(offset, offset + data.length));
    },
    write: (offset, data) => {
      registers.set(data, offset);
    },
  });
  {
    await using listening = await serve(`@vfio-user-shared-region-${process.pid}`, model);
    await using device = await connect(listening.path);
    const bar5 = await device.region('bar5');
    new Uint8Array(bar5.map(pageSize, pageSize).buffer)[4] = 0x55;
    expect(registers[pageSize + 4]).toBe(0x55);
    registers[pageSize + 5] = 0x66;
    expect(await bar5.read16(pageSize + 4)).toBe(0x6655);
  }
  model.close();
  mapping.close();
  closeSync(fd);
  expect(openFds()).toBe(before);
});

describe('a file for each client', () => {
  const path = `@vfio-user-own-file-${process.pid}`;
  const regionInfo = message(5, join(u32(256, 0, 5, 0), u64(0, 0)));

  /** Serves a region whose file `fd` names, and collects what is reported. */
  async function serveFile(
    fd: (client: server.Client) => number,
  ): Promise<[TestModel, server.Server, string[]]> {
    const model = new TestModel();
    const areas = [{ offset: 0, size: server.pageSize }];
    model.regions.set(5, { size: server.pageSize, shared: { fd, offset: 0, areas }, read: () => undefined });
    const errors: string[] = [];
    const onError = (error: unknown): void => void errors.push(String(error));
    return [model, await server.serve(path, model, { onError }), errors];
  }

  test('the model is asked with the client that asks', async () => {
    const files = [1, 2].map(() => server.createSharedMemory(server.pageSize));
    const seen: server.Client[] = [];
    const [model, listening, errors] = await serveFile((client) => {
      if (!seen.includes(client)) seen.push(client);
      expect(client).toBe(model.client);
      return files[seen.length - 1] as number;
    });
    for (const file of files) {
      const client = await RawClient.connect(path);
      for (let i = 0; i < 2; i++) {
        const { errno, fds } = await client.ask(regionInfo);
        expect(errno).toBe(0);
        expect(fds.map((fd) => fstatSync(fd).ino)).toEqual([fstatSync(file).ino]);
        for (const fd of fds) closeSync(fd);
      }
      client.close();
    }
    expect(seen.length).toBe(2);
    expect(errors).toEqual([]);
    await listening.close();
    model.close();
    for (const file of files) closeSync(file);
  });

  test.each<[string, () => number, RegExp]>([
    [
      'throws',
      () => {
        throw new Error('no file');
      },
      /no file/,
    ],
    ['returns no descriptor', () => -1, /A file descriptor is an integer/],
    ['returns one that is not open', () => 1_000_000, /EBADF/],
  ])('a function that %s: the client gets EIO, and goes on', async (_, fd, message) => {
    const [model, listening, errors] = await serveFile(fd);
    const client = await RawClient.connect(path);
    expect(await client.ask(regionInfo)).toMatchObject({ errno: constants.errno.EIO, fds: [] });
    expect(errors).toEqual([expect.stringMatching(message)]);
    expect(await client.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
    client.close();
    await listening.close();
    model.close();
  });
});
