// SPDX-License-Identifier: MIT
import { connect } from '../../lib/client';
import { VfioUserError } from '../../lib/errors';
import {
  GET_INFO,
  GET_IRQ_INFO,
  GET_REGION_INFO,
  REGION_READ,
  failure,
  fakeDevice,
  fakeServer,
  like,
  mappings,
  openFds,
  sharedMemory,
  twoAreas,
  u32,
  until,
  warmUp,
} from './support';

test('close releases everything, once', async () => {
  warmUp();
  const { fd } = sharedMemory(0x4000);
  const server = fakeServer({
    [GET_REGION_INFO]: { payload: twoAreas(0), fds: [fd] },
    [GET_IRQ_INFO]: u32(16, 1, 2, 4),
  });
  const before = [openFds(), mappings()];
  const device = await connect(server.endpoint);
  const closes: (Error | null)[] = [];
  device.on('close', (error) => closes.push(error));
  const area = (await device.region(0)).map(0x1000, 0x1000);
  const memory = await device.dma.allocate(8192);
  const mapping = await device.dma.map({ iova: 0, size: 4096, fd });
  await (await device.irq('msix')).enable([() => undefined, () => undefined]);

  await device.close();
  await device.close();
  expect(closes).toEqual([null]);
  expect(device.closed).toBe(true);
  expect(area.buffer.byteLength).toBe(0);
  expect(memory.buffer.byteLength).toBe(0);
  // Closing the parts afterwards is harmless.
  area.close();
  await memory.close();
  await mapping.close();
  server.close();
  expect([openFds(), mappings()]).toEqual([before[0]! - 3, before[1]]);
});

test('calls after close', async () => {
  const { device } = await fakeDevice({ [GET_REGION_INFO]: twoAreas(0) });
  const bar = await device.region(0);
  await device.close();
  const closed = failure('ERR_VFIO_USER_CLOSED');
  await expect(device.info()).rejects.toMatchObject(closed);
  await expect(device.region(1)).rejects.toMatchObject(closed);
  await expect(device.irq(1)).rejects.toMatchObject(closed);
  await expect(device.reset()).rejects.toMatchObject(closed);
  await expect(bar.read32(0)).rejects.toMatchObject(closed);
  expect(() => bar.read32Sync(0)).toThrow(like(closed));
  expect(() => {
    bar.write32Sync(0, 0);
  }).toThrow(like(closed));
});

test('what is pending fails when we close', async () => {
  const { device, server } = await fakeDevice({ [GET_INFO]: 'silence' });
  const info = device.info();
  await until(() => server.count(GET_INFO) === 1);
  await device.close();
  await expect(info).rejects.toMatchObject({
    ...failure('ERR_VFIO_USER_CLOSED'),
    command: 'DEVICE_GET_INFO',
  });
});

test('a region whose reply arrives as the device is closed leaks no descriptor', async () => {
  warmUp();
  const { fd } = sharedMemory(0x4000);
  const server = fakeServer({ [GET_REGION_INFO]: { payload: twoAreas(0), fds: [fd] } });
  const before = openFds();
  const device = await connect(server.endpoint);
  const region = device.region(0).then(
    () => undefined,
    () => undefined,
  );
  await until(() => server.count(GET_REGION_INFO) === 1);
  await device.close();
  await region;
  server.close();
  expect(openFds()).toBe(before - 3);
});

describe('the server dies', () => {
  test('the close event tells, pending and later calls fail, memory stays until close', async () => {
    const { device, server } = await fakeDevice({
      [GET_REGION_INFO]: twoAreas(0),
      [REGION_READ]: 'silence',
    });
    const bar = await device.region(0);
    const memory = await device.dma.allocate(4096);
    const closed = new Promise<Error | null>((resolve) => device.once('close', resolve));
    const pending = [bar.read32(0), bar.readBytes(0, 100)].map((read) =>
      expect(read).rejects.toMatchObject({
        ...failure('ERR_VFIO_USER_DISCONNECTED'),
        command: 'REGION_READ',
      }),
    );
    await until(() => server.count(REGION_READ) === 2);
    server.close();
    await Promise.all(pending);
    expect(await closed).toBeInstanceOf(VfioUserError);
    expect(device.closed).toBe(true);

    const gone = failure('ERR_VFIO_USER_DISCONNECTED');
    await expect(device.info()).rejects.toMatchObject(gone);
    await expect(bar.write32(0, 1)).rejects.toMatchObject(gone);
    expect(() => bar.read32Sync(0)).toThrow(like(gone));
    await expect(device.dma.allocate(4096)).rejects.toMatchObject(gone);
    // Nothing is pulled from under a reader.
    expect(memory.buffer.byteLength).toBe(4096);
    await memory.close();
    expect(memory.buffer.byteLength).toBe(0);
    await device.close();
  });

  test.each([
    ['a header of an impossible size', new Uint8Array(Uint32Array.of(0x0004_0001, 8, 1, 0).buffer)],
    ['a message without end', new Uint8Array(Uint32Array.of(0x0004_0001, 0x7fff_ffff, 1, 0).buffer)],
    ['a message of no type', new Uint8Array(Uint32Array.of(0x0004_0001, 16, 2, 0).buffer)],
  ])('%s ends the connection', async (_what, bytes) => {
    const { device, server } = await fakeDevice({ [GET_INFO]: 'silence' });
    const info = device.info();
    server.send(bytes);
    await expect(info).rejects.toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
    expect(device.closed).toBe(true);
  });

  test('a reply that nobody asked for is counted and dropped', async () => {
    const { device, server } = await fakeDevice({ [GET_INFO]: u32(16, 2, 9, 5) });
    const { fd } = sharedMemory(4096);
    server.send(new Uint8Array(Uint32Array.of(0x0009_1234, 16, 1, 0).buffer), [fd]);
    await device.info();
    expect(device.statistics.unexpectedReplies).toBe(1);
  });

  test('a late reply is counted and dropped', async () => {
    const { device, server } = await fakeDevice({ [GET_REGION_INFO]: 'silence' }, { messageTimeout: 20 });
    await expect(device.region(0)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_TIMEOUT' });
    const { id } = server.heard.at(-1)!;
    server.send(new Uint8Array(Uint32Array.of(id | (5 << 16), 16, 1, 0).buffer));
    await until(() => device.statistics.lateReplies === 1);
    expect(device.closed).toBe(false);
  });
});
