// SPDX-License-Identifier: MIT
// A device that gets no descriptor of our memory copies by messages: node examples/dma-without-shared-memory.mjs
import { connect } from 'vfio-user';
import { RegisterFile, serve } from 'vfio-user/server';

/** @type {import('vfio-user/server').ClientMemory | undefined} */
let shown;

/** A write of n to `length` copies n bytes from `address` to 2 KiB behind. */
const registers = new RegisterFile({
  size: 16,
  registers: {
    address: { offset: 0, width: 64, writable: ~0n },
    length: { offset: 8, width: 32, write: (_, length) => copy(length) },
  },
});

/**
 * @param {number} length
 * @returns {Promise<void>}
 */
async function copy(length) {
  if (shown === undefined) return;
  const address = registers.get('address');
  console.log('mapped ranges:', shown.ranges.filter(({ buffer }) => buffer !== null).length);
  await shown.write(address + 2048n, await shown.read(address, length));
}

const server = await serve(`@copy-engine-${process.pid}`, {
  name: 'copy engine',
  pci: {
    ...{ vendorId: 0x1234, deviceId: 1, classCode: 0x120000 },
    bars: { 0: { kind: 'memory32', ...registers.region } },
  },
  attach: (client) => void (shown = client.memory),
});
const device = await connect(server.path, { dma: { directDma: false } });
const memory = await device.dma.allocate(4096);
Buffer.from(memory.buffer).write('through DMA_READ and DMA_WRITE');
await device.pci.enable({ memory: true, busMaster: true });
const bar0 = await device.region('bar0');
await bar0.write64(0, BigInt(memory.iova));
await bar0.write32(8, 30);
console.log('copied:', Buffer.from(memory.buffer, 2048, 30).toString());
await device.close();
await server.close();
