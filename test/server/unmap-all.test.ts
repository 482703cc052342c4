// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { performance } from 'node:perf_hooks';
import { EventFd, closeFd, createSharedMemory } from '../../lib/native';
import { PciIrq } from '../../lib/pci';
import { serve, type ClientRange } from '../../lib/server';
import { useServer } from './fixture';
import { RawClient, dmaMap, dmaUnmap, message, openFds, setIrqs, until } from './support';

const t = useServer();
const COUNT = 60;
const ALL = dmaUnmap(0, 0, 2);

async function mapMany(fds: number[] = []): Promise<void> {
  for (let index = 0; index < COUNT; index++)
    expect(await t.raw.errnoOf(2, dmaMap(index * 0x2000, 0x1000), fds)).toBe(0);
}

/** A clock that moves on by 1 ms whenever it is looked at, so that work is cut after a few steps on any machine. */
function fastClock(): void {
  let time = performance.now();
  jest.spyOn(performance, 'now').mockImplementation(() => ++time);
}

/** Calls `look` in each turn of the event loop until the function that it returns is called. */
function everyTurn(look: () => void): () => void {
  let handle: NodeJS.Immediate;
  const turn = (): void => {
    look();
    handle = setImmediate(turn);
  };
  handle = setImmediate(turn);
  return () => {
    clearImmediate(handle);
  };
}

afterEach(() => {
  jest.restoreAllMocks();
});

test('unmapping everything lets others have their turn, and is answered when all is done', async () => {
  await mapMany();
  let turns = 0;
  const seen: number[] = [];
  const marks: number[] = [];
  jest.spyOn(t.model, 'unmapping').mockImplementation((range: ClientRange) => {
    seen.push(Number(range.iova) / 0x2000);
    marks.push(turns);
    return Promise.resolve();
  });
  const stop = everyTurn(() => turns++);
  fastClock();
  expect(await t.raw.errnoOf(3, ALL)).toBe(0);
  stop();
  expect(seen).toEqual(Array.from({ length: COUNT }, (_, index) => index));
  expect(t.model.client?.memory.ranges).toEqual([]);
  expect((marks.at(-1) ?? 0) - (marks[0] ?? 0)).toBeGreaterThan(5);
});

test('the memory of a client that leaves goes little by little, and the next client waits for it', async () => {
  const fd = createSharedMemory(0x1000);
  await mapMany([fd]);
  closeFd(fd);
  const { ranges } = t.model;
  const { memory } = t.model.client ?? {};
  const mapped = (): number => ranges.filter(({ buffer }) => buffer !== null).length;
  expect(mapped()).toBe(COUNT);
  const seen = new Set<number>();
  const stop = everyTurn(() => seen.add(mapped()));
  let mappedAtAttach = NaN;
  const attach = t.model.attach.bind(t.model);
  jest.spyOn(t.model, 'attach').mockImplementation((client) => {
    mappedAtAttach = mapped();
    attach(client);
  });
  fastClock();
  t.raw.close();
  await until(() => t.model.log.includes('detach'));
  // What is still mapped is not found any more.
  expect([memory?.ranges, memory?.place(0, 1, 'read')]).toEqual([[], null]);
  t.raw = await RawClient.connect(t.endpoint);
  stop();
  expect(mappedAtAttach).toBe(0);
  expect([...seen].filter((count) => count > 0 && count < COUNT).length).toBeGreaterThan(5);
});

test('the eventfds of a client that leaves are closed little by little', async () => {
  t.raw.close();
  await t.server.close();
  t.model.irqs.set(PciIrq.req, COUNT);
  t.server = await serve(t.endpoint, t.model);
  t.raw = await RawClient.connect(t.endpoint);
  const event = EventFd.create();
  const before = openFds();
  // VFIO_IRQ_SET_DATA_EVENTFD and _ACTION_TRIGGER, 10 vectors at a time.
  for (let start = 0; start < COUNT; start += 10) {
    const fds = new Array<number>(10).fill(event.fd);
    expect(await t.raw.errnoOf(8, setIrqs(4 | 32, PciIrq.req, start, 10), fds)).toBe(0);
  }
  const { client } = t.model;
  expect(openFds()).toBe(before + COUNT);
  const seen = new Set<number>();
  const stop = everyTurn(() => seen.add(openFds()));
  fastClock();
  t.raw.close();
  await until(() => t.model.log.filter((line) => line === 'detach').length === 2);
  expect(client?.trigger(PciIrq.req, COUNT - 1)).toBe(false);
  t.raw = await RawClient.connect(t.endpoint);
  stop();
  expect([event.read(), openFds()]).toEqual([0, before]);
  expect(seen.size).toBeGreaterThan(5);
  event.close();
});

test('a model that fails keeps the range at which it did, and those behind it', async () => {
  await mapMany();
  const unmapping = jest.spyOn(t.model, 'unmapping');
  unmapping.mockImplementation((range) =>
    range.iova === 0x4000n ? Promise.reject(new Error('stuck')) : Promise.resolve(),
  );
  expect(await t.raw.errnoOf(3, ALL)).toBe(constants.errno.EIO);
  expect(unmapping).toHaveBeenCalledTimes(3);
  expect(t.model.client?.memory.ranges.length).toBe(COUNT - 2);
  expect(t.model.client?.memory.ranges[0]?.iova).toBe(0x4000n);
});

test('a model is not asked for more ranges of a client that has left', async () => {
  await mapMany();
  let open = (): void => undefined;
  t.model.gate = new Promise((resolve) => {
    open = resolve;
  });
  t.raw.send(message(3, ALL));
  await until(() => t.model.log.includes('unmapping 0x0'));
  t.raw.close();
  await until(() => t.model.log.includes('detach'));
  open();
  t.raw = await RawClient.connect(t.endpoint);
  expect(t.model.log.slice(-3)).toEqual(['unmapping 0x0', 'detach', 'attach']);
});

test('vectors that are disabled or signalled all at once let others have their turn, and the next message waits', async () => {
  t.raw.close();
  await t.server.close();
  t.model.irqs.set(PciIrq.req, 10 * COUNT);
  t.server = await serve(t.endpoint, t.model);
  t.raw = await RawClient.connect(t.endpoint);
  const event = EventFd.create();
  const fds = new Array<number>(10).fill(event.fd);
  const before = openFds();
  for (let start = 0; start < COUNT; start += 10)
    expect(await t.raw.errnoOf(8, setIrqs(4 | 32, PciIrq.req, start, 10), fds)).toBe(0);
  const counts = new Set<number>();
  let signals = 0;
  const stop = everyTurn(() => {
    counts.add(openFds() - before);
    signals += event.read();
  });
  fastClock();
  // VFIO_IRQ_SET_DATA_NONE and _ACTION_TRIGGER, for all vectors.
  expect(await t.raw.errnoOf(8, setIrqs(1 | 32, PciIrq.req, 0, COUNT))).toBe(0);
  await until(() => signals === COUNT);
  counts.clear();
  // All are disabled, and one is enabled again without waiting for the reply.
  t.raw.send(message(8, setIrqs(1 | 32, PciIrq.req, 0, 0)));
  t.raw.send(message(8, setIrqs(4 | 32, PciIrq.req, 5, 1), 2), [event.fd]);
  expect([(await t.raw.receive()).errno, (await t.raw.receive()).errno]).toEqual([0, 0]);
  stop();
  expect(counts.size).toBeGreaterThan(5);
  expect(openFds() - before).toBe(1);
  expect([4, 5, 6].map((vector) => t.model.client?.trigger(PciIrq.req, vector))).toEqual([
    false,
    true,
    false,
  ]);
  event.close();
});
