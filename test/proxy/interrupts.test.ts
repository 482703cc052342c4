// SPDX-License-Identifier: MIT
/** Interrupts of a device behind a proxy. */
import { connect } from '../../lib/client';
import { EventFd } from '../../lib/native';
import { PciIrq } from '../../lib/pci';
import { Errno } from '../../lib/server';
import { openFds } from '../support/resources';
import { until } from '../support/wait';
import { RawClient, TestModel, setIrqs } from '../server/support';
import { useChains } from './fixture';

const chain = useChains();

describe('interrupts', () => {
  test('are signalled by the device to the client’s eventfds; the proxy keeps no descriptor for them', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const before = openFds();
    const irq = await client.irq('msix');
    await irq.enable(3);
    // One of the client's and one of the device's server, for each of three vectors.
    expect(openFds()).toBe(before + 6);
    model.client?.setInterrupt(true, 1);
    expect([0, 1, 2].map((vector) => irq.vector(vector).poll())).toEqual([0, 1, 0]);
    await irq.disable();
    expect(openFds()).toBe(before);
    expect(model.client?.setInterrupt(true, 1)).toBe(false);
  });

  test('vectors are added and taken away one by one, and the others go on', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    const raw = await RawClient.connect(socket);
    const eventFds = [EventFd.create(), EventFd.create()];
    const TRIGGER_BY_EVENTFD = 0x24;
    const set = (vector: number, fds: number[]): Promise<number> =>
      raw.errnoOf(8, setIrqs(TRIGGER_BY_EVENTFD, PciIrq.msix, vector, 1), fds);
    expect(await set(0, [eventFds[0]!.fd])).toBe(0);
    expect(await set(3, [eventFds[1]!.fd])).toBe(0);
    for (const vector of [0, 1, 3]) model.client?.setInterrupt(true, vector);
    expect(eventFds.map((eventFd) => eventFd.read())).toEqual([1, 1]);
    expect(await set(0, [])).toBe(0);
    for (const vector of [0, 1, 3]) model.client?.setInterrupt(true, vector);
    expect(eventFds.map((eventFd) => eventFd.read())).toEqual([0, 1]);
    expect(await set(4, [eventFds[0]!.fd])).toBe(Errno.EINVAL);
    expect(await raw.errnoOf(8, setIrqs(TRIGGER_BY_EVENTFD, PciIrq.msi, 0, 1), [eventFds[0]!.fd])).toBe(
      Errno.EINVAL,
    );
    for (const eventFd of eventFds) eventFd.close();
    raw.close();
  });

  test('INTx is masked and unmasked, by message and by eventfd', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const irq = await client.irq('intx');
    const eventFd = EventFd.create();
    await irq.enable([eventFd]);
    model.client?.setInterrupt(true);
    expect(eventFd.read()).toBe(1);
    // The line is high still, so the end of the interrupt brings the next.
    await irq.vector(0).unmask();
    expect(eventFd.read()).toBe(1);
    const end = EventFd.create();
    await irq.vector(0).bind('unmask', end);
    end.signal();
    await until(() => eventFd.read() === 1, 'it is signalled anew');
    model.client?.setInterrupt(false);
    await irq.mask();
    await irq.unmask();
    expect(eventFd.read()).toBe(0);
    eventFd.close();
    end.close();
  });

  test('ERR is the device’s; a vector is triggered by the client', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const irq = await client.irq('err');
    const eventFd = EventFd.create();
    await irq.enable([eventFd]);
    expect(model.client?.trigger(PciIrq.err)).toBe(true);
    expect(eventFd.read()).toBe(1);
    await irq.trigger();
    await irq.trigger([false]);
    expect(eventFd.read()).toBe(1);
    eventFd.close();
  });

  test('REQ is handed on; when the client does not take it, the device is given back at once', async () => {
    for (const takes of [true, false]) {
      const model = new TestModel();
      model.irqs.set(PciIrq.req, 1);
      const { socket, device, proxy } = await chain(model);
      const client = await connect(socket);
      let asked = 0;
      const irq = await client.irq('req');
      if (takes) {
        await irq.enable([() => asked++]);
        await irq.trigger();
        await until(() => asked === 1, 'the client triggers its own');
      }
      model.client?.trigger(PciIrq.req);
      if (takes) {
        await until(() => asked === 2, 'the client is asked');
        expect(device.closed).toBe(false);
        await client.close();
      }
      expect((await proxy.gone).message).toMatch(/was asked back/);
      expect(device.closed).toBe(true);
      await client.close();
    }
  });
});
