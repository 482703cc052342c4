// SPDX-License-Identifier: MIT
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { getEventListeners } from 'node:events';
import { type VfioUserIrq } from '../../lib/client';
import { EventFd } from '../../lib/native';
import { addon } from '../../lib/native/addon';
import { TestModel } from '../server/support';
import {
  GET_IRQ_INFO,
  SET_IRQS,
  atEnd,
  bare,
  failure,
  fakeDevice,
  gate,
  like,
  openFds,
  servedDevice,
  turns,
  u32,
  until,
  warmUp,
  words,
  type FakeServer,
  type Handlers,
  type Heard,
} from './support';

/** `struct vfio_irq_info`: argsz, flags (1 EVENTFD, 2 MASKABLE), index, count; of the index that was asked for. */
const irqInfo =
  (count: number, flags = 1) =>
  ({ payload }: Heard): Uint8Array =>
    u32(16, flags, words(payload)[2]!, count);

interface Fixture {
  irq: VfioUserIrq;
  server: FakeServer;
  /** What the device signals, by vector. */
  device: (vector: number) => EventFd;
}

/** An index behind a server that keeps the eventfds of triggers. */
async function fakeIrq(
  name: 'intx' | 'msix' | 'err' = 'msix',
  count = 4,
  more: Handlers = {},
  unmaskErrno?: number,
): Promise<Fixture> {
  const eventFds: (EventFd | undefined)[] = [];
  atEnd(() => {
    for (const eventFd of eventFds) eventFd?.close();
  });
  const { device, server } = await fakeDevice({
    [GET_IRQ_INFO]: irqInfo(count),
    [SET_IRQS]: ({ payload, fds }) => {
      const [, flags, , start] = words(payload.subarray(0, 20));
      if (flags === 0x11 && unmaskErrno !== undefined) return unmaskErrno;
      for (let i = 0; i < fds.length && flags === 0x24; i++) {
        eventFds[start! + i]?.close();
        eventFds[start! + i] = EventFd.fromFd(fds.take(i)!);
      }
      return new Uint8Array(0);
    },
    ...more,
  });
  return { irq: await device.irq(name), server, device: (vector) => eventFds[vector]! };
}

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

// struct vfio_irq_set: argsz, flags (data none 1, bool 2, eventfd 4; mask 8, unmask 16, trigger 32), index, start, count.
describe('what is sent', () => {
  test.each([
    ['trigger()', (irq: VfioUserIrq) => irq.trigger(), '14000000 21000000 02000000 00000000 04000000'],
    [
      'mask from 1',
      (irq: VfioUserIrq) => irq.mask({ start: 1 }),
      '14000000 09000000 02000000 01000000 03000000',
    ],
    [
      'unmask 2 from 1',
      (irq: VfioUserIrq) => irq.unmask({ start: 1, count: 2 }),
      '14000000 11000000 02000000 01000000 02000000',
    ],
    [
      'trigger by booleans',
      (irq: VfioUserIrq) => irq.trigger([true, false, true]),
      '17000000 22000000 02000000 00000000 03000000 010001',
    ],
    [
      'mask by booleans',
      (irq: VfioUserIrq) => irq.mask([true]),
      '15000000 0a000000 02000000 00000000 01000000 01',
    ],
    [
      'unmask by booleans',
      (irq: VfioUserIrq) => irq.unmask([false]),
      '15000000 12000000 02000000 00000000 01000000 00',
    ],
    [
      'one vector: trigger',
      (irq: VfioUserIrq) => irq.vector(3).trigger(),
      '14000000 21000000 02000000 03000000 01000000',
    ],
    [
      'one vector: mask',
      (irq: VfioUserIrq) => irq.vector(3).mask(),
      '14000000 09000000 02000000 03000000 01000000',
    ],
    [
      'one vector: unmask',
      (irq: VfioUserIrq) => irq.vector(3).unmask(),
      '14000000 11000000 02000000 03000000 01000000',
    ],
    [
      'no eventfd to mask',
      (irq: VfioUserIrq) => irq.vector(2).bind('mask', null),
      '14000000 0c000000 02000000 02000000 01000000',
    ],
  ])('%s', async (_name, act, payload) => {
    const { irq, server } = await fakeIrq();
    await act(irq);
    expect(server.payloads(SET_IRQS)).toEqual([bare(payload)]);
  });

  test('an eventfd to unmask', async () => {
    const { irq, server } = await fakeIrq();
    const own = EventFd.create();
    await irq.vector(1).bind('unmask', own);
    own.close();
    expect(server.payloads(SET_IRQS)).toEqual([bare('14000000 14000000 02000000 01000000 01000000')]);
    expect(server.heard.at(-1)!.fds.length).toBe(1);
  });

  test.each([
    ['beyond the last', { start: 2, count: 3 }],
    ['none', { start: 0, count: 0 }],
    ['a negative start', { start: -1 }],
    ['too many booleans', [true, true, true, true, true]],
    ['no booleans', []],
  ])('%s is out of range', async (_name, selection) => {
    const { irq, server } = await fakeIrq();
    await expect(irq.mask(selection)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    expect(server.count(SET_IRQS)).toBe(0);
  });

  test('what the server refuses', async () => {
    const { irq } = await fakeIrq('err', 1, { [SET_IRQS]: 22 });
    await expect(irq.mask()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_REMOTE', errnoName: 'EINVAL' });
    await expect(irq.enable(1)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_REMOTE', errnoName: 'EINVAL' });
    expect(irq.enabled).toBe(0);
  });
});

describe('one of INTx, MSI and MSI-X', () => {
  const disabled = (index: number): string => bare(`14000000 21000000 0${index}000000 00000000 00000000`);
  const enabled = (index: number): string => bare(`14000000 24000000 0${index}000000 00000000 01000000`);

  test('enabling one disables the other first; ERR and REQ stand beside', async () => {
    const { device, server } = await fakeDevice({ [GET_IRQ_INFO]: irqInfo(1) });
    const [intx, msi, msix, err, req] = await Promise.all(
      (['intx', 'msi', 'msix', 'err', 'req'] as const).map((name) => device.irq(name)),
    );
    await err!.enable(1);
    await intx!.enable(1);
    await msi!.enable(1);
    await msix!.enable(1);
    await req!.enable(1);
    expect([intx, msi, msix, err, req].map((irq) => irq!.enabled)).toEqual([0, 0, 1, 1, 1]);
    expect(server.payloads(SET_IRQS)).toEqual([
      enabled(3),
      enabled(0),
      disabled(0),
      enabled(1),
      disabled(1),
      enabled(2),
      enabled(4),
    ]);
  });

  test('calls at the same time are done one after the other', async () => {
    const { device, server } = await fakeDevice({ [GET_IRQ_INFO]: irqInfo(1) });
    const [msi, msix] = [await device.irq('msi'), await device.irq('msix')];
    await Promise.all([msi.enable(1), msix.enable(1), msi.enable(1)]);
    expect([msi.enabled, msix.enabled]).toEqual([1, 0]);
    expect(server.payloads(SET_IRQS)).toEqual([enabled(1), disabled(1), enabled(2), disabled(2), enabled(1)]);
  });
});

describe('the end of an INTx interrupt', () => {
  const UNMASK = bare('14000000 11000000 00000000 00000000 01000000');
  const unmasks = (server: FakeServer): number =>
    server.payloads(SET_IRQS).filter((p) => p === UNMASK).length;

  test('is told after the handler, once its promise has settled', async () => {
    const { irq, server, device } = await fakeIrq('intx', 1);
    const { opened, open } = gate();
    const handler = jest.fn(() => opened);
    await irq.enable([handler]);
    device(0).signal();
    await until(() => handler.mock.calls.length === 1);
    await turns();
    expect(unmasks(server)).toBe(0);
    open();
    await until(() => unmasks(server) === 1);
    await irq.enable([() => undefined]);
    device(0).signal();
    await until(() => unmasks(server) === 2);
  });

  test('is told when a loop asks for the next one, or is left', async () => {
    const { irq, server, device } = await fakeIrq('intx', 1);
    await irq.enable(1);
    device(0).signal();
    let rounds = 0;
    for await (const count of irq.vector(0)) {
      expect(count).toBe(1);
      expect(unmasks(server)).toBe(rounds);
      await turns();
      expect(unmasks(server)).toBe(rounds++);
      if (rounds === 2) break;
      void turns().then(() => {
        device(0).signal();
      });
    }
    await until(() => unmasks(server) === 2);
  });

  test('is not told for MSI-X, nor when polled', async () => {
    const { irq, server, device } = await fakeIrq('intx', 1);
    await irq.enable(1);
    device(0).signal();
    expect(irq.vector(0).poll()).toBe(1);
    const msix = await fakeIrq('msix', 1);
    let calls = 0;
    await msix.irq.enable([() => calls++]);
    msix.device(0).signal();
    await until(() => calls === 1);
    await turns();
    expect([server.count(SET_IRQS), msix.server.count(SET_IRQS)]).toEqual([1, 1]);
  });

  test('a server that knows no masks is asked once', async () => {
    const { irq, server, device } = await fakeIrq('intx', 1, {}, 22);
    let calls = 0;
    await irq.enable([() => calls++]);
    for (let turn = 1; turn <= 3; turn++) {
      device(0).signal();
      await until(() => calls === turn);
      await turns();
    }
    expect(unmasks(server)).toBe(1);
  });

  test('against our server: what was signalled meanwhile is delivered after the unmask', async () => {
    const model = new TestModel();
    const device = await servedDevice(model);
    const intx = await device.irq('intx');
    const got: number[] = [];
    await intx.enable([
      (signals) => {
        got.push(signals);
        model.client!.setInterrupt(false);
      },
    ]);
    await intx.mask();
    expect(model.client!.setInterrupt(true)).toBe(false);
    await intx.unmask();
    await until(() => got.length === 1);
    // The client triggers the interrupt itself.
    await intx.vector(0).trigger();
    await until(() => got.length === 2);
    // An eventfd of ours unmasks, as KVM does for a guest.
    const resample = EventFd.create();
    await intx.vector(0).bind('unmask', resample);
    await intx.vector(0).mask();
    model.client!.setInterrupt(true);
    resample.signal();
    await until(() => got.length === 3);
    resample.close();
    expect(got).toEqual([1, 1, 1]);
  });
});
