// SPDX-License-Identifier: MIT
/** How the event loop waits for interrupts: asleep, awake for a while, or always awake. */
import type { VfioUserIrq } from '../../lib/client';
import type { IrqOptions } from '../../lib/irq';
import { EventFd } from '../../lib/native';
import { loopSleeps } from '../support/wait';
import { GET_IRQ_INFO, SET_IRQS, atEnd, fakeDevice, u32, until, type FakeServer } from './support';

/** MSI-X with one vector, and what the device signals it with. */
async function fakeIrq(): Promise<{ irq: VfioUserIrq; server: FakeServer; signal: (count: number) => void }> {
  let eventFd: EventFd | undefined;
  atEnd(() => {
    eventFd?.close();
  });
  const { device, server } = await fakeDevice({
    // `struct vfio_irq_info`: argsz, flags (1 EVENTFD), index, count.
    [GET_IRQ_INFO]: u32(16, 1, 2, 1),
    [SET_IRQS]: ({ fds }) => {
      if (fds.length > 0) eventFd = EventFd.fromFd(fds.take(0)!);
      return new Uint8Array(0);
    },
  });
  return {
    irq: await device.irq('msix'),
    server,
    signal: (count) => {
      eventFd!.signal(count);
    },
  };
}

const MINUTE = 60_000_000;

test.each([
  ['interrupt', {}, true],
  ['interrupt, by name', { mode: 'interrupt' }, true],
  ['adaptive', { mode: 'adaptive', spin: MINUTE }, false],
  ['adaptive, without time', { mode: 'adaptive', spin: 0 }, true],
  ['poll', { mode: 'poll' }, false],
] as const)('%s', async (_name, options, asleep) => {
  const { irq, signal } = await fakeIrq();
  const got: number[] = [];
  await irq.enable([(signals) => got.push(signals)], options);
  signal(2);
  await until(() => got.length === 1);
  if (asleep) await until(loopSleeps);
  else expect(await loopSleeps()).toBe(false);
  signal(3);
  await until(() => got.length === 2);
  expect(got).toEqual([2, 3]);
  await irq.disable();
  await until(loopSleeps);
});

test('adaptive falls asleep soon', async () => {
  const { irq } = await fakeIrq();
  await irq.enable([() => undefined], { mode: 'adaptive' });
  await until(loopSleeps);
});

test('only while something listens', async () => {
  const { irq, signal } = await fakeIrq();
  await irq.enable(1, { mode: 'poll' });
  await until(loopSleeps);
  signal(1);
  const got: number[] = [];
  for await (const count of irq.vector(0)) {
    got.push(count);
    expect(await loopSleeps()).toBe(false);
    break;
  }
  expect(got).toEqual([1]);
  await until(loopSleeps);
});

test('what makes no sense is refused, and nothing is sent', async () => {
  const { irq, server } = await fakeIrq();
  const strange: IrqOptions = JSON.parse('{"mode":"fast"}') as IrqOptions;
  for (const options of [{ spin: 5 }, { mode: 'poll', spin: 5 } as const, strange])
    await expect(irq.enable(1, options)).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_VALUE' });
  for (const spin of [-1, NaN])
    await expect(irq.enable(1, { mode: 'adaptive', spin })).rejects.toMatchObject({
      code: 'ERR_OUT_OF_RANGE',
    });
  expect(server.count(SET_IRQS)).toBe(0);
});
