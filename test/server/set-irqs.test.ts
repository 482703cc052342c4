// SPDX-License-Identifier: MIT
import { constants } from 'node:os';
import { EventFd, closeFd, createSharedMemory } from '../../lib/native';
import { type Client } from '../../lib/server';
import { useServer } from './fixture';
import { join, openFds, setIrqs, turns, u32, until } from './support';

const { EINVAL } = constants.errno;
const t = useServer();

describe('DEVICE_SET_IRQS', () => {
  // VFIO_IRQ_SET_*: data none 1, bool 2, eventfd 4; action mask 8, unmask 16, trigger 32.
  const NONE = 1;
  const BOOL = 2;
  const EVENTFD = 4;
  const MASK = 8;
  const UNMASK = 16;
  const TRIGGER = 32;
  let events: EventFd[];
  const counts = (): number[] => events.map((event) => event.read());
  beforeEach(() => {
    events = Array.from({ length: 4 }, () => EventFd.create());
  });
  afterEach(() => {
    for (const event of events) event.close();
  });
  const enable = (index: number, start: number, count: number): Promise<number> =>
    t.raw.errnoOf(
      8,
      setIrqs(EVENTFD | TRIGGER, index, start, count),
      events.slice(start, start + count).map((event) => event.fd),
    );

  test('vectors signal their eventfds until they are taken away', async () => {
    const client = t.model.client as Client;
    expect(client.setInterrupt(true, 0)).toBe(false);
    expect(await enable(2, 0, 3)).toBe(0);
    expect([0, 1, 2, 3].map((vector) => client.setInterrupt(true, vector))).toEqual([
      true,
      true,
      true,
      false,
    ]);
    expect(client.setInterrupt(true, 1)).toBe(true);
    expect(counts()).toEqual([1, 2, 1, 0]);
    for (const vector of [4, -1, 0.5]) expect(() => client.setInterrupt(true, vector)).toThrow(RangeError);

    // One vector is taken away without descriptors, one is replaced, then the whole index is disabled.
    expect(await t.raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 2, 1, 1))).toBe(0);
    expect(await t.raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 2, 0, 1), [events[3]?.fd ?? -1])).toBe(0);
    expect([0, 1, 2].map((vector) => client.setInterrupt(true, vector))).toEqual([true, false, true]);
    expect(counts()).toEqual([0, 0, 1, 1]);
    expect(await t.raw.errnoOf(8, setIrqs(NONE | TRIGGER, 2, 0, 0))).toBe(0);
    expect([0, 1, 2].map((vector) => client.setInterrupt(true, vector))).toEqual([false, false, false]);
  });

  test('other interrupts than those of the function have a call of their own', async () => {
    const client = t.model.client as Client;
    expect(client.trigger(3)).toBe(false);
    // ERR is there for every device: without it, QEMU warns that there is no error recovery.
    expect(await t.raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 3, 0, 1), [events[0]?.fd ?? -1])).toBe(0);
    expect([client.trigger(3), client.trigger(3, 1), client.trigger(4), client.trigger(99)]).toEqual([
      true,
      false,
      false,
      false,
    ]);
    expect(counts()).toEqual([1, 0, 0, 0]);
    for (const index of [0, 1, 2]) {
      expect(() => client.trigger(index)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }) as Error,
      );
    }
  });

  test('the client triggers: none and bool', async () => {
    await enable(2, 0, 4);
    expect(await t.raw.errnoOf(8, setIrqs(NONE | TRIGGER, 2, 1, 2))).toBe(0);
    expect(counts()).toEqual([0, 1, 1, 0]);
    expect(await t.raw.errnoOf(8, join(setIrqs(BOOL | TRIGGER, 2, 0, 4), Uint8Array.of(1, 0, 0, 255)))).toBe(
      0,
    );
    expect(counts()).toEqual([1, 0, 0, 1]);
  });

  test('a masked vector becomes pending, and signals once when unmasked', async () => {
    const client = t.model.client as Client;
    await enable(2, 0, 4);
    expect(await t.raw.errnoOf(8, setIrqs(NONE | MASK, 2, 0, 2))).toBe(0);
    expect([0, 0, 1, 2].map((vector) => client.setInterrupt(true, vector))).toEqual([
      false,
      false,
      false,
      true,
    ]);
    expect(counts()).toEqual([0, 0, 1, 0]);
    expect(await t.raw.errnoOf(8, join(setIrqs(BOOL | UNMASK, 2, 0, 4), Uint8Array.of(1, 0, 1, 1)))).toBe(0);
    expect(counts()).toEqual([1, 0, 0, 0]);
    expect(await t.raw.errnoOf(8, setIrqs(NONE | UNMASK, 2, 1, 1))).toBe(0);
    expect(counts()).toEqual([0, 1, 0, 0]);
    expect(await t.raw.errnoOf(8, setIrqs(NONE | UNMASK, 2, 1, 1))).toBe(0);
    expect(counts()).toEqual([0, 0, 0, 0]);
  });

  test('eventfds that mask and unmask', async () => {
    const client = t.model.client as Client;
    const [signal, mask, unmask] = events as [EventFd, EventFd, EventFd];
    await enable(2, 0, 1);
    expect(await t.raw.errnoOf(8, setIrqs(EVENTFD | MASK, 2, 0, 1), [mask.fd])).toBe(0);
    expect(await t.raw.errnoOf(8, setIrqs(EVENTFD | UNMASK, 2, 0, 1), [unmask.fd])).toBe(0);
    mask.signal();
    await until(() => !client.setInterrupt(true));
    signal.read();
    unmask.signal();
    await until(() => signal.read() === 1);
    expect(client.setInterrupt(true)).toBe(true);
    expect(await t.raw.errnoOf(8, setIrqs(EVENTFD | MASK, 2, 0, 1))).toBe(0);
    mask.signal();
    await turns();
    expect(client.setInterrupt(true)).toBe(true);
  });

  test.each([
    ['an index without vectors', setIrqs(NONE | TRIGGER, 1, 0, 0)],
    ['an index that does not exist', setIrqs(NONE | TRIGGER, 77, 0, 1)],
    ['a vector beyond the last', setIrqs(NONE | TRIGGER, 2, 4, 1)],
    ['more vectors than there are', setIrqs(NONE | TRIGGER, 2, 1, 4)],
    ['a sum that wraps', setIrqs(NONE | TRIGGER, 2, 0xffffffff, 2)],
    ['no vectors, but a start', setIrqs(NONE | TRIGGER, 2, 1, 0)],
    ['no vectors to mask', setIrqs(NONE | MASK, 2, 0, 0)],
    ['no vectors, but eventfds', setIrqs(EVENTFD | TRIGGER, 2, 0, 0)],
    ['two actions', setIrqs(NONE | TRIGGER | MASK, 2, 0, 1)],
    ['no action', setIrqs(NONE, 2, 0, 1)],
    ['two forms of data', setIrqs(NONE | BOOL | TRIGGER, 2, 0, 1)],
    ['too few booleans', join(setIrqs(BOOL | TRIGGER, 2, 0, 4), Uint8Array.of(1, 1, 1))],
    ['a small argsz', u32(19, NONE | TRIGGER, 2, 0, 1)],
    ['a short message', setIrqs(NONE | TRIGGER, 2, 0, 1).subarray(0, 16)],
  ])('%s is EINVAL', async (_name, payload) => {
    await enable(2, 0, 4);
    expect(await t.raw.errnoOf(8, payload)).toBe(EINVAL);
    expect(counts()).toEqual([0, 0, 0, 0]);
    expect(t.model.client?.setInterrupt(true, 0)).toBe(true);
  });

  test('descriptors that do not fit are refused and closed, and change nothing', async () => {
    await enable(2, 0, 4);
    const open = openFds();
    const memory = createSharedMemory(4096);
    const [a, b] = events.map((event) => event.fd) as [number, number];
    expect(await t.raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 2, 0, 3), [a, b])).toBe(EINVAL);
    expect(await t.raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 2, 0, 1), [a, b])).toBe(EINVAL);
    expect(await t.raw.errnoOf(8, setIrqs(EVENTFD | TRIGGER, 2, 0, 3), [b, b, memory])).toBe(EINVAL);
    expect(await t.raw.errnoOf(8, setIrqs(NONE | TRIGGER, 2, 0, 1), [a])).toBe(EINVAL);
    closeFd(memory);
    expect(openFds()).toBe(open);
    t.model.client?.setInterrupt(true, 0);
    expect(counts()).toEqual([1, 0, 0, 0]);
  });
});
