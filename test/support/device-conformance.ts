// SPDX-License-Identifier: MIT
/**
 * What every implementation of `Device` does alike, shown on an NVMe controller: the same functions run over a socket, in
 * test/client/conformance.test.ts, and over the kernel's VFIO, in a guest.
 */
import { deepEqual, equal, notEqual, ok, rejects, throws } from 'node:assert/strict';
import { NvmeController } from '../../lib/nvme';
import type { Device } from '../../lib/pci';

/** Offsets of CAP, VS and the doorbells (NVMe base 2.0, 3.1.3 and 3.1.4). */
const [CAP, VS, DOORBELLS] = [0, 8, 0x1000];
const MEMORY_AND_BUS_MASTER = 6;
const PAGE = 4096;

type Check = (device: Device) => Promise<void>;

const withRegisters = async (device: Device): Promise<void> => {
  const COMMAND = 4;
  await device.config.write16(COMMAND, (await device.config.read16(COMMAND)) | MEMORY_AND_BUS_MASTER);
};

/** The checks by name, to be run one after the other. The last one closes the device. */
export const CONFORMANCE: Readonly<Record<string, Check>> = {
  'it says what it has': async (device) => {
    const { regionCount, irqCount } = await device.info();
    ok(regionCount >= 9 && irqCount >= 3);
    ok((await device.region('config')).size >= 256);
    equal((await device.region(0)).index, 0);
    equal(await device.region('bar0'), await device.region('bar0'));
    ok((await device.irq('msix')).count > 0);
  },

  'configuration space by registers and by bytes, awaited and blocking': async (device) => {
    const { config } = device;
    const bytes = await config.readBytes(0, 64);
    const vendor = await config.read16(0);
    notEqual(vendor, 0xffff);
    equal(config.read16Sync(0), vendor);
    equal((bytes[0] as number) | ((bytes[1] as number) << 8), vendor);
    deepEqual(config.readBytesSync(0, 64).slice(0, 4), bytes.slice(0, 4));
    equal(bytes[11], 1, 'class: mass storage');
  },

  'registers of every width, awaited and blocking': async (device) => {
    await withRegisters(device);
    const bar = await device.region('bar0');
    const cap = await bar.read64(CAP);
    equal(bar.read64Sync(CAP), cap);
    equal(BigInt(await bar.read32(CAP)) | (BigInt(await bar.read32(CAP + 4)) << 32n), cap);
    equal(bar.read32Sync(VS) >>> 16, 1, 'NVMe 1');
    const INTMS = 0xc;
    await bar.write32(INTMS, 0);
    bar.write32Sync(INTMS, 0);
  },

  'what is not within a region, or not aligned, is refused': async (device) => {
    const bar = await device.region('bar0');
    await rejects(bar.read32(bar.size), { code: 'ERR_OUT_OF_RANGE' });
    await rejects(bar.write32(bar.size - 2, 0), { code: 'ERR_OUT_OF_RANGE' });
    await rejects(bar.read32(2), { code: 'ERR_INVALID_ARG_VALUE' });
    throws(() => bar.read32Sync(-4), { code: 'ERR_OUT_OF_RANGE' });
    await rejects(device.region(1_000_000), { code: 'ERR_OUT_OF_RANGE' });
    await rejects(device.irq(1_000_000), { code: 'ERR_OUT_OF_RANGE' });
  },

  'doorbells are mapped, and unmapped for good': async (device) => {
    const bar = await device.region('bar0');
    ok(bar.areas.some(({ offset, size }) => offset <= DOORBELLS && offset + size >= DOORBELLS + PAGE));
    const area = bar.map(DOORBELLS, PAGE);
    equal(area.buffer.byteLength, PAGE);
    const words = new Uint32Array(area.buffer);
    area.close();
    area.close();
    equal(words.length, 0);
    throws(() => bar.map(bar.size, PAGE), { code: 'ERR_OUT_OF_RANGE' });
    const config = await device.region('config');
    deepEqual(config.areas, []);
    throws(() => config.map(0, 256), {
      code: 'ERR_VFIO_USER_UNSUPPORTED',
      message: /^region 7 of .*, offset 0x0, 256 bytes cannot be mapped; the device offers no mapping/,
    });
  },

  'memory that is allocated is zero, has an address, and goes': async (device) => {
    const [first, second] = [await device.dma.allocate(10_000), await device.dma.allocate(1)];
    ok(first.size >= 10_000 && first.size % PAGE === 0);
    equal(first.iova % PAGE, 0);
    ok(second.iova >= first.iova + first.size || second.iova + second.size <= first.iova);
    ok(new Uint8Array(first.buffer).every((byte) => byte === 0));
    await first.close();
    equal(first.buffer.byteLength, 0);
    await second.close();
    await rejects(device.dma.allocate(0), { code: 'ERR_OUT_OF_RANGE' });
  },

  'vectors are enabled, replaced and disabled': async (device) => {
    const irq = await device.irq('msix');
    await irq.enable(2);
    ok(irq.fd(0) !== null && irq.fd(1) !== null);
    notEqual(irq.fd(0), irq.fd(1));
    await irq.enable([() => undefined]);
    equal(irq.fd(1), null);
    await irq.disable();
    equal(irq.fd(0), null);
    await irq.disable();
    equal(await device.irq(2), irq);
    throws(() => irq.fd(irq.count), { code: 'ERR_OUT_OF_RANGE' });
    await rejects(irq.enable(irq.count + 1), { code: 'ERR_OUT_OF_RANGE' });
    await rejects(irq.enable(0), { code: 'ERR_OUT_OF_RANGE' });
  },

  'the NVMe driver writes, reads and compares, polled and by interrupts': async (device) => {
    for (const vectors of [0, 2]) {
      const controller = await NvmeController.attach(device, { vectors });
      const [namespace] = controller.namespaces;
      ok(namespace !== undefined);
      const memory = await device.dma.allocate(1 << 18);
      const words = new Uint32Array(memory.buffer);
      const half = words.length / 2;
      for (let index = 0; index < half; index++) words[index] = (index * 2654435761 + vectors) >>> 0;
      const blocks = (half * 4) / namespace.blockSize;
      await namespace.write(memory, { lba: 0, blocks });
      await namespace.flush();
      await namespace.read(memory, { lba: 0, blocks, offset: half * 4 });
      deepEqual(words.slice(half), words.slice(0, half));
      await memory.close();
      await controller.close();
    }
  },

  'it is reset, where it offers that': async (device) => {
    if (!(await device.info()).resettable) {
      await rejects(device.reset(), { code: 'ERR_VFIO_USER_UNSUPPORTED' });
      return;
    }
    const memory = await device.dma.allocate(PAGE);
    await device.reset();
    equal(memory.buffer.byteLength, memory.size, 'memory stays');
    await withRegisters(device);
    equal((await (await device.region('bar0')).read32(VS)) >>> 16, 1);
    await memory.close();
  },

  'it is closed once, and is of no use then': async (device) => {
    const bar = await device.region('bar0');
    const memory = await device.dma.allocate(PAGE);
    const area = bar.map(DOORBELLS, PAGE);
    const ends: (Error | null)[] = [];
    device.on('close', (error) => ends.push(error));
    await device.close();
    await device.close();
    deepEqual(ends, [null]);
    equal(area.buffer.byteLength, 0);
    equal(memory.buffer.byteLength, 0);
    await rejects(bar.read32(VS), { code: 'ERR_VFIO_USER_CLOSED' });
    throws(() => bar.map(DOORBELLS, PAGE), { code: 'ERR_VFIO_USER_CLOSED' });
    await rejects(device.dma.allocate(PAGE), { code: 'ERR_VFIO_USER_CLOSED' });
  },
};
