// SPDX-License-Identifier: MIT
// A device that gets no descriptor of our memory copies by messages: node examples/dma-without-shared-memory.mjs
import { connect } from 'vfio-user';
import { ConfigSpace, PciRegion } from 'vfio-user/pci';
import { configRegion, serve } from 'vfio-user/server';

let source = 0n;
/** @type {import('vfio-user/server').ClientMemory | undefined} */
let shown;

/**
 * Register 0 is an address. A write of n to register 8 copies n bytes from there to 2 KiB behind.
 *
 * @type {import('vfio-user/server').ServedRegion}
 */
const registers = {
  size: 16,
  async write(offset, data) {
    const value = data.reduceRight((number, byte) => (number << 8n) | BigInt(byte), 0n);
    if (offset === 0) source = value;
    if (offset !== 8 || shown === undefined) return;
    console.log('mapped ranges:', shown.ranges.filter(({ buffer }) => buffer !== null).length);
    await shown.write(source + 2048n, await shown.read(source, Number(value)));
  },
};
const config = new ConfigSpace({
  vendorId: 0x1234,
  deviceId: 1,
  classCode: 0x120000,
  bars: { 0: { kind: 'memory32', size: 16 } },
});

const server = await serve(`@copy-engine-${process.pid}`, {
  name: 'copy engine',
  irqs: new Map(),
  regions: new Map([
    [PciRegion.config, configRegion(config)],
    [PciRegion.bar0, registers],
  ]),
  attach: (client) => void (shown = client.memory),
});
const device = await connect(server.path, { dma: { directDma: false } });
const memory = await device.dma.allocate(4096);
Buffer.from(memory.buffer).write('through DMA_READ and DMA_WRITE');
const bar0 = await device.region('bar0');
await bar0.write64(0, BigInt(memory.iova));
await bar0.write32(8, 30);
console.log('copied:', Buffer.from(memory.buffer, 2048, 30).toString());
await device.close();
await server.close();
