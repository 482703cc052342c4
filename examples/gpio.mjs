// SPDX-License-Identifier: MIT
// A card with 16 pins, as the sample gpio-pci-idio-16 of libvfio-user: node examples/gpio.mts /tmp/gpio.sock
import { ConfigSpace, PciIrq, PciRegion } from 'vfio-user/pci';
import { configRegion, serve, type Client, type PciDeviceModel, type ServedRegion } from 'vfio-user/server';

const BARS = { 2: { kind: 'io', size: 0x100 } } as const;
const IDENTITY = { vendorId: 0x494f, deviceId: 0x0dc8, classCode: 0, interruptPin: 1 };

class Gpio implements PciDeviceModel {
  readonly name = 'gpio';
  readonly irqs = new Map([[PciIrq.intx, 1]]);
  readonly #writes = new Uint32Array(16);
  #client: Client | null = null;
  readonly regions = new Map<number, ServedRegion>([
    [PciRegion.config, configRegion(new ConfigSpace({ ...IDENTITY, bars: BARS }))],
    [PciRegion.bar2, { size: 0x100, read: this.#read.bind(this), write: this.#write.bind(this) }],
  ]);

  attach(client: Client): void {
    this.#client = client;
  }

  /** Inputs are at 1 and 5: a pin is high while its output was written a multiple of three times. */
  #read(offset: number, data: Uint8Array): void {
    const pins = this.#writes.subarray(offset === 1 ? 0 : 8, offset === 1 ? 8 : 16);
    if (offset === 1 || offset === 5)
      data[0] = pins.reduce((bits, n, pin) => bits | (n % 3 === 0 ? 1 << pin : 0), 0);
  }

  /** Outputs are at 0 and 4. Unlike the sample's, a write signals INTx, so that there is something to wait for. */
  #write(offset: number, data: Uint8Array): void {
    if (offset !== 0 && offset !== 4) return;
    for (let pin = 0; pin < 8; pin++) this.#writes[offset * 2 + pin]! += ((data[0] ?? 0) >> pin) & 1;
    this.#client?.trigger(PciIrq.intx, 0);
  }
}

const server = await serve(process.argv[2] ?? '/tmp/gpio.sock', new Gpio());
console.log(`serving ${server.path}`);
process.once('SIGTERM', () => void server.close());
