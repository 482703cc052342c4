// SPDX-License-Identifier: MIT
// A device that gets no descriptor of our memory copies by messages: node examples/dma-without-shared-memory.mts
import { connect } from 'vfio-user';
import { ConfigSpace, PciRegion } from 'vfio-user/pci';
import { configRegion, serve, type Client, type PciDeviceModel, type ServedRegion } from 'vfio-user/server';

/** Register 0 is an address. A write of n to register 8 copies n bytes from there to 2 KiB behind. */
class CopyEngine implements PciDeviceModel {
  readonly name = 'copy engine';
  readonly irqs = new Map<number, number>();
  #client: Client | undefined;
  #address = 0n;
  readonly regions = new Map<number, ServedRegion>([
    [PciRegion.config, configRegion(new ConfigSpace({ vendorId: 0x1234, deviceId: 1, classCode: 0x120000 }))],
    [PciRegion.bar0, { size: 16, write: this.#write.bind(this) }],
  ]);

  attach(client: Client): void {
    this.#client = client;
  }

  async #write(offset: number, data: Uint8Array): Promise<void> {
    const value = data.reduceRight((number, byte) => (number << 8n) | BigInt(byte), 0n);
    if (offset === 0) this.#address = value;
    if (offset !== 8 || this.#client === undefined) return;
    const { memory } = this.#client;
    console.log('mapped ranges:', memory.ranges.filter(({ buffer }) => buffer !== null).length);
    await memory.write(this.#address + 2048n, await memory.read(this.#address, Number(value)));
  }
}

await using server = await serve(`@copy-engine-${process.pid}`, new CopyEngine());
await using device = await connect(server.path, { dma: { directDma: false } });
const memory = await device.dma.allocate(4096);
Buffer.from(memory.buffer).write('through DMA_READ and DMA_WRITE');
const bar0 = await device.region('bar0');
await bar0.write64(0, BigInt(memory.iova));
await bar0.write32(8, 30);
console.log('copied:', Buffer.from(memory.buffer, 2048, 30).toString());
