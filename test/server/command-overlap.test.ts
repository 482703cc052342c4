// SPDX-License-Identifier: MIT
import { connect } from '../../lib/client';
import { EventFd } from '../../lib/native';
import { CommandError } from '../../lib/server';
import { useServer } from './fixture';
import {
  F_NO_REPLY,
  access,
  dmaMap,
  dmaUnmap,
  gate,
  join,
  message,
  setIrqs,
  turns,
  u32,
  u64,
  until,
} from './support';

const t = useServer();
const ENXIO = 6;

/** Accesses of the slow regions 1 (BAR 1) and 2 (BAR 2) that are at work, as `read 1 0x8`; call to let one finish. */
let atWork: Map<string, (error?: Error) => void>;
beforeEach(() => {
  atWork = new Map();
  const slow = (what: string): Promise<void> =>
    new Promise((resolve, reject) => {
      atWork.set(what, (error) => {
        atWork.delete(what);
        if (error === undefined) resolve();
        else reject(error);
      });
    });
  for (const [index, concurrent] of [
    [1, false],
    [2, true],
  ] as const) {
    t.model.regions.set(index, {
      size: 64,
      concurrent,
      read: (offset) => slow(`read ${index} ${offset}`),
      write: (offset) => slow(`write ${index} ${offset}`),
    });
  }
});
const finish = (what: string, error?: Error): void => {
  expect([...atWork.keys()]).toContain(what);
  atWork.get(what)?.(error);
};
const read = (region: number, offset: number, id: number): void => {
  t.raw.send(message(9, access(region, offset, 4), id));
};
const write = (region: number, offset: number, id: number, flags = 0): void => {
  t.raw.send(message(10, join(access(region, offset, 4), u32(1)), id, flags));
};
const next = async (): Promise<number> => (await t.raw.receive()).id;
/** What is at work once the server has had its turns for more. */
const working = async (): Promise<string[]> => {
  await turns();
  return [...atWork.keys()];
};

describe('while a region handler is at work', () => {
  test('other regions and what concerns no register are served, and answered first', async () => {
    const event = EventFd.create();
    read(1, 0, 1);
    read(0, 0x10, 2);
    write(0, 0x10, 3);
    t.raw.send(message(4, u32(16, 0, 0, 0), 4));
    t.raw.send(message(5, join(u32(32, 0, 0, 0), u64(0, 0)), 5));
    t.raw.send(message(6, u32(4096, 0, 3, 0), 6));
    t.raw.send(message(7, u32(16, 0, 2, 0), 7));
    // VFIO_IRQ_SET_DATA_EVENTFD and _ACTION_TRIGGER
    t.raw.send(message(8, setIrqs(0x24, 2, 0, 1), 8), [event.fd]);
    read(2, 0, 9);
    for (const id of [2, 3, 4, 5, 6, 7, 8]) expect(await next()).toBe(id);
    expect(t.model.client?.setInterrupt(true, 0)).toBe(true);
    finish('read 2 0');
    expect(await next()).toBe(9);
    finish('read 1 0');
    expect(await next()).toBe(1);
    event.close();
  });

  test('accesses of the same region wait, in order', async () => {
    write(1, 0, 1);
    read(1, 4, 2);
    read(1, 8, 3);
    expect(await working()).toEqual(['write 1 0']);
    finish('write 1 0');
    expect(await next()).toBe(1);
    expect(await working()).toEqual(['read 1 4']);
    finish('read 1 4', new CommandError(ENXIO, 'not now'));
    expect((await t.raw.receive()).errno).toBe(ENXIO);
    expect(await working()).toEqual(['read 1 8']);
    finish('read 1 8');
    expect(await next()).toBe(3);
  });

  test('reads of a region overlap when it says so; writes are done alone', async () => {
    read(2, 0, 1);
    read(2, 4, 2);
    write(2, 8, 3);
    read(2, 12, 4);
    expect(await working()).toEqual(['read 2 0', 'read 2 4']);
    finish('read 2 4');
    expect(await next()).toBe(2);
    finish('read 2 0');
    expect(await next()).toBe(1);
    expect(await working()).toEqual(['write 2 8']);
    finish('write 2 8');
    expect(await next()).toBe(3);
    expect(await working()).toEqual(['read 2 12']);
    finish('read 2 12');
    expect(await next()).toBe(4);
  });

  test.each([
    ['DMA_MAP', 2, dmaMap(0x10_0000, 0x1000), 'mapped 0x100000'],
    ['DEVICE_RESET', 13, undefined, 'reset'],
    ['REGION_WRITE_MULTI', 15, join(u64(1), access(0, 4, 4), u64(7)), ''],
    ['DEVICE_FEATURE', 16, u32(16, 1), ''],
    ['MIG_DATA_READ', 17, u32(16, 0), ''],
    ['VERSION', 1, undefined, ''],
  ])('%s waits, and what comes later waits for it', async (_name, command, payload, logged) => {
    read(1, 0, 1);
    t.raw.send(message(command, payload, 2));
    read(0, 0, 3);
    expect(await working()).toEqual(['read 1 0']);
    expect(t.model.log).toEqual(['attach']);
    expect(t.model.bar0[4]).toBe(0);
    finish('read 1 0');
    expect([await next(), await next(), await next()]).toEqual([1, 2, 3]);
    if (logged !== '') expect(t.model.log).toContain(logged);
  });

  test('DMA_UNMAP waits for accesses, and they for it', async () => {
    expect(await t.raw.errnoOf(2, dmaMap(0x10_0000, 0x1000))).toBe(0);
    const { opened, open } = gate();
    t.model.gate = opened;
    read(1, 0, 1);
    t.raw.send(message(3, dmaUnmap(0x10_0000, 0x1000), 2));
    read(2, 0, 3);
    expect(await working()).toEqual(['read 1 0']);
    expect(t.model.log.at(-1)).toBe('mapped 0x100000');
    finish('read 1 0');
    expect(await next()).toBe(1);
    expect(await working()).toEqual([]);
    expect(t.model.log.at(-1)).toBe('unmapping 0x100000');
    open();
    expect(await next()).toBe(2);
    expect(await working()).toEqual(['read 2 0']);
    finish('read 2 0');
    expect(await next()).toBe(3);
  });

  // vfio-user, "Command Concurrency"
  test('a posted write is done before anything later is answered', async () => {
    write(1, 0, 1, F_NO_REPLY);
    read(0, 0, 2);
    expect(await working()).toEqual(['write 1 0']);
    expect(t.raw.socket.receive(new Uint8Array(1), 0, 1)).toBe(0);
    finish('write 1 0', new Error('nobody hears of it'));
    expect(await next()).toBe(2);
    expect(t.errors.length).toBe(1);
  });

  test('closing waits for all of them', async () => {
    read(1, 0, 1);
    read(2, 0, 2);
    read(2, 4, 3);
    read(1, 4, 4);
    await until(() => atWork.size === 3);
    let closed = false;
    const closing = t.server.close().then(() => {
      closed = true;
    });
    for (const what of ['read 2 0', 'read 1 0', 'read 2 4']) {
      await turns();
      expect(closed).toBe(false);
      finish(what, what === 'read 1 0' ? new Error('too late') : undefined);
    }
    await closing;
    expect(atWork.size).toBe(0);
  });

  test('a client that leaves does not let the next one in before they are done', async () => {
    read(1, 0, 1);
    read(2, 0, 2);
    await until(() => atWork.size === 2);
    t.raw.close();
    const device = connect(t.endpoint);
    await until(() => t.model.log.includes('detach'));
    finish('read 1 0');
    await turns();
    expect(t.model.log).toEqual(['attach', 'detach']);
    finish('read 2 0');
    await (await device).close();
    await until(() => t.server.client === null);
    expect(t.errors).toEqual([]);
  });
});

test('our own client: registers of one region are read while another is slow', async () => {
  t.raw.close();
  await using device = await connect(t.endpoint);
  const [bar0, bar1] = [await device.region('bar0'), await device.region('bar1')];
  const slow = bar1.read32(0);
  await bar0.write32(8, 0x1234);
  expect(await bar0.read32(8)).toBe(0x1234);
  finish('read 1 0');
  expect(await slow).toBe(0);
});
