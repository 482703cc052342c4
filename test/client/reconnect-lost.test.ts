// SPDX-License-Identifier: MIT
/** What ends with a connection, and what crosses its end. */
import { join as joinPath } from 'node:path';
import type { ConnectOptions, IoEventFd, IoRegionFd, VfioUserDevice } from '../../lib/client';
import { EventFd } from '../../lib/native';
import { serve, type PciDeviceModel, type ServedRegion, type Server } from '../../lib/server';
import { MigratingModel } from '../server/migration-model';
import { TestModel } from '../server/support';
import { FakeEndpoint, comingBack, describedDevice, type Events } from './reconnect-support';
import {
  GET_INFO,
  GET_REGION_INFO,
  RESET,
  SET_IRQS,
  atEnd,
  bare,
  directory,
  failure,
  gate,
  join,
  mappings,
  openFds,
  sharedMemory,
  turns,
  u32,
  until,
  warmUp,
} from './support';

const PAGE = 4096;
const GONE = failure('ERR_VFIO_USER_DISCONNECTED');
const DEVICE_FEATURE = 16;

/** A device of this process, and how to end its server and start another. */
async function served(
  model: PciDeviceModel & { close(): void },
  options: ConnectOptions = {},
): Promise<{
  device: VfioUserDevice;
  events: Events;
  stop: () => Promise<void>;
  start: () => Promise<void>;
}> {
  const path = joinPath(directory(), 'device.sock');
  let server: Server = await serve(path, model);
  atEnd(async () => {
    await server.close();
    model.close();
  });
  return {
    ...(await comingBack(path, options)),
    stop: () => server.close(),
    start: async () => {
      server = await serve(path, model);
    },
  };
}

test('the dirty log ends; what is asked of it says so until it is started again', async () => {
  const { device, events, stop, start } = await served(new MigratingModel());
  const memory = await device.dma.allocate(PAGE);
  await device.dirtyLog.start();
  await stop();
  const [, lost] = await events.next('disconnect');
  expect(lost.dirtyLog).toBe(true);
  const gone = failure('ERR_VFIO_USER_DISCONNECTED', 'take all pages for dirty');
  await expect(device.dirtyLog.report(memory.iova, PAGE)).rejects.toMatchObject(gone);
  await start();
  await events.next('reconnect');
  await expect(device.dirtyLog.report(memory.iova, PAGE)).rejects.toMatchObject(gone);
  await expect(device.dma.unmapAndReport(memory.iova, memory.size)).rejects.toMatchObject(gone);
  await device.dirtyLog.start();
  expect([...(await device.dirtyLog.report(memory.iova, PAGE))]).toEqual([]);
  await device.dirtyLog.stop();
  await stop();
  expect((await events.next('disconnect', 2))[1].dirtyLog).toBe(false);
});

test('a report that is under way fails, since there is nothing to report elsewhere', async () => {
  const endpoint = new FakeEndpoint(() =>
    describedDevice(
      {},
      {
        [DEVICE_FEATURE]: ({ payload }) => ((payload[4]! & 0x3f) === 8 ? 'silence' : payload),
      },
    ),
  );
  const { device, events } = await comingBack(endpoint.path);
  const { fd } = sharedMemory(PAGE);
  await device.dma.map({ iova: 0, size: PAGE, fd });
  await device.dirtyLog.start();
  const before = endpoint.now.count(DEVICE_FEATURE);
  const report = device.dirtyLog.report(0, PAGE);
  await until(() => endpoint.now.count(DEVICE_FEATURE) > before);
  endpoint.now.close();
  await expect(report).rejects.toMatchObject(GONE);
  await events.next('reconnect');
  expect(endpoint.now.count(DEVICE_FEATURE)).toBe(0);
});

describe('migration', () => {
  test('a read stream fails, whether it is read from or not; the new server is left alone', async () => {
    const model = new MigratingModel(new Uint8Array(10_000));
    const { device, events, stop, start } = await served(model);
    const stream = device.migration.createReadStream({ highWaterMark: 1000 });
    const failed = new Promise((resolve) => stream.once('error', resolve));
    await new Promise((resolve) => stream.once('readable', resolve));
    await stop();
    const [, lost] = await events.next('disconnect');
    expect(lost.migration).toBe(true);
    expect(await failed).toMatchObject(failure('ERR_VFIO_USER_DISCONNECTED', 'the transfer of the state'));
    model.states.length = 0;
    await start();
    await events.next('reconnect');
    await device.info();
    await turns();
    expect(model.states).toEqual([]);
    // And there may be another transfer.
    await device.migration.setState('running');
    let bytes = 0;
    for await (const chunk of device.migration.createReadStream()) bytes += (chunk as Uint8Array).length;
    expect(bytes).toBe(10_000);
  });

  test('a write stream fails, and the new server is not reset', async () => {
    const model = new MigratingModel();
    const { device, events, stop, start } = await served(model);
    const stream = device.migration.createWriteStream();
    const failed = new Promise((resolve) => stream.once('error', resolve));
    await new Promise((resolve) => stream.write(new Uint8Array(100), resolve));
    await stop();
    expect(await failed).toMatchObject(GONE);
    await start();
    await events.next('reconnect');
    await device.info();
    await turns();
    expect(model.log).not.toContain('reset');
  });

  test('a change of state that is under way is not made on the new server, nor one without a connection', async () => {
    let silent = true;
    // argsz, feature and method; then the flag STOP_COPY of MIGRATION, or the state RUNNING.
    const answer = ({ payload }: { payload: Uint8Array }): Uint8Array =>
      join(u32(16), payload.slice(4, 8), u32(payload[4] === 1 ? 1 : 2, 0));
    const endpoint = new FakeEndpoint(() =>
      describedDevice({}, { [DEVICE_FEATURE]: (heard) => (silent ? 'silence' : answer(heard)) }),
    );
    const { device, events } = await comingBack(endpoint.path);
    const stopped = device.migration.setState('stop');
    await until(() => endpoint.now.count(DEVICE_FEATURE) === 1);
    silent = false;
    endpoint.stop();
    await events.next('disconnect');
    await expect(device.migration.setState('stop')).rejects.toMatchObject(GONE);
    endpoint.listen();
    await expect(stopped).rejects.toMatchObject(GONE);
    const asked = endpoint.now.heard.filter(({ command }) => command === DEVICE_FEATURE);
    expect(asked.map(({ payload }) => payload[6])).toEqual([1, 1]);
  });

  test('one that has ended does not count as lost', async () => {
    const { device, events, stop } = await served(new MigratingModel(new Uint8Array(10)));
    const stream = device.migration.createReadStream();
    stream.resume();
    await new Promise((resolve) => stream.once('end', resolve));
    await stop();
    expect((await events.next('disconnect'))[1].migration).toBe(false);
  });
});

test('a reset that waits for an answer is not made on another server, nor one without a connection', async () => {
  let questions = 0;
  const endpoint = new FakeEndpoint(() =>
    // The first question belongs to connect.
    describedDevice({}, { [GET_INFO]: () => (++questions === 2 ? 'silence' : u32(16, 3, 8, 3)) }),
  );
  const { device, events } = await comingBack(endpoint.path);
  const reset = device.reset();
  await until(() => questions === 2);
  endpoint.stop();
  await events.next('disconnect');
  await expect(device.reset()).rejects.toMatchObject(GONE);
  endpoint.listen();
  await expect(reset).rejects.toMatchObject(failure('ERR_VFIO_USER_DISCONNECTED', 'begin anew'));
  expect(endpoint.now.count(RESET)).toBe(0);
  await device.reset();
  expect(endpoint.now.count(RESET)).toBe(1);
});

describe('sub-regions', () => {
  test('are closed, counted, and there again when they are asked for', async () => {
    const model = new TestModel();
    const eventFd = EventFd.create();
    atEnd(() => {
      eventFd.close();
    });
    const writes: number[] = [];
    const region1: ServedRegion = {
      size: 64,
      ioFds: [
        { kind: 'ioeventfd', offset: 0, size: 4, fd: eventFd.fd },
        { kind: 'ioregionfd', offset: 8, size: 8 },
      ],
      read: (_offset, data) => void data.fill(3),
      write: (offset) => void writes.push(offset),
    };
    model.regions.set(1, region1);
    const { device, events, stop, start } = await served(model);
    const region = await device.region(1);
    const [first, second] = (await region.ioFds()) as [IoEventFd, IoRegionFd];
    await region.write32(0, 1);
    expect([eventFd.read(), await second.read32(8)]).toEqual([1, 0x03030303]);
    await stop();
    expect((await events.next('disconnect'))[1].subRegions).toBe(2);
    expect(() => {
      first.signal();
    }).toThrow();
    await expect(second.read32(8)).rejects.toThrow();
    await start();
    await events.next('reconnect');
    await region.write32(0, 1);
    expect([writes, eventFd.read()]).toEqual([[0], 0]);
    const [third, fourth] = (await region.ioFds()) as [IoEventFd, IoRegionFd];
    expect(third).not.toBe(first);
    await region.write32(0, 1);
    expect([writes, eventFd.read()]).toEqual([[0], 1]);
    expect(await fourth.read32(8)).toBe(0x03030303);
  });
});

describe('interrupts', () => {
  test('being enabled as the connection ends: enabled on the next, with the error of that server if it refuses', async () => {
    const endpoint = new FakeEndpoint((client) =>
      describedDevice({}, { [SET_IRQS]: client === 0 ? 'silence' : client === 1 ? new Uint8Array(0) : 22 }),
    );
    const { device, events } = await comingBack(endpoint.path);
    const irq = await device.irq('msix');
    const enabled = irq.enable(2);
    await until(() => endpoint.now.count(SET_IRQS) === 1);
    endpoint.now.close();
    await enabled;
    await events.next('reconnect');
    expect(irq.enabled).toBe(2);
    await irq.disable();

    endpoint.now.close();
    await events.next('disconnect', 2);
    const refused = irq.enable(1);
    await expect(refused).rejects.toMatchObject({ code: 'ERR_VFIO_USER_REMOTE', errnoName: 'EINVAL' });
    await events.next('reconnect', 2);
    expect(irq.enabled).toBe(0);
  });

  test('disabled while there is no connection: at once, and not enabled again', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    const irq = await device.irq('msix');
    await irq.enable(2);
    const ended = irq.vector(0).signals().next();
    endpoint.stop();
    await events.next('disconnect');
    await irq.disable();
    expect((await ended).done).toBe(true);
    expect(irq.enabled).toBe(0);
    endpoint.listen();
    expect(await events.next('reconnect')).toMatchObject([{ vectors: 0 }]);
    expect(endpoint.now.count(SET_IRQS)).toBe(0);
  });

  test('disabled while the next connection is set up: the server is told', async () => {
    const { opened, open } = gate();
    let answers = 0;
    const endpoint = new FakeEndpoint((client) =>
      describedDevice(
        {},
        {
          [SET_IRQS]: (heard) => {
            if (client === 0 || answers++ > 0) return new Uint8Array(0);
            void opened.then(() => {
              endpoint.now.send(new Uint8Array(Uint32Array.of(heard.id | (SET_IRQS << 16), 16, 1, 0).buffer));
            });
            return 'silence';
          },
        },
      ),
    );
    const { device, events } = await comingBack(endpoint.path);
    const irq = await device.irq('msix');
    await irq.enable(1);
    endpoint.now.close();
    await events.next('disconnect');
    await until(() => answers === 1);
    const disabled = irq.disable();
    await turns();
    open();
    await disabled;
    expect(endpoint.now.payloads(SET_IRQS).at(-1)).toBe(bare('14000000 21000000 02000000 00000000 00000000'));
  });
});

test('a region whose answer comes with the end of the connection has no memory of the old server', async () => {
  warmUp();
  const memories = [sharedMemory(0x4000), sharedMemory(0x4000)];
  let asked = 0;
  const endpoint = new FakeEndpoint((client) => {
    const answers = describedDevice({ barFds: () => [memories[Math.min(client, 1)]!.fd] });
    return {
      ...answers,
      [GET_REGION_INFO]: (heard) => {
        const answer = answers[GET_REGION_INFO] as (heard: never) => { payload: Uint8Array; fds: number[] };
        const told = answer(heard as never);
        // Eight of these belong to the question what the device is.
        if (++asked !== 9) return told;
        const header = new Uint8Array(
          Uint32Array.of(heard.id | (5 << 16), 16 + told.payload.length, 1, 0).buffer,
        );
        endpoint.now.send(Buffer.concat([header, told.payload]), told.fds);
        return 'close';
      },
    };
  });
  const { device, events } = await comingBack(endpoint.path);
  const before = [openFds(), mappings()];
  const bar = await device.region(0);
  expect(device.state).toBe('reconnecting');
  await events.next('reconnect');
  new Uint8Array(bar.map(0x1000, PAGE).buffer)[0] = 5;
  expect(memories.map(({ bytes }) => bytes[0x1000])).toEqual([0, 5]);
  bar.map(0x1000, PAGE).close();
  await device.close();
  expect(openFds()).toBeLessThan(before[0]! + 1);
});
