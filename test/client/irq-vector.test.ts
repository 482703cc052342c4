// SPDX-License-Identifier: MIT
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { getEventListeners } from 'node:events';
import { EventFd } from '../../lib/native';
import { addon } from '../../lib/native/addon';
import { fakeIrq } from './irq-support';
import { SET_IRQS, atEnd, bare, failure, like, openFds, turns, until, warmUp } from './support';

describe('polling', () => {
  test('takes the counter without waiting', async () => {
    const { irq, device } = await fakeIrq();
    await irq.enable(2);
    expect(irq.enabled).toBe(2);
    const vector = irq.vector(1);
    expect(vector.poll()).toBe(0);
    device(1).signal(3);
    expect([vector.poll(), vector.poll(), irq.vector(0).poll()]).toEqual([3, 0, 0]);
  });

  test('a vector that is not enabled', async () => {
    const { irq } = await fakeIrq();
    const vector = irq.vector(3);
    expect(vector).toBe(irq.vector(3));
    expect([vector.enabled, vector.fd]).toEqual([false, null]);
    expect(() => vector.poll()).toThrow(like(failure('ERR_VFIO_USER_CLOSED', 'call enable()')));
    expect(() => vector.signals()).toThrow(like(failure('ERR_VFIO_USER_CLOSED', 'Vector 3')));
  });

  test.each([-1, 4, 0.5, NaN])('vector %s of 4', async (number) => {
    const { irq } = await fakeIrq();
    expect(() => irq.vector(number)).toThrow(like({ code: 'ERR_OUT_OF_RANGE' }));
  });

  test.each([0, -1, 5, 1.5, NaN])('enable(%s) of 4', async (count) => {
    const { irq, server } = await fakeIrq();
    await expect(irq.enable(count)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    expect(server.count(SET_IRQS)).toBe(0);
  });
});

describe('signals()', () => {
  test('counts what came before and between the turns of the loop', async () => {
    const { irq, device } = await fakeIrq();
    await irq.enable(1);
    device(0).signal(2);
    const got: number[] = [];
    for await (const count of irq.vector(0).signals()) {
      got.push(count);
      if (got.length === 1) {
        device(0).signal();
        await turns();
        device(0).signal(4);
        await turns();
      }
      if (got.length === 2) break;
    }
    expect(got).toEqual([2, 5]);
    // Nobody listens any more: what comes is kept for the next who looks.
    device(0).signal(7);
    await turns();
    expect(irq.vector(0).poll()).toBe(7);
  });

  test('a vector is iterable itself, and several loops get every count', async () => {
    const { irq, device } = await fakeIrq();
    await irq.enable(1);
    const streams = [irq.vector(0)[Symbol.asyncIterator](), irq.vector(0).signals()];
    const nexts = streams.map((stream) => stream.next());
    device(0).signal(6);
    expect(await Promise.all(nexts)).toEqual([
      { done: false, value: 6 },
      { done: false, value: 6 },
    ]);
    for (const stream of streams) await stream.return();
    expect(await streams[0]!.next()).toEqual({ done: true, value: undefined });
  });

  test('disable and close end loops', async () => {
    const { irq } = await fakeIrq();
    await irq.enable(1);
    const first = irq.vector(0).signals();
    const waiting = [first.next(), first.next()];
    await irq.disable();
    expect(await Promise.all(waiting)).toEqual([
      { done: true, value: undefined },
      { done: true, value: undefined },
    ]);
    await irq.enable(1);
    const late = irq.vector(0).signals();
    irq.release();
    expect(await late.next()).toEqual({ done: true, value: undefined });
  });

  test('the end of the connection is thrown after what was counted', async () => {
    const { irq, server, device } = await fakeIrq();
    await irq.enable(2);
    const [idle, busy] = [irq.vector(0).signals(), irq.vector(1).signals()];
    const failed = expect(idle.next()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
    device(1).signal();
    await busy.next();
    device(1).signal(2);
    await turns();
    server.close();
    await failed;
    expect(await busy.next()).toEqual({ done: false, value: 2 });
    await expect(busy.next()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DISCONNECTED' });
    expect(await busy.next()).toEqual({ done: true, value: undefined });
  });

  test('an AbortSignal ends a loop, and nothing is left of it', async () => {
    warmUp();
    const { irq, device } = await fakeIrq();
    await irq.enable(1);
    const before = openFds();
    const controller = new AbortController();
    const { signal } = controller;
    const reason = new Error('enough');
    const stream = irq.vector(0).signals({ signal });
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    const next = stream.next();
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    expect(openFds()).toBeGreaterThan(before);
    controller.abort(reason);
    await expect(next).rejects.toBe(reason);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    expect(openFds()).toBe(before);
    expect(await stream.next()).toEqual({ done: true, value: undefined });
    await expect(irq.vector(0).signals({ signal }).next()).rejects.toBe(reason);
    device(0).signal();
    expect(irq.vector(0).poll()).toBe(1);
  });

  test('a loop that is left takes its listener from the signal', async () => {
    const { irq, device } = await fakeIrq();
    await irq.enable(1);
    const { signal } = new AbortController();
    device(0).signal();
    const got: number[] = [];
    for await (const count of irq.vector(0).signals({ signal })) {
      got.push(count);
      expect(getEventListeners(signal, 'abort')).toHaveLength(1);
      break;
    }
    expect(got).toEqual([1]);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });
});

describe('where vectors go', () => {
  test('an eventfd of the caller gets the signals, and stays the caller’s', async () => {
    const { irq, device } = await fakeIrq();
    const own = EventFd.create();
    atEnd(() => {
      own.close();
    });
    await irq.enable([own]);
    expect(irq.vector(0).fd).toBe(own.fd);
    device(0).signal(2);
    expect(own.read()).toBe(2);
    await irq.disable();
    expect(own.closed).toBe(false);
    own.signal();
    expect(own.read()).toBe(1);
  });

  test('vectors that are left out split the messages: no descriptor stands for nothing', async () => {
    const { irq, server } = await fakeIrq('msix', 8);
    const handler = (): void => undefined;
    await irq.enable([handler, handler, null, handler, null, null, handler]);
    expect(irq.enabled).toBe(4);
    expect(server.payloads(SET_IRQS)).toEqual([
      bare('14000000 24000000 02000000 00000000 02000000'),
      bare('14000000 24000000 02000000 03000000 01000000'),
      bare('14000000 24000000 02000000 06000000 01000000'),
    ]);
  });

  test('unref lets the event loop end', async () => {
    const { irq } = await fakeIrq();
    const vector = irq.vector(0);
    const setRef = jest.spyOn(addon(), 'setWatcherRef');
    atEnd(() => {
      setRef.mockRestore();
    });
    const told = (): boolean[] => setRef.mock.calls.map(([, on]) => on);
    vector.unref();
    expect(told()).toEqual([]);
    await irq.enable([() => undefined]);
    expect(told()).toEqual([false]);
    vector.ref();
    vector.unref();
    await irq.disable();
    expect(told()).toEqual([false, true, false]);
    vector.ref();
    await irq.enable([() => undefined]);
    expect(told()).toEqual([false, true, false]);
  });

  test('deliveries are told on a diagnostics channel', async () => {
    const { irq, device } = await fakeIrq();
    const told: unknown[] = [];
    const listener = (message: unknown): void => void told.push(message);
    subscribe('vfio-user:irq', listener);
    await irq.enable([() => undefined]);
    device(0).signal(3);
    await until(() => told.length === 1);
    unsubscribe('vfio-user:irq', listener);
    expect(told).toEqual([{ endpoint: expect.any(String) as string, index: 2, vector: 0, signals: 3 }]);
  });
});
