// SPDX-License-Identifier: MIT
/** The PCI function of a device model: BARs that are declared once, bus mastering, and what a reset resets. */
import { closeFd, createSharedMemory } from '../../lib/native';
import { PciCommand, type ConfigEffect } from '../../lib/pci';
import { CommandError, Errno, serve, type Client, type PciDeviceModel, type Server } from '../../lib/server';
import { gate } from '../support/gate';
import { RawClient, access, dmaMap, join, message, u16, u32, until } from './support';

const path = `@vfio-user-function-${process.pid}`;
const errors: unknown[] = [];
const log: string[] = [];
let server: Server;
let raw: RawClient;
let client: Client;

/** A device with a function level reset, whose capability is at 40h: Device Control is 8 bytes behind. */
const model: PciDeviceModel = {
  name: 'device',
  pci: {
    vendorId: 0x1234,
    deviceId: 1,
    classCode: 0xff0000,
    bars: {
      1: { kind: 'memory32', size: 0x100, read: (offset, data) => void data.fill(offset) },
      2: { kind: 'memory64', size: 0x1000, prefetchable: true, write: () => undefined },
      4: { kind: 'io', size: 16 },
    },
    capabilities: [{ kind: 'express', functionLevelReset: true }],
  },
  attach: (attached) => {
    client = attached;
  },
  reset: () => void log.push(`reset ${client.memory.busMaster ? 'as bus master' : ''}`.trim()),
  configured: (effect) => void log.push(words(effect)),
  detach: () => void log.push('detach'),
};
const words = (effect: ConfigEffect): string =>
  effect.kind === 'command'
    ? `command ${effect.value}${client.memory.busMaster ? ' bus master' : ''}`
    : effect.kind;
const DEVICE_CONTROL = 0x48;

beforeEach(async () => {
  log.length = 0;
  server = await serve(path, model, { onError: (error) => void errors.push(error) });
  raw = await RawClient.connect(path);
});
afterEach(async () => {
  raw.close();
  await server.close();
  expect(errors.splice(0)).toEqual([]);
});

const write = (offset: number, data: Uint8Array): Promise<number> =>
  raw.errnoOf(10, join(access(7, offset, data.length), data));
const read = async (region: number, offset: number, length: number): Promise<number[]> => {
  const reply = await raw.ask(message(9, access(region, offset, length)));
  expect(reply.errno).toBe(0);
  return [...reply.payload.subarray(16)];
};

test('BARs are declared once: registers, regions and what they allow', async () => {
  const info = async (index: number): Promise<number[]> => {
    const view = new DataView(
      (await raw.ask(message(5, u32(32, 0, index, 0, 0, 0, 0, 0)))).payload.slice().buffer,
    );
    return [view.getUint32(4, true), view.getUint32(16, true)];
  };
  // VFIO_REGION_INFO_FLAG_READ is 1, WRITE 2.
  expect([await info(0), await info(1), await info(2), await info(4), await info(7)]).toEqual([
    [0, 0],
    [1, 0x100],
    [2, 0x1000],
    [0, 16],
    [3, 4096],
  ]);
  expect(await read(1, 0x11, 2)).toEqual([0x11, 0x11]);
  for (const [bar, value] of [
    [1, [0, 0xff, 0xff, 0xff]],
    [2, [0x0c, 0xf0, 0xff, 0xff]],
    [4, [0xf1, 0xff, 0xff, 0xff]],
  ] as const) {
    await write(0x10 + 4 * bar, u32(0xffff_ffff));
    expect(await read(7, 0x10 + 4 * bar, 4)).toEqual(value);
  }
});

test('there is a BAR or a region, not both', async () => {
  const wrong = { ...model, regions: new Map([[1, { size: 0x100 }]]) };
  await expect(serve(`${path}-other`, wrong)).rejects.toThrow(
    'region 1 of device model device is declared by pci already',
  );
});

test.each<[string, Partial<PciDeviceModel['pci']>, RegExp]>([
  [
    'a mistyped key of a BAR',
    { bars: { 0: { kind: 'io', size: 16, raed: 1 } as never } },
    /BAR 0 .*unknown key "raed"/,
  ],
  [
    'a BAR of a size that there is not',
    { bars: { 0: { kind: 'memory32', size: 48 } } },
    /BAR 0 has 48 bytes/,
  ],
  ['a mistyped key', { vendor: 1 } as never, /unknown key "vendor"/],
])('%s is refused', async (_, pci, text) => {
  const serving = serve(`${path}-other`, { ...model, pci: { ...model.pci, ...pci } });
  await expect(serving).rejects.toThrow(text);
});

test('a function level reset needs a reset', async () => {
  const { name, pci } = model;
  await expect(serve(`${path}-other`, { name, pci })).rejects.toThrow('has no reset');
});

test('the model is told of changes, after the server has followed them', async () => {
  await write(4, u16(PciCommand.memory | PciCommand.busMaster));
  await write(4, u16(PciCommand.memory | PciCommand.busMaster));
  await write(0x14, u32(0xfe00_0000));
  await write(4, u16(0));
  expect(log).toEqual(['command 6 bus master', 'bar', 'command 0']);
});

test('what the model does for a change may take time, and fail: the answer tells', async () => {
  const { opened, open } = gate();
  const slow = jest.spyOn(model, 'configured').mockImplementationOnce(() => opened);
  let answered = false;
  const done = write(4, u16(2)).then((errno) => {
    answered = true;
    return errno;
  });
  await until(() => slow.mock.calls.length === 1);
  expect(answered).toBe(false);
  open();
  expect(await done).toBe(0);
  slow.mockImplementationOnce(() => {
    throw new CommandError(Errno.EBUSY, 'not now');
  });
  expect(await write(4, u16(0))).toBe(16);
  slow.mockRestore();
});

test.each<[string, () => Promise<unknown>]>([
  ['DEVICE_RESET', () => raw.errnoOf(13)],
  ['a function level reset', () => write(DEVICE_CONTROL, u16(0x8000))],
])('%s resets configuration space, then the device', async (_, reset) => {
  await write(4, u16(PciCommand.memory | PciCommand.busMaster));
  await write(0x14, u32(0xfe00_0000));
  log.length = 0;
  expect(await reset()).toBe(0);
  expect(log).toEqual(['reset']);
  expect([await read(7, 4, 2), await read(7, 0x14, 4)]).toEqual([
    [0, 0],
    [0, 0, 0, 0],
  ]);
});

test('after a DEVICE_RESET the client is taken for a bus master until it says otherwise; not before the device is reset, nor after other resets', async () => {
  await write(4, u16(PciCommand.memory));
  await write(DEVICE_CONTROL, u16(0x8000));
  await until(() => log.at(-1) === 'reset');
  expect(client.memory.busMaster).toBe(false);
  const failing = jest.spyOn(model, 'reset').mockImplementationOnce(() => {
    throw new CommandError(Errno.EIO, 'stuck');
  });
  expect(await raw.errnoOf(13)).toBe(Errno.EIO);
  failing.mockRestore();
  expect(client.memory.busMaster).toBe(false);
  log.length = 0;
  expect(await raw.errnoOf(13)).toBe(0);
  expect(log).toEqual(['reset']);
  expect(client.memory.busMaster).toBe(true);
  await write(4, u16(PciCommand.memory));
  expect(client.memory.busMaster).toBe(false);
});

test('a function level reset is answered before it is done, and one that fails is told', async () => {
  const { opened, open } = gate();
  const reset = jest.spyOn(model, 'reset').mockImplementationOnce(async () => {
    await opened;
    throw new Error('stuck');
  });
  expect(await write(DEVICE_CONTROL, u16(0x8000))).toBe(0);
  open();
  await until(() => errors.length === 1);
  expect(errors.splice(0)).toMatchObject([{ message: 'stuck' }]);
  reset.mockRestore();
});

test('the next client finds configuration space as after power-on, and is taken for a bus master until it says otherwise', async () => {
  await write(4, u16(2));
  expect(client.memory.busMaster).toBe(false);
  raw.close();
  await until(() => log.includes('detach'));
  raw = await RawClient.connect(path);
  expect(await read(7, 4, 2)).toEqual([0, 0]);
  expect(client.memory.busMaster).toBe(true);
});

test('a device that is no bus master reaches no memory, by whatever way', async () => {
  const fd = createSharedMemory(0x1000);
  await raw.errnoOf(2, dmaMap(0, 0x1000), [fd]);
  await raw.errnoOf(2, dmaMap(0x1000, 0x1000));
  closeFd(fd);
  const { memory } = client;
  expect(memory.place(0, 16, 'read')).not.toBeNull();
  const { generation } = memory;
  await write(4, u16(PciCommand.memory));
  expect([memory.busMaster, memory.place(0, 16, 'read')]).toEqual([false, null]);
  expect(memory.generation).toBeGreaterThan(generation);
  for (const iova of [0, 0x1000]) {
    const refused = {
      code: 'ERR_VFIO_USER_DMA',
      message: expect.stringContaining('Bus Master Enable') as string,
    };
    await expect(memory.read(iova, 16)).rejects.toMatchObject(refused);
    await expect(memory.write(iova, new Uint8Array(16))).rejects.toMatchObject(refused);
  }
  // What the device had stored before may be told still.
  memory.markDirty(0, 16);
  await write(4, u16(PciCommand.memory | PciCommand.busMaster));
  await memory.write(0, Uint8Array.of(7));
  expect(await memory.read(0, 1)).toEqual(Uint8Array.of(7));
});

test('configuration space of the model takes the place of that of the server', async () => {
  await server.close();
  const config = { size: 256, read: (_: number, data: Uint8Array) => void data.fill(0xee) };
  server = await serve(path, { ...model, regions: new Map([[7, config]]) });
  raw.close();
  raw = await RawClient.connect(path);
  expect(await read(7, 0x40, 2)).toEqual([0xee, 0xee]);
});

describe('a device that takes itself away from its client', () => {
  test('by the link: the connection ends, and the next client is served', async () => {
    client.disconnect();
    await raw.end();
    await until(() => log.includes('detach'), 'the device lets go');
    raw.close();
    raw = await RawClient.connect(path);
    expect(await read(1, 8, 2)).toEqual([8, 8]);
  });

  test('while it reads a register: the read is not answered', async () => {
    const { read: readBar } = model.pci.bars![1]!;
    model.pci.bars![1]!.read = () => {
      client.disconnect();
    };
    try {
      raw.send(message(9, access(1, 0, 4)));
      await raw.end();
    } finally {
      model.pci.bars![1]!.read = readBar!;
    }
  });

  test('as a card that is pulled out: reads are ones, writes are dropped, no DMA; the next client finds it', async () => {
    const fd = createSharedMemory(0x1000);
    expect(await raw.errnoOf(2, dmaMap(0x1000, 0x1000), [fd])).toBe(0);
    closeFd(fd);
    expect(client.memory.place(0x1000, 4, 'read')).not.toBeNull();
    client.unplug();
    expect(await read(7, 0, 4)).toEqual([0xff, 0xff, 0xff, 0xff]);
    expect(await read(1, 8, 2)).toEqual([0xff, 0xff]);
    expect(await write(4, u16(PciCommand.busMaster))).toBe(0);
    expect(await write(DEVICE_CONTROL, u16(0x8000))).toBe(0);
    expect(log).toEqual([]);
    expect(client.memory.place(0x1000, 4, 'read')).toBeNull();
    await expect(client.memory.read(0x1000, 4)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_DMA' });
    expect(client.setInterrupt(true)).toBe(false);
    // What is wrong with a message is told all the same: that is between client and server.
    expect(await raw.errnoOf(9, access(1, 0xff, 2))).toBe(Errno.EINVAL);
    raw.close();
    await until(() => log.includes('detach'), 'the device lets go');
    raw = await RawClient.connect(path);
    expect(await read(7, 0, 2)).toEqual([0x34, 0x12]);
  });
});
