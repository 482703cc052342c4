// SPDX-License-Identifier: MIT
// A card with 16 pins, as the sample gpio-pci-idio-16 of libvfio-user: node examples/gpio.mjs /tmp/gpio.sock
import { RegisterFile, serve } from 'vfio-user/server';

const writes = new Uint32Array(16);
/** @type {import('vfio-user/server').Client | undefined} */
let client;

/**
 * A pin is high while its output was written a multiple of three times.
 *
 * @param {0 | 8} first
 */
function inputs(first) {
  return writes.subarray(first, first + 8).reduce((bits, n, pin) => bits | (n % 3 === 0 ? 1 << pin : 0), 0);
}

/**
 * Unlike with the sample, a write interrupts, so that there is something to wait for.
 *
 * @param {0 | 8} first
 * @param {number} pins
 */
function output(first, pins) {
  for (let pin = 0; pin < 8; pin++) writes[first + pin] = (writes[first + pin] ?? 0) + ((pins >> pin) & 1);
  client?.setInterrupt(true);
}

const registers = new RegisterFile({
  size: 0x100,
  registers: {
    out0: { offset: 0, width: 8, write: (_, pins) => output(0, pins) },
    // A driver writes this when it has seen an interrupt: the line goes low.
    in0: { offset: 1, width: 8, read: () => inputs(0), write: () => void client?.setInterrupt(false) },
    out8: { offset: 4, width: 8, write: (_, pins) => output(8, pins) },
    in8: { offset: 5, width: 8, read: () => inputs(8) },
  },
});
const server = await serve(process.argv[2] ?? '/tmp/gpio.sock', {
  name: 'gpio',
  pci: {
    ...{ vendorId: 0x494f, deviceId: 0x0dc8, classCode: 0, interruptPin: 1 },
    bars: { 2: { kind: 'io', ...registers.region } },
  },
  attach: (by) => void (client = by),
});
console.log(`serving ${server.path}`);
process.once('SIGTERM', () => void server.close());
