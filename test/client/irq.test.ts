// SPDX-License-Identifier: MIT
import { EventFd } from '../../lib/native';
import { PciIrq } from '../../lib/pci';
import { TestModel } from '../server/support';
import {
  GET_IRQ_INFO,
  SET_IRQS,
  VERSION,
  atEnd,
  bare,
  failure,
  fakeDevice,
  openFds,
  servedDevice,
  u32,
  until,
  version,
  warmUp,
  words,
  type Handlers,
  type Heard,
} from './support';

/** `struct vfio_irq_info`: argsz, flags (1 is EVENTFD), index, count. */
const info = (index: number, count: number, flags = 1): Uint8Array => u32(16, flags, index, count);
const msix = (count: number, more: Handlers = {}): Handlers => ({ [GET_IRQ_INFO]: info(2, count), ...more });
const nothing = (): void => undefined;
const handlers = (count: number): (() => void)[] => new Array<() => void>(count).fill(nothing);

/** A server that keeps the eventfds that it gets, by vector. */
function keeper(): { eventFds: EventFd[]; setIrqs: (heard: Heard) => Uint8Array } {
  const eventFds: EventFd[] = [];
  atEnd(() => {
    for (const eventFd of eventFds) eventFd.close();
  });
  return {
    eventFds,
    setIrqs: ({ fds }) => {
      for (let index = 0; index < fds.length; index++) eventFds.push(EventFd.fromFd(fds.take(index)!));
      return new Uint8Array(0);
    },
  };
}

test('an index is asked for once', async () => {
  const { device, server } = await fakeDevice(msix(4));
  const irq = await device.irq('msix');
  expect(irq).toMatchObject({ index: 2, count: 4, flags: 1, enabled: 0 });
  expect(await device.irq(PciIrq.msix)).toBe(irq);
  expect(server.payloads(GET_IRQ_INFO)).toEqual([bare('10000000 00000000 02000000 00000000')]);
});

test('vectors by the billion are no more than a device can have', async () => {
  const { device, server } = await fakeDevice(msix(0xffff_ffff));
  const irq = await device.irq('msix');
  expect(irq.count).toBe(65_535);
  await irq.mask();
  // `struct vfio_irq_set`: argsz, flags (1 is DATA_NONE, 8 ACTION_MASK), index, start, count.
  expect(server.payloads(SET_IRQS)).toEqual([bare('14000000 09000000 02000000 00000000 ffff0000')]);
});

test.each([
  ['another index', info(1, 4)],
  ['12 bytes', u32(16, 1, 2)],
])('a reply with %s', async (_what, answer) => {
  const { device } = await fakeDevice({ [GET_IRQ_INFO]: answer });
  await expect(device.irq('msix')).rejects.toMatchObject({ code: 'ERR_VFIO_USER_PROTOCOL' });
});

test('what enable and disable send', async () => {
  const { device, server } = await fakeDevice(msix(4));
  const irq = await device.irq('msix');
  await irq.enable(handlers(3));
  expect(irq.enabled).toBe(3);
  await irq.disable();
  expect(irq.enabled).toBe(0);
  await irq.disable();
  // struct vfio_irq_set: argsz 20, flags, index 2, start, count.
  expect(server.payloads(SET_IRQS)).toEqual([
    bare('14000000 24000000 02000000 00000000 03000000'), // DATA_EVENTFD, ACTION_TRIGGER
    bare('14000000 21000000 02000000 00000000 00000000'), // DATA_NONE, ACTION_TRIGGER
  ]);
  expect(server.heard.filter((one) => one.command === SET_IRQS).map((one) => one.fds.length)).toEqual([3, 0]);
});

test.each([
  [8, [8, 8, 4]],
  [1, new Array<number>(20).fill(1)],
  [0, new Array<number>(20).fill(1)],
  [200, [16, 4]],
])('to a server that takes %s descriptors at once, in parts', async (most, parts) => {
  const { device, server } = await fakeDevice(
    msix(32, { [VERSION]: version(`{"capabilities":{"max_msg_fds":${most}}}`) }),
  );
  await (await device.irq('msix')).enable(handlers(20));
  const sent = server.heard.filter((one) => one.command === SET_IRQS);
  expect(sent.map((one) => one.fds.length)).toEqual(parts);
  let start = 0;
  for (const one of sent) {
    expect(words(one.payload).slice(3)).toEqual([start, one.fds.length]);
    start += one.fds.length;
  }
});

test('more handlers than vectors, and none', async () => {
  const { device, server } = await fakeDevice(msix(2));
  const irq = await device.irq('msix');
  await expect(irq.enable(handlers(3))).rejects.toMatchObject({
    code: 'ERR_OUT_OF_RANGE',
    message: expect.stringContaining('has 2 vectors') as string,
  });
  await expect(irq.enable([])).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
  expect(server.count(SET_IRQS)).toBe(0);
});

test('an index that cannot signal eventfds', async () => {
  const { device } = await fakeDevice({ [GET_IRQ_INFO]: info(0, 1, 0) });
  await expect((await device.irq('intx')).enable(handlers(1))).rejects.toMatchObject(
    failure('ERR_VFIO_USER_UNSUPPORTED', 'eventfds'),
  );
});

test('signals arrive, and coalesce with their count', async () => {
  const { eventFds, setIrqs } = keeper();
  const { device } = await fakeDevice(msix(4, { [SET_IRQS]: setIrqs }));
  const irq = await device.irq('msix');
  const got: string[] = [];
  await irq.enable(
    [0, 1, 2].map(
      (vector) =>
        (signals: number): void =>
          void got.push(`${vector}:${signals}`),
    ),
  );
  eventFds[1]!.signal();
  eventFds[1]!.signal(2);
  await until(() => got.length === 1);
  eventFds[2]!.signal();
  await until(() => got.length === 2);
  expect(got).toEqual(['1:3', '2:1']);
});

test('enabling again replaces what was enabled', async () => {
  const { eventFds, setIrqs } = keeper();
  const { device } = await fakeDevice(msix(4, { [SET_IRQS]: setIrqs }));
  const irq = await device.irq('msix');
  const got: string[] = [];
  await irq.enable([(): void => void got.push('old')]);
  await irq.enable([(): void => void got.push('new')]);
  eventFds[0]!.signal();
  eventFds[1]!.signal();
  await until(() => got.length === 1);
  expect(got).toEqual(['new']);
});

test('a server that refuses the second part gives back the first, and nothing stays open', async () => {
  warmUp();
  const { device, server } = await fakeDevice(
    msix(32, { [SET_IRQS]: (heard) => (words(heard.payload)[3] === 8 ? 22 : new Uint8Array(0)) }),
  );
  const irq = await device.irq('msix');
  const before = openFds();
  await expect(irq.enable(handlers(20))).rejects.toMatchObject({
    errnoName: 'EINVAL',
    command: 'DEVICE_SET_IRQS',
  });
  expect(irq.enabled).toBe(0);
  expect(openFds()).toBe(before);
  expect(server.payloads(SET_IRQS).map((payload) => payload.slice(8, 10))).toEqual(['24', '24', '21']);
});

test('closing the device closes the eventfds, also while they are being enabled', async () => {
  warmUp();
  const before = openFds();
  for (const answer of [new Uint8Array(0), 'silence'] as const) {
    const { device, server } = await fakeDevice(msix(4, { [SET_IRQS]: answer }));
    const irq = await device.irq('msix');
    const enabled = irq.enable(handlers(4));
    await until(() => server.count(SET_IRQS) === 1);
    if (answer === 'silence') {
      await device.close();
      await expect(enabled).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    } else {
      await enabled;
      await device.close();
    }
    server.close();
    expect(openFds()).toBe(before);
    await expect(irq.enable(handlers(1))).rejects.toMatchObject({ code: 'ERR_VFIO_USER_CLOSED' });
    expect(openFds()).toBe(before);
  }
});

test('interrupts of a served device', async () => {
  const model = new TestModel();
  const device = await servedDevice(model);
  const irq = await device.irq('msix');
  const got: number[] = [];
  await irq.enable([nothing, (signals: number): void => void got.push(signals)]);
  expect(model.client!.setInterrupt(true, 1)).toBe(true);
  await until(() => got.length === 1);
  await irq.disable();
  expect(model.client!.setInterrupt(true, 1)).toBe(false);
  expect(got).toEqual([1]);
});
