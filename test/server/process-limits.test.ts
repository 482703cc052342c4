// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { connect } from '../../lib/client';
import { EventFd, Mapping, closeFd, createSharedMemory } from '../../lib/native';
import { PciIrq } from '../../lib/pci';
import { serve } from '../../lib/server';
import * as processLimits from '../../lib/server/process-limits';
import {
  RawClient,
  TestModel,
  dmaMap,
  dmaUnmap,
  gate,
  message,
  openFds,
  setIrqs,
  turns,
  u32,
  until,
  warmUp,
} from './support';

const { EMFILE, ENOMEM } = constants.errno;
const path = `@vfio-user-limits-${process.pid}`;
const model = new TestModel();
const page = createSharedMemory(4096);

beforeAll(warmUp);
afterEach(() => {
  jest.restoreAllMocks();
});
afterAll(() => {
  model.close();
  closeFd(page);
});

/** What a test has opened. */
const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const object of opened.splice(0).reverse()) await object.close();
});
function opens<T extends { close(): unknown }>(object: T): T {
  opened.push(object);
  return object;
}

function limit(limits: Partial<processLimits.ProcessLimits>): void {
  const real = processLimits.readProcessLimits();
  jest.spyOn(processLimits, 'readProcessLimits').mockReturnValue({ ...real, ...limits });
}

test('the limits are read from the system', () => {
  const { mappings, descriptors } = processLimits.readProcessLimits();
  const mapCount = Number(readFileSync('/proc/sys/vm/max_map_count', 'latin1'));
  const openFiles = /Max open files +(\d+)/.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1];
  // Each of them may become two, and the process needs some.
  expect(2 * mappings).toBeLessThanOrEqual(0.75 * mapCount);
  expect(mappings).toBeGreaterThan(Math.min(0.37 * mapCount, 32767));
  expect(mappings).toBeLessThanOrEqual(32768);
  expect(descriptors).toBe(Math.floor(0.75 * Number(openFiles)));
});

test('the mappings of all clients of the process are bounded, other ranges are not', async () => {
  const other = opens(new TestModel());
  limit({ mappings: Mapping.count + 2 });
  const clients: RawClient[] = [];
  for (const [index, served] of [model, other].entries()) {
    opens(await serve(`${path}-${index}`, served));
    clients.push(opens(await RawClient.connect(`${path}-${index}`)));
  }
  const [first, second] = clients as [RawClient, RawClient];
  const map = (client: RawClient, iova: number, fds: number[]): Promise<number> =>
    client.errnoOf(2, dmaMap(iova, 0x1000), fds);
  const open = openFds();
  expect(await map(first, 0x1000, [page])).toBe(0);
  expect(await map(second, 0x1000, [page])).toBe(0);
  expect(await map(first, 0x2000, [page])).toBe(ENOMEM);
  expect(await map(second, 0x2000, [page])).toBe(ENOMEM);
  expect(await map(first, 0x2000, [])).toBe(0);
  expect(model.ranges.map(({ buffer }) => buffer?.byteLength)).toEqual([0x1000, undefined]);
  expect(openFds()).toBe(open);
  // What one gives back another may have.
  expect((await first.ask(message(3, dmaUnmap(0x1000, 0x1000)))).errno).toBe(0);
  expect(await map(second, 0x2000, [page])).toBe(0);
  expect(await first.errnoOf(4, u32(16, 0, 0, 0))).toBe(0);
});

test('as many DMA ranges are announced as can be mapped, unless the server is told otherwise', async () => {
  const announced = async (maxDmaMaps?: number): Promise<number> => {
    await using server = await serve(path, model, {
      capabilities: maxDmaMaps === undefined ? {} : { maxDmaMaps },
    });
    await using device = await connect(server.path);
    return device.negotiated.server.maxDmaMaps;
  };
  limit({ mappings: 1000 });
  expect(await announced()).toBe(1000);
  expect(await announced(65535)).toBe(65535);
  limit({ mappings: 100_000 });
  expect(await announced()).toBe(65535);
});

test('the eventfds of clients are bounded', async () => {
  const vectors = 60;
  const event = opens(EventFd.create());
  model.irqs.set(PciIrq.req, vectors);
  limit({ descriptors: event.fd + 40 });
  opens(await serve(path, model));
  const raw = opens(await RawClient.connect(path));
  const assign = (start: number, count: number): Promise<number> =>
    raw.errnoOf(8, setIrqs(4 | 32, PciIrq.req, start, count), new Array<number>(count).fill(event.fd));
  const open = openFds();
  const results: number[] = [];
  for (let vector = 0; vector < vectors; vector++) results.push(await assign(vector, 1));
  const kept = openFds() - open;
  expect(kept).toBeGreaterThan(10);
  expect(kept).toBeLessThan(41);
  expect(results).toEqual(results.map((_, vector) => (vector < kept ? 0 : EMFILE)));
  // Of a message all are kept, or none.
  expect(await assign(0, 16)).toBe(EMFILE);
  expect(openFds() - open).toBe(kept);
  expect([model.client?.trigger(PciIrq.req, 0), event.read()]).toEqual([true, 1]);
  expect(model.client?.trigger(PciIrq.req, kept)).toBe(false);
});

test('the descriptors of commands that wait are bounded, and such a command is refused in its turn', async () => {
  const event = opens(EventFd.create());
  model.irqs.set(PciIrq.req, 60);
  limit({ descriptors: event.fd + 40 });
  opens(await serve(path, model));
  const raw = opens(await RawClient.connect(path));
  const open = openFds();
  const held = gate();
  model.gate = held.opened;
  // A reset that takes its time: nothing else is served meanwhile.
  raw.send(message(13));
  await until(() => model.log.includes('reset'));
  const fds = new Array<number>(10).fill(event.fd);
  for (let count = 0; count < 6; count++)
    raw.send(message(8, setIrqs(4 | 32, PciIrq.req, count * 10, 10), 100 + count), fds);
  raw.send(message(4, u32(16, 0, 0, 0), 200));
  let most = 0;
  for (let turn = 0; turn < 50; turn++) {
    most = Math.max(most, openFds() - open);
    await turns(1);
  }
  expect(most).toBeLessThan(41 + 10);
  const kept = openFds() - open;
  expect(kept).toBeGreaterThan(10);
  expect(kept).toBeLessThan(41);
  held.open();
  const replies: [number, number][] = [];
  while (replies.length < 8) {
    const { id, errno } = await raw.receive();
    replies.push([id, errno]);
  }
  expect(replies.map(([id]) => id)).toEqual([1, 100, 101, 102, 103, 104, 105, 200]);
  const refused = replies.filter(([, errno]) => errno === EMFILE).length;
  expect(replies.slice(0, 7 - refused).every(([, errno]) => errno === 0)).toBe(true);
  expect(replies.at(-1)).toEqual([200, 0]);
  expect(refused).toBe(6 - kept / 10);
  model.gate = undefined;
});
