// SPDX-License-Identifier: MIT
// A device that gets no descriptor of our memory copies by messages: node examples/dma-without-shared-memory.mts
import { connect } from 'vfio-user';
import { RegisterFile, serve, type ClientMemory } from 'vfio-user/server';

let theirs: ClientMemory | undefined;
async function copy(length: number): Promise<void> {
  if (theirs === undefined) return;
  const address = registers.get('address');
  console.log('mapped ranges:', theirs.ranges.filter(({ buffer }) => buffer !== null).length);
  await theirs.write(address + 2048n, await theirs.read(address, length));
}

/** A write of n to `length` copies n bytes from `address` to 2 KiB behind. */
const registers = new RegisterFile({
  size: 16,
  registers: {
    address: { offset: 0, width: 64, writable: ~0n },
    length: { offset: 8, width: 32, write: (_, length) => copy(length) },
  },
});
const bars = { 0: { kind: 'memory32', ...registers.region } } as const;
await using server = await serve(`@copy-engine-${process.pid}`, {
  name: 'copy engine',
  pci: { vendorId: 0x1234, deviceId: 1, classCode: 0x120000, bars },
  attach: ({ memory }) => (theirs = memory),
});

await using device = await connect(server.path, { dma: { directDma: false } });
const memory = await device.dma.allocate(4096);
Buffer.from(memory.buffer).write('through DMA_READ and DMA_WRITE');
await device.pci.enable({ memory: true, busMaster: true });
const bar0 = await device.region('bar0');
await bar0.write64(0, BigInt(memory.iova));
await bar0.write32(8, 30);
console.log('copied:', Buffer.from(memory.buffer, 2048, 30).toString());
