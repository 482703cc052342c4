// SPDX-License-Identifier: MIT
import { type VfioUserDevice } from '../../lib/client';
import { PciCommand, type BarDeclarations, type ConfigEffect } from '../../lib/pci';
import type { ServedFunction } from '../../lib/server';
import { TestModel } from '../server/support';
import {
  GET_REGION_INFO,
  REGION_READ,
  REGION_WRITE,
  failure,
  fakeDevice,
  join,
  regionInfo,
  servedDevice,
  until,
  words,
  type FakeServer,
} from './support';

/** A device whose configuration space is these bytes; reads that `refuse` names get EINVAL. */
async function rawConfig(
  bytes: Uint8Array,
  refuse: (offset: number, count: number) => boolean = () => false,
  written: () => void = () => undefined,
): Promise<{ device: VfioUserDevice; server: FakeServer }> {
  return fakeDevice({
    [GET_REGION_INFO]: regionInfo(7, { size: bytes.length }),
    [REGION_READ]: ({ payload }) => {
      const [offset = 0, , , count = 0] = words(payload);
      return refuse(offset, count) ? 22 : join(payload, bytes.subarray(offset, offset + count));
    },
    [REGION_WRITE]: ({ payload }) => {
      bytes.set(payload.subarray(16), words(payload.subarray(0, 16))[0]);
      written();
      return payload.slice(0, 16);
    },
  });
}

/** A header (PCI Local Bus 3.0, 6.1) with status bit 4, and what `fill` adds. */
function config(size: number, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x5678_1234, true);
  view.setUint16(6, 0x10, true);
  fill(view);
  return bytes;
}

/** A device of ours with this configuration space. */
async function servedConfig(declaration: Partial<ServedFunction>): Promise<{
  device: VfioUserDevice;
  model: TestModel;
  effects: ConfigEffect[];
}> {
  const model = new TestModel();
  for (const index of Object.keys(declaration.bars ?? {})) model.regions.delete(Number(index));
  model.pci = { vendorId: 0x1234, deviceId: 0x5678, classCode: 0xff0000, ...declaration };
  const effects: ConfigEffect[] = [];
  model.configured = (effect) => void effects.push(effect);
  return { device: await servedDevice(model), model, effects };
}

describe('reading', () => {
  const bytes = config(256, (view) => {
    for (let at = 64; at < 256; at++) view.setUint8(at, at);
  });
  const accesses = (server: FakeServer): [number, number][] =>
    server.heard
      .filter((one) => one.command === REGION_READ)
      .map((one) => [words(one.payload)[0]!, words(one.payload)[3]!]);

  test('is by registers of natural width', async () => {
    const { device, server } = await rawConfig(bytes.slice());
    expect([...(await device.pci.readConfig(0x41, 10))]).toEqual(
      Array.from({ length: 10 }, (_, i) => 0x41 + i),
    );
    expect(accesses(server)).toEqual([
      [0x41, 1],
      [0x42, 2],
      [0x44, 4],
      [0x48, 2],
      [0x4a, 1],
    ]);
    await device.pci.readConfig(0, 256);
    expect(server.count(REGION_READ)).toBe(5 + 64);
  });

  test('in bulk is one message, and falls back to registers', async () => {
    const quick = await rawConfig(bytes.slice());
    expect(await quick.device.pci.readConfig(0, 256, { bulk: true })).toEqual(bytes);
    expect(accesses(quick.server)).toEqual([[0, 256]]);
    const strict = await rawConfig(bytes.slice(), (_offset, count) => count > 4);
    expect(await strict.device.pci.readConfig(0, 256, { bulk: true })).toEqual(bytes);
    expect(strict.server.count(REGION_READ)).toBe(65);
  });

  test('what is refused, and what is not there', async () => {
    const { device, server } = await rawConfig(bytes.slice(), (offset) => offset === 0x80);
    await expect(device.pci.readConfig(0x7c, 8)).rejects.toMatchObject({ code: 'ERR_VFIO_USER_REMOTE' });
    const before = server.count(REGION_READ);
    for (const [offset, length] of [
      [252, 8],
      [-1, 1],
      [0, 0],
      [0.5, 1],
    ] as const)
      await expect(device.pci.readConfig(offset, length)).rejects.toMatchObject({ code: 'ERR_OUT_OF_RANGE' });
    expect(server.count(REGION_READ)).toBe(before);
  });

  test('no device answers', async () => {
    const { device } = await rawConfig(new Uint8Array(256).fill(0xff));
    await expect(device.pci.header()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_PCI' });
  });
});

describe('capabilities', () => {
  test('typed, with only the registers read that the list leads to', async () => {
    const bytes = config(256, (view) => {
      view.setUint8(0x34, 0x40);
      // MSI (PCI Local Bus 3.0, 6.8.1): 8 vectors possible, 2 enabled, 64 bits, per-vector masks, enabled.
      view.setUint32(0x40, 0x0197_6005, true);
      view.setUint8(0x60, 0x01);
      view.setUint8(0x61, 0);
    });
    // As SPDK does, nothing but the header and the capabilities can be read.
    const { device } = await rawConfig(
      bytes,
      (offset) => offset >= 0x40 && !(offset < 0x4c || (offset >= 0x60 && offset < 0x68)),
    );
    const { capabilities, problem } = await device.pci.capabilities();
    expect(problem).toBeUndefined();
    expect(capabilities.map(({ kind }) => kind)).toEqual(['msi', 'power-management']);
    const msi = await device.pci.capability('msi');
    expect(msi).toMatchObject({
      vectors: 8,
      enabledVectors: 2,
      address64: true,
      perVectorMasking: true,
      enabled: true,
    });
    expect(await device.pci.capability('express')).toBeUndefined();
    expect(await device.pci.extendedCapabilities()).toEqual({ capabilities: [], problem: undefined });
  });

  test.each([
    ['a loop', 0x40, 0x40, 'runs in a loop'],
    ['a pointer into the header', 0x10, 0, 'into the header'],
    ['a pointer to nothing', 0x40, 0xfc, 'no capability answers'],
  ])('%s', async (_name, first, next, problem) => {
    const { device } = await rawConfig(
      config(256, (view) => {
        view.setUint8(0x34, first);
        view.setUint16(0x40, 0x01 | (next << 8), true);
        view.setUint32(0xfc, 0xffff_ffff);
      }),
    );
    expect((await device.pci.capabilities()).problem).toContain(problem);
  });

  test.each([
    ['a loop', 0x100, 'runs in a loop'],
    ['a pointer below 100h', 0x40, 'below 0x100'],
    ['a long list', 0, undefined],
  ])('extended: %s', async (_name, next, problem) => {
    const { device } = await rawConfig(
      config(4096, (view) => {
        view.setUint32(0x100, 0x0001_0003 | (0x200 << 20), true);
        view.setUint32(0x104, 0xdeadbeef, true);
        view.setUint32(0x200, 0x0001_000b | (next << 20), true);
      }),
    );
    const list = await device.pci.extendedCapabilities();
    expect(list.problem ?? '').toContain(problem ?? '');
    expect(list.capabilities.map(({ id }) => id)).toEqual([3, 0xb]);
    expect(await device.pci.extendedCapability('serial-number')).toMatchObject({ serialNumber: 0xdeadbeefn });
    expect(await device.pci.extendedCapability('advanced-errors')).toBeUndefined();
  });

  test('none: a status without the bit, and a short space', async () => {
    const { device } = await rawConfig(
      config(64, (view) => {
        view.setUint16(6, 0, true);
        view.setUint8(0x34, 0x40);
      }),
    );
    expect(await device.pci.capabilities()).toEqual({ capabilities: [], problem: undefined });
    expect(await device.pci.extendedCapabilities()).toEqual({ capabilities: [], problem: undefined });
  });
});

describe('BARs', () => {
  const bars: BarDeclarations = {
    0: { kind: 'memory64', size: 0x4000, prefetchable: true },
    2: { kind: 'memory32', size: 64 },
    3: { kind: 'io', size: 64 },
    4: { kind: 'memory64', size: 2 ** 36 },
  };

  test('sizes from the regions', async () => {
    const { device, effects } = await servedConfig({ bars });
    expect(await device.pci.bars()).toMatchObject([
      { index: 0, kind: 'memory64', prefetchable: true, size: 0x4000 },
      { index: 2, kind: 'memory32', size: 64 },
      { index: 3, kind: 'io', size: 64 },
      { index: 4, kind: 'memory64', size: 2 ** 36 },
    ]);
    expect(effects).toEqual([]);
  });

  test('sizes from the registers, which have their values again afterwards', async () => {
    const { device } = await servedConfig({ bars });
    const region = await device.region('config');
    await region.write32(0x10, 0xfebf_8000);
    await region.write32(0x14, 0x12);
    await device.pci.setCommand(PciCommand.memory | PciCommand.busMaster);
    const before = await device.pci.readConfig(0, 64);
    expect(await device.pci.probeBars()).toEqual([
      { index: 0, kind: 'memory64', size: 0x4000 },
      { index: 2, kind: 'memory32', size: 64 },
      { index: 3, kind: 'io', size: 64 },
      { index: 4, kind: 'memory64', size: 2 ** 36 },
    ]);
    expect(await device.pci.readConfig(0, 64)).toEqual(before);
  });

  test('registers that are not there, and a failure on the way', async () => {
    const empty = config(256, (view) => {
      view.setUint16(4, PciCommand.memory, true);
    });
    let reads = 0;
    const { device } = await rawConfig(empty, (offset) => offset === 0x14 && ++reads === 3);
    await expect(device.pci.probeBars()).rejects.toMatchObject({ code: 'ERR_VFIO_USER_REMOTE' });
    expect(empty.subarray(4, 6)).toEqual(Uint8Array.of(PciCommand.memory, 0));
    expect(empty.subarray(0x10, 0x28)).toEqual(new Uint8Array(24));
  });
});

describe('the command register', () => {
  test('bits are set and cleared, others stay', async () => {
    const { device, effects } = await servedConfig({});
    expect(await device.pci.setCommand(PciCommand.memory | PciCommand.serr)).toBe(0x102);
    // At the same time: none takes back what the other has set.
    await Promise.all([
      device.pci.enable({ busMaster: true, intx: false }),
      device.pci.enable({ memory: false, io: true }),
    ]);
    expect(await device.pci.command()).toBe(0x505);
    await device.pci.enable({ intx: true });
    expect(await device.pci.command()).toBe(0x105);
    expect(effects.map(({ kind }) => kind)).toEqual(['command', 'command', 'command', 'command']);
    for (const bits of [-1, 0x10000, 0.5])
      expect(() => device.pci.setCommand(bits)).toThrow(
        expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }) as Error,
      );
  });

  test('the status register', async () => {
    const { device, model } = await servedConfig({
      interruptPin: 1,
      capabilities: [{ kind: 'power-management' }],
    });
    model.client?.setInterrupt(true);
    expect(await device.pci.status()).toBe(0x18);
  });
});

describe('function level reset', () => {
  test('is asked for where it is offered', async () => {
    const { device, model } = await servedConfig({
      capabilities: [{ kind: 'power-management' }, { kind: 'express', functionLevelReset: true }],
    });
    await device.pci.setCommand(PciCommand.memory);
    await device.pci.functionLevelReset();
    expect(model.log.at(-1)).toBe('reset');
    expect(await device.pci.command()).toBe(0);
  });

  test.each([
    [[], 'no PCI Express capability'],
    [[{ kind: 'express' as const }], 'does not offer'],
  ])('is not asked for with %j', async (capabilities, text) => {
    const { device, effects } = await servedConfig({ capabilities });
    await expect(device.pci.functionLevelReset()).rejects.toMatchObject(
      failure('ERR_VFIO_USER_UNSUPPORTED', text),
    );
    expect(effects).toEqual([]);
  });

  test('waits until the device answers, and not for ever', async () => {
    const bytes = config(256, (view) => {
      view.setUint8(0x34, 0x40);
      view.setUint16(0x40, 0x0010, true);
      view.setUint32(0x44, 0x1000_0000, true);
    });
    const { device, server } = await rawConfig(bytes, undefined, () => {
      bytes.set([0xff, 0xff]);
    });
    const reset = device.pci.functionLevelReset();
    await until(() => server.count(REGION_WRITE) === 1);
    expect(bytes.subarray(0x48, 0x4a)).toEqual(Uint8Array.of(0, 0x80));
    const reads = server.count(REGION_READ);
    await until(() => server.count(REGION_READ) > reads + 1);
    bytes.set([0x34, 0x12]);
    await reset;
    const stuck = device.pci.functionLevelReset();
    await expect(stuck).rejects.toMatchObject(failure('ERR_VFIO_USER_PCI', '1000 ms'));
  });
});
