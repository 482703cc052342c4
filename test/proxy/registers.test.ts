// SPDX-License-Identifier: MIT
/** What a client of a proxy is told, and its registers. */
import { closeSync, openSync } from 'node:fs';
import { connect } from '../../lib/client';
import { PciRegion } from '../../lib/pci';
import { CommandError, Errno } from '../../lib/server';
import { BAR_SIZE, RawClient, TestModel, access } from '../server/support';
import { useChains } from './fixture';

const PAGE = 0x1000;
const chain = useChains();

describe('what a client is told', () => {
  test('regions, their sizes, flags, types and areas are those of the device', async () => {
    const model = new TestModel();
    model.regions.set(9, { size: 100, type: { type: 0x8000_8086, subtype: 7 }, read: () => undefined });
    const { socket, device } = await chain(model);
    await using client = await connect(socket);
    expect(await client.info()).toEqual(await device.info());
    const { regionCount } = await client.info();
    for (let index = 0; index < regionCount; index++) {
      const [own, proxied] = [await device.region(index), await client.region(index)];
      const { size, flags, type, subtype, areas } = own;
      expect(proxied).toMatchObject({ size, type, subtype, areas });
      expect(proxied.flags).toBe(flags);
    }
  });

  test('configuration space is the device’s own, byte for byte, and takes writes', async () => {
    const { socket, device, upstream } = await chain(new TestModel());
    await using client = await connect(socket);
    expect(upstream.client).not.toBeNull();
    const own = await device.config.readBytes(0, 256);
    expect(await client.config.readBytes(0, 256)).toEqual(own);
    await client.config.write32(0x10 + 4 * 4, 0xffff_ffff);
    expect(await client.config.read32(0x10 + 4 * 4)).toBe(0xffff_e000);
    expect((await client.pci.capability('msix'))?.offset).toBe((await device.pci.capability('msix'))?.offset);
  });

  test('interrupts have the device’s counts and flags', async () => {
    const { socket, device } = await chain(new TestModel());
    await using client = await connect(socket);
    for (const name of ['intx', 'msi', 'msix', 'err', 'req'] as const) {
      const { index, count, flags } = await device.irq(name);
      expect(await client.irq(name)).toMatchObject({ index, count, flags });
    }
  });
});

describe('registers', () => {
  test('are accessed as wide as the client does, and refused as the device does', async () => {
    const widths: number[] = [];
    const model = new TestModel();
    model.regions.set(PciRegion.bar5, {
      size: 64,
      read: (_, data) => void widths.push(data.length),
      write: (offset, data) => {
        widths.push(-data.length);
        if (offset === 32) throw new CommandError(Errno.EPERM, 'not this one');
      },
    });
    const { socket } = await chain(model);
    const raw = await RawClient.connect(socket);
    for (const count of [1, 2, 3, 4, 8, 17]) expect(await raw.errnoOf(9, access(5, 0, count))).toBe(0);
    expect(widths).toEqual([1, 2, 3, 4, 8, 17]);
    const write = new Uint8Array([...access(5, 32, 4), 1, 2, 3, 4]);
    expect(await raw.errnoOf(10, write)).toBe(Errno.EPERM);
    expect(widths.at(-1)).toBe(-4);
    // Region 2 cannot be written, 3 cannot be read, and what lies behind a region is not there.
    expect(await raw.errnoOf(10, new Uint8Array([...access(2, 0, 1), 0]))).toBe(Errno.EINVAL);
    expect(await raw.errnoOf(9, access(3, 0, 1))).toBe(Errno.EINVAL);
    expect(await raw.errnoOf(9, access(5, 60, 8))).toBe(Errno.EINVAL);
    raw.close();
  });

  test('are mapped by the device’s own file: a store is seen by the device without a message', async () => {
    const model = new TestModel();
    const { socket } = await chain(model);
    await using client = await connect(socket);
    const area = (await client.region('bar0')).map(0x1000, PAGE);
    new Uint8Array(area.buffer)[5] = 0x77;
    expect(model.bar0[0x1005]).toBe(0x77);
  });

  test('are not mapped with trap, nor when their file is a device node, which would be the whole device', async () => {
    const model = new TestModel();
    const { socket } = await chain(model, { proxy: { trap: true } });
    await using client = await connect(socket);
    expect(await client.region('bar0')).toMatchObject({ size: BAR_SIZE, areas: [] });

    const node = openSync('/dev/zero', 'r+');
    try {
      const other = new TestModel();
      const areas = [{ offset: 0, size: PAGE }];
      other.regions.set(PciRegion.bar5, {
        size: PAGE,
        shared: { fd: node, offset: 0, areas },
        read: () => undefined,
      });
      const chained = await chain(other);
      expect((await chained.device.region('bar5')).areas).toHaveLength(1);
      await using second = await connect(chained.socket);
      expect((await second.region('bar5')).areas).toEqual([]);
      expect((await second.region('bar0')).areas).toHaveLength(1);
    } finally {
      closeSync(node);
    }
  });
});
