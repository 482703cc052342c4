// SPDX-License-Identifier: MIT
import { type VfioUserIrq } from '../../lib/client';
import { EventFd } from '../../lib/native';
import {
  GET_IRQ_INFO,
  SET_IRQS,
  atEnd,
  fakeDevice,
  u32,
  words,
  type FakeServer,
  type Handlers,
  type Heard,
} from './support';

/** `struct vfio_irq_info`: argsz, flags (1 EVENTFD, 2 MASKABLE), index, count; of the index that was asked for. */
export const irqInfo =
  (count: number, flags = 1) =>
  ({ payload }: Heard): Uint8Array =>
    u32(16, flags, words(payload)[2]!, count);

export interface IrqFixture {
  irq: VfioUserIrq;
  server: FakeServer;
  /** What the device signals, by vector. */
  device: (vector: number) => EventFd;
}

/** An index behind a server that keeps the eventfds of triggers. */
export async function fakeIrq(
  name: 'intx' | 'msix' | 'err' = 'msix',
  count = 4,
  more: Handlers = {},
  unmaskErrno?: number,
): Promise<IrqFixture> {
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
