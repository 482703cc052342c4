// SPDX-License-Identifier: MIT
/** Faults of the controller itself and of its registers. */
import { performance } from 'node:perf_hooks';
import { gate } from '../../support/gate';
import { turns, until } from './support';
import { useHost } from './use-host';

const [WRITE, READ, ASYNC_EVENT_REQUEST] = [1, 2, 0x0c];
const CSTS = 0x1c;
const CC = 0x14;

const t = useHost();

describe('the controller', () => {
  test('fatal: CSTS.CFS, until it is reset', async () => {
    t.host.controller.faults.add('on=write,nth=2,fatal');
    expect(await t.status({ opcode: WRITE })).toBe('00/00');
    t.send({ opcode: WRITE });
    t.send({ opcode: READ });
    await until(() => t.host.read32(CSTS) === 3, 'CSTS.CFS');
    await turns();
    expect(t.host.take(t.queue)).toBeUndefined();
    expect(t.host.controller.fault).toBe('a fault was asked for');
    t.host.write32(CC, 0);
    await until(() => t.host.read32(CSTS) === 0);
    t.host.enable();
    t.queue = await t.host.createQueues();
    expect(await t.status({ opcode: WRITE })).toBe('00/00');
  });

  test('event: an Asynchronous Event Request completes, and so does the command', async () => {
    const request = t.send({ opcode: ASYNC_EVENT_REQUEST }, t.host.admin);
    t.host.controller.faults.add('on=read,count=1,event=temperature');
    expect(await t.status({ opcode: READ })).toBe('00/00');
    // NVMe base 2.0, figure 146: type SMART, temperature threshold, log page 2.
    expect(await t.host.completion(t.host.admin)).toMatchObject({
      cid: request,
      status: '00/00',
      dw0: 0x02_01_01,
    });
  });

  test('disconnect: the client is gone before the command completes', async () => {
    t.host.controller.faults.add('on=read,nth=1,disconnect');
    t.send({ opcode: READ });
    await until(() => t.host.read32(CSTS) === 0, 'the controller is reset');
    expect(t.host.take(t.queue, false)).toBeUndefined();
  });

  test('remove: registers read as ones, and nothing happens any more', async () => {
    t.host.controller.faults.add('on=read,nth=1,remove');
    t.send({ opcode: READ });
    await until(() => t.host.state.unplugged, 'the device is gone');
    await turns();
    expect(t.host.take(t.queue, false)).toBeUndefined();
    expect(t.host.memory.busMaster).toBe(false);
  });

  test('at once', async () => {
    const { faults } = t.host.controller;
    const request = t.send({ opcode: ASYNC_EVENT_REQUEST }, t.host.admin);
    faults.inject('event=persistent-internal-error');
    expect(await t.host.completion(t.host.admin)).toMatchObject({ cid: request, dw0: 0x01_03_00 });
    faults.inject({ fatal: true });
    expect(t.host.read32(CSTS)).toBe(3);
    faults.inject('remove');
    expect(t.host.state.unplugged).toBe(true);
    faults.inject('disconnect');
    expect(t.host.state.unplugged).toBe(false);
    // Without a client.
    for (const action of ['disconnect', 'remove', 'event=spare']) faults.inject(action);
    expect(() => {
      faults.inject('hang');
    }).toThrow('at once can be done one of fatal, event, disconnect, remove');
  });
});

describe('registers', () => {
  /** An access as the server does it. */
  const access = (kind: 'read' | 'write', offset: number, data: Uint8Array): void | Promise<void> =>
    kind === 'read'
      ? t.host.state.regions.get(0)?.read?.(offset, data)
      : t.host.state.regions.get(0)?.write?.(offset, data, false);

  test('are read late', async () => {
    t.host.controller.faults.add('register=csts,access=read,delay=30ms');
    const begin = performance.now();
    const data = new Uint8Array(4);
    await access('read', CSTS, data);
    expect(performance.now() - begin).toBeGreaterThanOrEqual(30);
    expect([...data]).toEqual([1, 0, 0, 0]);
    // Others are not.
    expect(access('read', CC, new Uint8Array(4))).toBeUndefined();
  });

  test('are written late', async () => {
    t.host.controller.faults.add('register=cc,delay=20ms');
    await access('write', CC, new Uint8Array(4));
    expect(t.host.read32(CSTS)).toBe(0);
  });

  test('an error of a late access is told as without faults', async () => {
    t.host.controller.faults.add('register=any,delay=1ms');
    await expect(access('read', 2, new Uint8Array(4))).rejects.toMatchObject({ errno: 22 });
  });

  test('the end of the client ends the wait', async () => {
    const { opened, open } = gate();
    t.host.controller.faults.add('register=csts,delay=10h');
    const late = Promise.resolve(access('read', CSTS, new Uint8Array(4))).then(open);
    t.host.detach();
    await opened;
    await late;
  });

  test('fatal, remove and disconnect', () => {
    t.host.controller.faults.add('register=csts,nth=2,fatal');
    expect([t.host.read32(CSTS), t.host.read32(CSTS)]).toEqual([1, 3]);
    t.host.controller.faults.add('register=csts,nth=1,remove');
    expect(t.host.read32(CSTS)).toBe(0xffff_ffff);
    t.host.controller.faults.add('register=aqa,nth=1,disconnect');
    t.host.write32(0x24, 0);
    expect(t.host.state.unplugged).toBe(false);
  });
});
