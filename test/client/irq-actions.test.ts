// SPDX-License-Identifier: MIT
import { type VfioUserIrq } from '../../lib/client';
import { EventFd } from '../../lib/native';
import { TestModel } from '../server/support';
import { fakeIrq, irqInfo } from './irq-support';
import {
  GET_IRQ_INFO,
  SET_IRQS,
  bare,
  fakeDevice,
  gate,
  servedDevice,
  turns,
  until,
  type FakeServer,
} from './support';

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
