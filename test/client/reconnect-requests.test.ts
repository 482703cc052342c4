// SPDX-License-Identifier: MIT
import { FakeEndpoint, comingBack, describedDevice, muted } from './reconnect-support';
import {
  REGION_WRITE,
  RESET,
  SET_IRQS,
  VERSION,
  bare,
  failure,
  like,
  turns,
  until,
  version,
} from './support';

const PAGE = 4096;
const GONE = failure('ERR_VFIO_USER_DISCONNECTED');

describe('requests', () => {
  test('those in flight: what asks is sent again, what acts fails', async () => {
    let silent = false;
    const endpoint = new FakeEndpoint((client) => {
      return client === 0 ? muted(describedDevice(), () => silent) : describedDevice();
    });
    const { device, events } = await comingBack(endpoint.path);
    const bar = await device.region(0);
    silent = true;
    const region = device.region(7);
    const info = device.info();
    const failing = [bar.read32(0), bar.readBytes(0, 100), device.flush()].map((one) =>
      expect(one).rejects.toMatchObject(
        failure('ERR_VFIO_USER_DISCONNECTED', 'may or may not have been carried out'),
      ),
    );
    await until(() => endpoint.now.heard.length >= 17 + 1 + 5);
    endpoint.now.close();
    await Promise.all(failing);
    const [, { requests }] = await events.next('disconnect');
    expect(requests).toBe(3);
    expect((await region).size).toBe(256);
    expect((await info).regionCount).toBe(8);
    expect(device.state).toBe('connected');
  });

  test('while there is no connection: what acts fails at once, what asks waits', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice());
    const { device, events } = await comingBack(endpoint.path);
    const bar = await device.region(0);
    const irq = await device.irq('msix');
    bar.posted = true;
    endpoint.stop();
    await events.next('disconnect');

    const waiting = failure('ERR_VFIO_USER_DISCONNECTED', 'is being waited for');
    await expect(bar.read32(0)).rejects.toMatchObject({ ...waiting, command: 'REGION_READ' });
    await expect(bar.write32(0, 1)).rejects.toMatchObject({ ...waiting, command: 'REGION_WRITE' });
    await expect(bar.write32(0, 1, { posted: false })).rejects.toMatchObject(waiting);
    await expect(device.flush()).rejects.toMatchObject(waiting);
    await expect(device.feature.set(1, new Uint8Array(4))).rejects.toMatchObject(waiting);
    await expect(irq.trigger()).rejects.toMatchObject(waiting);
    expect(() => bar.read32Sync(0)).toThrow(like(waiting));
    expect(() => {
      bar.write32Sync(0, 1);
    }).toThrow(like(waiting));
    expect(() => {
      device.flushSync();
    }).toThrow(like(waiting));
    expect(() => bar.map(0x1000, PAGE)).toThrow(like(waiting));

    const region = device.region(1);
    const enabled = irq.enable(2);
    await turns();
    endpoint.listen();
    expect((await region).size).toBe(0);
    await enabled;
    expect(endpoint.now.payloads(SET_IRQS)).toContain(bare('14000000 24000000 02000000 00000000 02000000'));
    expect(bar.posted).toBe(true);
  });

  test('a reset is not repeated, and not done on a server that came since', async () => {
    const endpoint = new FakeEndpoint(() => describedDevice({}, { [RESET]: 'silence' }));
    const { device, events } = await comingBack(endpoint.path);
    const reset = device.reset();
    await until(() => endpoint.now.count(RESET) === 1);
    endpoint.now.close();
    await expect(reset).rejects.toMatchObject({ ...GONE, command: 'DEVICE_RESET' });
    await events.next('reconnect');
    expect(endpoint.now.count(RESET)).toBe(0);
  });

  test('a question that ends each connection is given up', async () => {
    let poisoned = false;
    const endpoint = new FakeEndpoint(() =>
      describedDevice({}, { 16: () => (poisoned ? 'close' : new Uint8Array(0)) }),
    );
    const { device, events } = await comingBack(endpoint.path);
    poisoned = true;
    await expect(device.feature.get(1)).rejects.toMatchObject(GONE);
    await events.next('reconnect', 6);
    expect(events.of('disconnect').length).toBe(6);
  });

  test('a write that was collected for one message does not reach the next server', async () => {
    const endpoint = new FakeEndpoint(() =>
      describedDevice({}, { [VERSION]: version('{"capabilities":{"max_msg_fds":8,"write_multiple":true}}') }),
    );
    const { device, events } = await comingBack(endpoint.path);
    const bar = await device.region(0);
    // More than the socket takes, in one turn, so that the small write after it is collected.
    const flood = (value: number): void => {
      for (let count = 0; count < 500; count++)
        bar.writeBytes(0, new Uint8Array(0x1000), { posted: true }).catch(() => undefined);
      bar.write32(4, value, { posted: true }).catch(() => undefined);
    };
    flood(0xdead);
    endpoint.now.close();
    await events.next('reconnect');
    flood(0x600d);
    await device.info();
    const small = endpoint.now.payloads(REGION_WRITE).filter((payload) => payload.length < 100);
    expect(small).toEqual([bare('0400000000000000 00000000 04000000 0d600000')]);
    expect(endpoint.now.count(15)).toBe(0);
  });
});
