// SPDX-License-Identifier: MIT
import { closeSync } from 'node:fs';
import { connect } from '../../lib/client';
import * as server from '../../lib/server';
import { TestModel, openFds, warmUp } from './support';

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
