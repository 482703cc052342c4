// SPDX-License-Identifier: MIT
/** What a device model has under way by message with one client is bounded, whatever the model asks for. */
import { closeFd, createSharedMemory } from '../../lib/native';
import { serve } from '../../lib/server';
import { useServer } from './fixture';
import { RawClient, TestModel, dmaMap, dmaUnmap, message, turns, until, type RawReply } from './support';

// What is not answered waits for as long as a busy machine takes.
const t = useServer({ messageTimeout: Infinity });
const MIB = 1 << 20;
/** Accesses of 1 MiB that may be under way at a time. */
const AT_ONCE = 32;
const DMA_READ = 11;
const DMA_WRITE = 12;
const ERROR = 0x20;

beforeEach(async () => {
  expect(await t.raw.errnoOf(2, dmaMap(0, 64 * MIB))).toBe(0);
});

/** Number of the MiB that a request is about. */
const placeOf = ({ payload }: RawReply): number =>
  Number(new DataView(payload.buffer).getBigUint64(0, true)) / MIB;

async function requests(client: RawClient, count: number): Promise<RawReply[]> {
  const all: RawReply[] = [];
  while (all.length < count) all.push(await client.receive());
  return all;
}

/** That no further request comes. */
async function nothingMore(client: RawClient): Promise<void> {
  await turns();
  expect(client.socket.receive(new Uint8Array(16), 0, 16)).toBe(0);
}

function answer(client: RawClient, { command, id, payload }: RawReply, flags = 0): void {
  client.send(message(command, flags === 0 ? payload.subarray(0, 16) : undefined, id, 1 | flags));
}

/** Writes a MiB to each of so many places. */
function writeAll(model: TestModel, count: number): Promise<unknown>[] {
  const data = new Uint8Array(MIB);
  return Array.from({ length: count }, async (_, index) => model.client?.memory.write(index * MIB, data));
}

/** Reads a MiB of each of so many places. */
function readAll(model: TestModel, count: number): Promise<unknown>[] {
  return Array.from({ length: count }, async (_, index) => model.client?.memory.read(index * MIB, MIB));
}

const numbers = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, index) => from + index);

test('reads beyond 32 MiB wait until others have ended, and begin in order', async () => {
  const reads = readAll(t.model, AT_ONCE + 8);
  const first = await requests(t.raw, AT_ONCE);
  expect(first.map(placeOf)).toEqual(numbers(0, AT_ONCE));
  expect(first.every(({ command }) => command === DMA_READ)).toBe(true);
  await nothingMore(t.raw);
  for (const request of first.slice(0, 3)) answer(t.raw, request, ERROR);
  const next = await requests(t.raw, 3);
  expect(next.map(placeOf)).toEqual(numbers(AT_ONCE, AT_ONCE + 3));
  await nothingMore(t.raw);
  for (const request of [...first.slice(3), ...next]) answer(t.raw, request, ERROR);
  for (const request of await requests(t.raw, 5)) answer(t.raw, request, ERROR);
  for (const outcome of await Promise.allSettled(reads))
    expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'ERR_VFIO_USER_REMOTE' } });
});

test('so do writes, which all complete; those that wait when the client leaves fail', async () => {
  const writes = writeAll(t.model, AT_ONCE + 3);
  const first = await requests(t.raw, AT_ONCE);
  expect(first.every(({ command }) => command === DMA_WRITE)).toBe(true);
  await nothingMore(t.raw);
  answer(t.raw, first[5]!);
  expect((await requests(t.raw, 1)).map(placeOf)).toEqual([AT_ONCE]);
  await nothingMore(t.raw);
  await writes[5];
  for (const request of first.slice(0, 5)) answer(t.raw, request);
  await Promise.all(writes.slice(0, 6));
  t.raw.close();
  const outcomes = await Promise.allSettled(writes.slice(6));
  expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true);
});

test('what is mapped does not wait', async () => {
  const fd = createSharedMemory(4096);
  expect(await t.raw.errnoOf(2, dmaMap(2 ** 40, 4096), [fd])).toBe(0);
  closeFd(fd);
  const reads = readAll(t.model, AT_ONCE + 1);
  await requests(t.raw, AT_ONCE);
  await t.model.client?.memory.write(2 ** 40, Uint8Array.of(7));
  expect(await t.model.client?.memory.read(2 ** 40, 1)).toEqual(Uint8Array.of(7));
  t.raw.close();
  await Promise.allSettled(reads);
});

test('a range that goes while an access to it waits is not touched', async () => {
  expect(await t.raw.errnoOf(2, dmaMap(2 ** 40, 4096))).toBe(0);
  const reads = readAll(t.model, AT_ONCE);
  const first = await requests(t.raw, AT_ONCE);
  const late = t.model.client?.memory.write(2 ** 40, Uint8Array.of(7));
  t.raw.send(message(3, dmaUnmap(2 ** 40, 4096)));
  expect((await t.raw.receive()).errno).toBe(0);
  for (const request of first) answer(t.raw, request, ERROR);
  await expect(late).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DMA' });
  await Promise.allSettled(reads);
  await nothingMore(t.raw);
});

test('one access of more than 32 MiB goes alone', async () => {
  const large = t.model.client!.memory.read(0, (AT_ONCE + 1) * MIB);
  const small = t.model.client!.memory.write(60 * MIB, Uint8Array.of(1));
  const [first] = await requests(t.raw, 1);
  expect(placeOf(first!)).toBe(0);
  await nothingMore(t.raw);
  answer(t.raw, first!, ERROR);
  await expect(large).rejects.toMatchObject({ code: 'ERR_VFIO_USER_REMOTE' });
  const [last] = await requests(t.raw, 1);
  expect(placeOf(last!)).toBe(60);
  answer(t.raw, last!);
  await small;
});

test('two clients do not share', async () => {
  const model = new TestModel();
  await using server = await serve(`${t.endpoint}-other`, model);
  const other = await RawClient.connect(server.path);
  expect(await other.errnoOf(2, dmaMap(0, MIB))).toBe(0);
  const reads = readAll(t.model, AT_ONCE + 1);
  await requests(t.raw, AT_ONCE);
  const [write] = writeAll(model, 1);
  const [request] = await requests(other, 1);
  answer(other, request!);
  await write;
  other.close();
  t.raw.close();
  await Promise.allSettled(reads);
  await until(() => model.client === null);
  model.close();
});
