// SPDX-License-Identifier: MIT
import { VfioUserError } from '../../lib/errors';
import { FakeEndpoint, QUICK, comingBack, describedDevice, endingAfter } from './reconnect-support';
import {
  DMA_MAP,
  GET_INFO,
  GET_REGION_INFO,
  SET_IRQS,
  VERSION,
  failure,
  mappings,
  openFds,
  sharedMemory,
  turns,
  until,
  u32,
  version,
  warmUp,
} from './support';

const PAGE = 4096;
const GONE = failure('ERR_VFIO_USER_DISCONNECTED');

describe('another device is not taken for the one that was lost', () => {
  test.each([
    ['other ids', { ids: 0x1234_8086 }, /configuration space: ids 0x56781234.* before, ids 0x12348086.* now/],
    ['fewer interrupts', { vectors: 2 }, /interrupt index 2: 4 vectors.* before, 2 vectors.* now/],
    ['a smaller region', { barSize: 0x3000 + 0x1000 * 2 }, /region 0: 16384 bytes.* before, 20480 bytes/],
    ['a region that cannot be written', { flags: 0xd }, /region 0: .*flags 0xf.* before, .*flags 0xd.* now/],
  ] as const)('%s', async (_what, now, text) => {
    const endpoint = new FakeEndpoint((client) => describedDevice(client === 0 ? {} : now));
    const { device, events } = await comingBack(endpoint.path);
    await device.dma.map({ iova: 0, size: PAGE });
    const irq = await device.irq('msix');
    await irq.enable(1);
    const waiting = irq.vector(0).signals().next();
    endpoint.now.close();
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_VFIO_USER_IDENTITY' });
    const [error] = await events.next('close');
    expect(error).toMatchObject(failure('ERR_VFIO_USER_IDENTITY', text));
    expect(endpoint.servers.length).toBe(2);
    expect(endpoint.now.count(DMA_MAP) + endpoint.now.count(SET_IRQS)).toBe(0);
    await expect(device.info()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_IDENTITY' });
    await until(() => endpoint.now.closed);
    expect(events.names).toEqual(['disconnect', 'close']);
  });

  test('more regions', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 0 ? {} : { [GET_INFO]: u32(16, 3, 9, 3) }),
    );
    const { events } = await comingBack(endpoint.path);
    endpoint.now.close();
    const [error] = await events.next('close');
    expect(error).toMatchObject(failure('ERR_VFIO_USER_IDENTITY', 'number of regions: 8 before, 9 now'));
  });

  test('a server that takes less', async () => {
    const less = version('{"capabilities":{"max_msg_fds":4,"max_data_xfer_size":65536}}');
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 0 ? {} : { [VERSION]: less }),
    );
    const { events } = await comingBack(endpoint.path);
    endpoint.now.close();
    const [error] = await events.next('close');
    expect(error).toMatchObject(
      failure(
        'ERR_VFIO_USER_IDENTITY',
        'max_msg_fds: 8 before, 4 now; max_data_xfer_size: 1048576 before, 65536 now',
      ),
    );
  });

  test('another version of the protocol', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 0 ? {} : { [VERSION]: version('{}', 1, 0) }),
    );
    const { events } = await comingBack(endpoint.path);
    endpoint.now.close();
    const [error] = await events.next('close');
    expect(error).toMatchObject(failure('ERR_VFIO_USER_VERSION', 'speaks vfio-user 1.0'));
    expect(endpoint.servers.length).toBe(2);
  });
});

describe('attempts that fail', () => {
  /** VERSION, 16 messages that ask what the device is, two maps, three SET_IRQS. */
  const MESSAGES = 1 + 16 + 2 + 3;

  test.each(Array.from({ length: MESSAGES }, (_, count) => count))(
    'the server ends the connection after message %d of the set-up',
    async (count) => {
      warmUp();
      const { fd } = sharedMemory(0x4000);
      const answers = (): ReturnType<typeof describedDevice> => describedDevice({ barFds: () => [fd] });
      const endpoint = new FakeEndpoint((client) =>
        client === 1 ? endingAfter(count, answers()) : answers(),
      );
      const { device, events } = await comingBack(endpoint.path);
      await device.dma.map({ iova: 0, size: PAGE });
      await device.dma.map({ iova: PAGE, size: PAGE });
      const irq = await device.irq('msix');
      await irq.enable(2);
      await irq.mask({ start: 0, count: 2 });
      const bar = await device.region(0);
      const before = [openFds(), mappings()];
      endpoint.now.close();
      await events.next('reconnect');
      expect(endpoint.servers[1]!.heard.length).toBeGreaterThanOrEqual(Math.min(count + 1, MESSAGES));
      expect(events.of('reconnect')).toMatchObject([[{ attempts: 2, dmaRanges: 2, vectors: 2 }]]);
      expect(events.names).toEqual(['disconnect', 'reconnect']);
      expect(endpoint.now.count(DMA_MAP)).toBe(2);
      expect(endpoint.now.count(SET_IRQS)).toBe(3);
      expect([openFds(), mappings()]).toEqual(before);
      bar.map(0x1000, PAGE);
    },
  );

  test('a server that is busy at first', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 1 ? { [VERSION]: 'silence' } : {}),
    );
    const { events } = await comingBack(endpoint.path, { connectTimeout: 500 });
    endpoint.now.close();
    await events.next('reconnect');
    expect(events.of('reconnecting')[1]![0].error).toMatchObject({ code: 'ERR_VFIO_USER_BUSY' });
    await until(() => endpoint.servers[1]!.closed);
  });

  test('a server that falls silent during the set-up', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client === 1 ? { [GET_INFO]: 'silence' } : {}),
    );
    const { events } = await comingBack(endpoint.path, { messageTimeout: 500 });
    endpoint.now.close();
    await events.next('reconnect');
    expect(events.of('reconnecting')[1]![0].error).toMatchObject({ code: 'ERR_VFIO_USER_TIMEOUT' });
  });

  test('a server that does not answer has not gone', async () => {
    let silent = false;
    const endpoint = new FakeEndpoint(() =>
      describedDevice({}, { 16: () => (silent ? 'silence' : new Uint8Array(0)) }),
    );
    const { device, events } = await comingBack(endpoint.path, { messageTimeout: 300 });
    silent = true;
    await expect(device.feature.get(1)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_TIMEOUT' });
    expect(events.all).toEqual([]);
    expect(device.state).toBe('connected');
  });

  test('a server that breaks the protocol is not tried again', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { events } = await comingBack(endpoint.path);
    endpoint.now.send(u32(0x0004_0001, 8, 1, 0));
    const [error] = await events.next('close');
    expect(error).toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
    expect(events.names).toEqual(['close']);
  });
});

describe('giving up', () => {
  test('at the deadline, with the last error; what waited fails', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const reconnect = { firstDelay: 1, longestDelay: 5, deadline: 500 };
    const { device, events } = await comingBack(endpoint.path, { reconnect });
    const memory = await device.dma.allocate(PAGE);
    endpoint.stop();
    await events.next('disconnect');
    const text = /did not come back within 500 ms .*no such path/;
    const waiting = [device.region(1), device.irq(1)].map((one) =>
      expect(one).rejects.toMatchObject(failure('ERR_VFIO_USER_DISCONNECTED', text)),
    );
    const mapped = expect(device.dma.allocate(PAGE)).rejects.toMatchObject(GONE);
    const [error] = await events.next('close');
    expect(error).toBeInstanceOf(VfioUserError);
    expect(error).toMatchObject(failure('ERR_VFIO_USER_DISCONNECTED', text));
    await Promise.all([...waiting, mapped]);
    expect(device.closed).toBe(true);
    // Nobody asks any more, and what was ours stays until close.
    endpoint.listen();
    const attempts = events.of('reconnecting').length;
    await turns();
    expect(events.of('reconnecting').length).toBe(attempts);
    expect(endpoint.servers.length).toBe(1);
    expect(memory.buffer.byteLength).toBe(PAGE);
    expect(device.dma.ranges.length).toBe(1);
  });

  test('at the deadline in the middle of an attempt', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client > 0 ? { [VERSION]: 'silence' } : {}),
    );
    const { events } = await comingBack(endpoint.path, { reconnect: { ...QUICK, deadline: 500 } });
    endpoint.now.close();
    const [error] = await events.next('close');
    expect(error).toMatchObject(failure('ERR_VFIO_USER_DISCONNECTED', 'within 500 ms'));
    await until(() => endpoint.now.closed);
  });

  const stages = [
    ['before an attempt', undefined],
    ['while VERSION is not answered', VERSION],
    ['while it asks what the device is', GET_REGION_INFO],
    ['while it maps', DMA_MAP],
    ['while it enables interrupts', SET_IRQS],
  ] as const;

  /** A device that is coming back, and has got as far as this. */
  async function stuck(
    stage: number | undefined,
    signal?: AbortSignal,
  ): Promise<Awaited<ReturnType<typeof comingBack>> & { endpoint: FakeEndpoint }> {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, client > 0 && stage !== undefined ? { [stage]: 'silence' } : {}),
    );
    const reconnect = stage === undefined ? { ...QUICK, firstDelay: 30_000, longestDelay: 30_000 } : QUICK;
    const made = await comingBack(endpoint.path, { reconnect, ...(signal !== undefined && { signal }) });
    await made.device.dma.map({ iova: 0, size: PAGE });
    await (await made.device.irq('msix')).enable(1);
    endpoint.now.close();
    await made.events.next('reconnecting');
    if (stage !== undefined)
      await until(() => endpoint.servers.length === 2 && endpoint.now.count(stage) > 0);
    return { ...made, endpoint };
  }

  test.each(stages)('by close(), %s', async (_when, stage) => {
    const { device, events, endpoint } = await stuck(stage);
    const closed = failure('ERR_VFIO_USER_CLOSED');
    const mapped = device.dma.map({ iova: PAGE, size: PAGE });
    // A server that is being set up has taken the map before it falls silent.
    const waiting = (stage === SET_IRQS ? [device.region(1)] : [device.region(1), mapped]).map((one) =>
      expect(one).rejects.toMatchObject(closed),
    );
    await turns(2);
    await device.close();
    await Promise.all(waiting);
    expect(events.of('close')).toEqual([[null]]);
    expect(device.state).toBe('closed');
    await until(() => endpoint.now.closed);
    const attempts = events.of('reconnecting').length;
    await turns();
    expect(events.of('reconnecting').length).toBe(attempts);
  });

  test.each(stages)('by the signal of connect, %s', async (_when, stage) => {
    const controller = new AbortController();
    const { device, events, endpoint } = await stuck(stage, controller.signal);
    const reason = new Error('enough');
    controller.abort(reason);
    const [error] = await events.next('close');
    expect(error).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED', cause: reason });
    expect(device.closed).toBe(true);
    await until(() => endpoint.now.closed);
  });

  test('by a signal that was aborted while all was well', async () => {
    const controller = new AbortController();
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path, { signal: controller.signal });
    controller.abort();
    await device.info();
    endpoint.now.close();
    const [error] = await events.next('close');
    expect(error).toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    expect(events.of('reconnecting')).toEqual([]);
  });

  test('by a listener that closes the device when it is told', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    device.once('disconnect', () => void device.close());
    endpoint.now.close();
    await events.next('close');
    expect(events.names).toEqual(['disconnect', 'close']);
    await turns();
    expect(events.of('reconnecting')).toEqual([]);
  });
});
