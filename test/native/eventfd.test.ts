// SPDX-License-Identifier: MIT
import { AsyncLocalStorage } from 'node:async_hooks';
import { closeSync, openSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { EventFd, createSharedMemory, duplicateFd } from '../../lib/native';
import { openFds } from '../support/resources';

test('counts signals until they are read', () => {
  using event = EventFd.create(3);
  expect(event.read()).toBe(3);
  expect(event.read()).toBe(0);
  event.signal();
  event.signal(5);
  expect(event.read()).toBe(6);
});

test('a full counter stays full', () => {
  using event = EventFd.create();
  // eventfd(2): the largest counter is 2^64 - 2; 2049 times 2^53 would exceed it.
  for (let index = 0; index < 2050; index++) event.signal(2 ** 53 - 1);
  expect(event.read()).toBeGreaterThan(2 ** 63);
  expect(event.read()).toBe(0);
});

test.each([0, -1, 1.5, 2 ** 53, NaN])('signal(%p) is out of range', (count) => {
  using event = EventFd.create();
  expect(() => {
    event.signal(count);
  }).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
});

test('create() refuses what is no counter', () => {
  expect(() => EventFd.create(-1)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
  expect(() => EventFd.create(2 ** 32)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
});

test('takes over an eventfd, and nothing else', () => {
  using event = EventFd.create();
  using copy = EventFd.fromFd(duplicateFd(event.fd));
  copy.signal(2);
  expect(event.read()).toBe(2);
  const file = openSync('/dev/zero', 'r+');
  const memory = createSharedMemory(4096);
  for (const fd of [file, memory]) {
    expect(() => EventFd.fromFd(fd)).toThrow(expect.objectContaining({ errnoName: 'EPROTOTYPE' }));
    closeSync(fd); // Still the caller's.
  }
  expect(() => EventFd.fromFd(0x7fffffff)).toThrow(expect.objectContaining({ errnoName: 'EBADF' }));
});

test('use after close throws, closing twice does not', () => {
  const event = EventFd.create();
  event.close();
  event.close();
  for (const use of [
    () => event.fd,
    () => event.read(),
    () => {
      event.signal();
    },
    () => event.watch(() => undefined),
  ]) {
    expect(use).toThrow(expect.objectContaining({ code: 'ERR_VFIO_USER_CLOSED' }));
  }
});

test('a watcher gets the coalesced counter, and keeps AsyncLocalStorage', async () => {
  const storage = new AsyncLocalStorage<string>();
  using event = EventFd.create();
  const seen: [number, string | undefined][] = [];
  storage.run('mine', () => event.watch((count) => seen.push([count, storage.getStore()])));
  event.signal(2);
  event.signal(3);
  while (seen.length === 0) await turn();
  expect(seen).toEqual([[5, 'mine']]);
  expect(event.read()).toBe(0);
});

test('a watcher may close itself and its eventfd, and leaves no descriptor', async () => {
  const before = openFds();
  const event = EventFd.create(1);
  let calls = 0;
  const watcher = event.watch(() => {
    calls++;
    watcher.close();
    event.signal();
    event.close();
  });
  while (calls === 0) await turn();
  await turn();
  expect(calls).toBe(1);
  expect(watcher.closed).toBe(true);
  expect(openFds()).toBe(before);
  watcher.ref();
  watcher.unref();
});

test('a descriptor that someone else closes does not hurt the watcher', async () => {
  const event = EventFd.create();
  const other = duplicateFd(event.fd);
  let got = 0;
  const watcher = event.watch((count) => (got = count));
  closeSync(event.fd); // A mistake elsewhere.
  await turn();
  const signaller = EventFd.fromFd(other);
  signaller.signal(7);
  while (got === 0) await turn();
  expect(got).toBe(7);
  watcher.close();
  signaller.close();
  expect(() => {
    event.close();
  }).toThrow(expect.objectContaining({ errnoName: 'EBADF' }));
});

test('a counter that another reader took is not delivered', async () => {
  using event = EventFd.create();
  const handler = jest.fn();
  event.watch(handler);
  event.signal();
  event.read();
  await turn();
  await turn();
  expect(handler).not.toHaveBeenCalled();
});

describe('a watcher that spins', () => {
  /** Milliseconds that the event loop slept during a time of `milliseconds`. */
  async function slept(milliseconds: number): Promise<number> {
    const before = performance.eventLoopUtilization();
    await sleep(milliseconds);
    return performance.eventLoopUtilization(before).idle;
  }
  const MINUTE = 60_000_000;

  test('keeps the event loop from sleeping until it is closed', async () => {
    using event = EventFd.create();
    const plain = event.watch(() => undefined);
    while ((await slept(30)) === 0);
    plain.close();
    const watcher = event.watch(() => undefined, { spin: MINUTE });
    await turn();
    expect(await slept(30)).toBe(0);
    watcher.close();
    await turn();
    while ((await slept(30)) === 0);
  });

  test('delivers signals, and everything else on the loop goes on', async () => {
    using event = EventFd.create();
    using other = EventFd.create();
    const seen: string[] = [];
    event.watch((count) => seen.push(`event ${String(count)}`), { spin: Infinity });
    other.watch((count) => seen.push(`other ${String(count)}`));
    other.signal(3);
    while (seen.length === 0) await turn();
    await sleep(5);
    event.signal(2);
    while (seen.length === 1) await turn();
    expect(seen).toEqual(['other 3', 'event 2']);
  });

  test('with a loop that has work in each turn, and with several that spin', async () => {
    using event = EventFd.create();
    using second = EventFd.create();
    const seen: number[] = [];
    event.watch((count) => seen.push(count), { spin: Infinity });
    let turns = 0;
    const work = (): void => {
      turns++;
      if (seen.length < 2) setImmediate(work);
    };
    work();
    await sleep(5);
    expect(turns).toBeGreaterThan(1);
    event.signal(7);
    while (seen.length === 0) await sleep(1);
    second.watch((count) => seen.push(count), { spin: Infinity });
    second.signal(8);
    while (seen.length === 1) await sleep(1);
    event.signal(9);
    while (seen.length === 2) await sleep(1);
    expect(seen).toEqual([7, 8, 9]);
  });

  test('has done with a signal before the next one, whoever took it', async () => {
    using event = EventFd.create();
    const seen: number[] = [];
    event.watch((count) => seen.push(count), { spin: Infinity });
    await sleep(2);
    event.signal(4);
    expect(event.read()).toBe(4);
    await sleep(5);
    expect(seen).toEqual([]);
    event.signal(5);
    while (seen.length === 0) await sleep(1);
    expect(seen).toEqual([5]);
  });

  test('falls asleep when the time is over, and each signal begins it anew', async () => {
    using event = EventFd.create();
    let calls = 0;
    event.watch(() => calls++, { spin: 100_000 });
    while ((await slept(50)) === 0);
    event.signal();
    while (calls === 0) await turn();
    expect(await slept(20)).toBe(0);
    while ((await slept(50)) === 0);
  });

  test.each([-1, NaN])('spin %p is out of range', (spin) => {
    using event = EventFd.create();
    expect(() => event.watch(() => undefined, { spin })).toThrow(
      expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
    );
  });

  test('may be closed by its handler', async () => {
    const before = openFds();
    const event = EventFd.create(1);
    let calls = 0;
    event.watch(
      () => {
        calls++;
        event.close();
      },
      { spin: Infinity },
    );
    while (calls === 0) await turn();
    await turn();
    while ((await slept(30)) === 0);
    expect(openFds()).toBe(before);
  });
});
