// SPDX-License-Identifier: MIT
// A card with 16 pins, as the sample gpio-pci-idio-16 of libvfio-user: node examples/gpio.mjs /tmp/gpio.sock
import { ConfigSpace, PciIrq, PciRegion } from 'vfio-user/pci';
import { configRegion, serve } from 'vfio-user/server';

const config = new ConfigSpace({
  vendorId: 0x494f,
  deviceId: 0x0dc8,
  classCode: 0,
  interruptPin: 1,
  bars: { 2: { kind: 'io', size: 0x100 } },
});
const writes = new Uint32Array(16);
/** @type {import('vfio-user/server').Client | undefined} */
let client;

/** @type {import('vfio-user/server').ServedRegion} */
const bar2 = {
  size: 0x100,
  // Inputs are at 1 and 5: a pin is high while its output was written a multiple of three times.
  read(offset, data) {
    const pins = writes.subarray(offset === 1 ? 0 : 8, offset === 1 ? 8 : 16);
    if (offset === 1 || offset === 5)
      data[0] = pins.reduce((bits, n, pin) => bits | (n % 3 === 0 ? 1 << pin : 0), 0);
  },
  // Outputs are at 0 and 4. Unlike the sample's, a write signals INTx, so that there is something to wait for.
  write(offset, [value = 0]) {
    if (offset !== 0 && offset !== 4) return;
    for (let pin = 0; pin < 8; pin++)
      writes[offset * 2 + pin] = (writes[offset * 2 + pin] ?? 0) + ((value >> pin) & 1);
    client?.trigger(PciIrq.intx, 0);
  },
};

const server = await serve(process.argv[2] ?? '/tmp/gpio.sock', {
  name: 'gpio',
  irqs: new Map([[PciIrq.intx, 1]]),
  regions: new Map([
    [PciRegion.config, configRegion(config)],
    [PciRegion.bar2, bar2],
  ]),
  attach: (by) => void (client = by),
});
console.log(`serving ${server.path}`);
process.once('SIGTERM', () => void server.close());
