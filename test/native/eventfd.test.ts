// SPDX-License-Identifier: MIT
import { AsyncLocalStorage } from 'node:async_hooks';
import { closeSync, openSync } from 'node:fs';
import { EventFd, createSharedMemory, duplicateFd } from '../../lib/native';
import { openFds } from '../support/resources';
import { loopSleeps, turns, until } from '../support/wait';

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
  await until(() => seen.length > 0);
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
  await until(() => calls > 0);
  await turns();
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
  await turns();
  const signaller = EventFd.fromFd(other);
  signaller.signal(7);
  await until(() => got > 0);
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
  await turns();
  expect(handler).not.toHaveBeenCalled();
});

describe('a watcher that spins', () => {
  const MINUTE = 60_000_000;

  test('keeps the event loop from sleeping until it is closed', async () => {
    using event = EventFd.create();
    const plain = event.watch(() => undefined);
    await until(loopSleeps);
    plain.close();
    const watcher = event.watch(() => undefined, { spin: MINUTE });
    await turns(1);
    expect(await loopSleeps()).toBe(false);
    watcher.close();
    await until(loopSleeps);
  });

  test('delivers signals, and everything else on the loop goes on', async () => {
    using event = EventFd.create();
    using other = EventFd.create();
    const seen: string[] = [];
    event.watch((count) => seen.push(`event ${count}`), { spin: Infinity });
    other.watch((count) => seen.push(`other ${count}`));
    other.signal(3);
    await until(() => seen.length > 0);
    event.signal(2);
    await until(() => seen.length > 1);
    expect(seen).toEqual(['other 3', 'event 2']);
  });

  test('with a loop that has work in each turn, and with several that spin', async () => {
    using event = EventFd.create();
    using second = EventFd.create();
    const seen: number[] = [];
    event.watch((count) => seen.push(count), { spin: Infinity });
    let worked = 0;
    const work = (): void => {
      worked++;
      if (seen.length < 2) setImmediate(work);
    };
    work();
    await until(() => worked > 1);
    event.signal(7);
    await until(() => seen.length > 0);
    second.watch((count) => seen.push(count), { spin: Infinity });
    second.signal(8);
    await until(() => seen.length > 1);
    event.signal(9);
    await until(() => seen.length > 2);
    expect(seen).toEqual([7, 8, 9]);
  });

  test('has done with a signal before the next one, whoever took it', async () => {
    using event = EventFd.create();
    const seen: number[] = [];
    event.watch((count) => seen.push(count), { spin: Infinity });
    event.signal(4);
    expect(event.read()).toBe(4);
    // With nothing else to do, as it spins then, and with something to do in each turn.
    expect(await loopSleeps()).toBe(false);
    await turns();
    expect(seen).toEqual([]);
    event.signal(5);
    await until(() => seen.length > 0);
    expect(seen).toEqual([5]);
  });

  test('falls asleep when the time is over, and each signal begins it anew', async () => {
    using event = EventFd.create();
    let asleep: Promise<boolean> | undefined;
    event.watch(
      () => {
        asleep = loopSleeps();
      },
      { spin: 100_000 },
    );
    await until(loopSleeps);
    event.signal();
    await until(() => asleep !== undefined);
    expect(await asleep).toBe(false);
    await until(loopSleeps);
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
    await until(() => calls > 0);
    await until(loopSleeps);
    expect(openFds()).toBe(before);
  });
});
