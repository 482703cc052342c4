// SPDX-License-Identifier: MIT
// A device with registers in a BAR, DMA and MSI-X: node examples/device.mjs /tmp/reverser.sock
import { RegisterFile, serve } from 'vfio-user/server';

/** @type {import('vfio-user/server').Client | undefined} */
let client;
const registers = new RegisterFile({
  size: 0x1000,
  registers: {
    address: { offset: 0, width: 64, writable: ~0n },
    // A write starts it. Not awaited: the client is answered before the DMA.
    length: { offset: 8, width: 32, writable: 0xffff, write: (length) => void reverse(length) },
    status: { offset: 12, width: 32 },
  },
});

/**
 * Turns bytes of the client around, then signals vector 0. The status is 1, or 2 when there are no such bytes.
 *
 * @param {number} length
 */
async function reverse(length) {
  const address = registers.get('address');
  try {
    await client?.memory.write(address, (await client.memory.read(address, length)).reverse());
    registers.set('status', 1);
  } catch {
    registers.set('status', 2);
  }
  client?.setInterrupt(true);
}

const server = await serve(process.argv[2] ?? '/tmp/reverser.sock', {
  name: 'reverser',
  pci: {
    ...{ vendorId: 0x1234, deviceId: 0x11e9, classCode: 0x120000 },
    // The server itself serves the MSI-X table and the pending bits, in BAR 4.
    bars: { 0: { kind: 'memory32', ...registers.region }, 4: { kind: 'memory32', size: 0x2000 } },
    capabilities: [
      { kind: 'msix', vectors: 1, table: { bar: 4, offset: 0 }, pba: { bar: 4, offset: 0x1000 } },
    ],
  },
  attach: (by) => void (client = by),
  reset: () => registers.reset(),
});
console.log(`serving ${server.path}`);
process.once('SIGTERM', () => void server.close());
