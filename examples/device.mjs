// SPDX-License-Identifier: MIT
// A device with registers in a BAR, DMA and MSI-X: node examples/device.mjs /tmp/reverser.sock
import { ConfigSpace, PciIrq, PciRegion } from 'vfio-user/pci';
import { MsixTable, configRegion, serve } from 'vfio-user/server';

const msix = new MsixTable(1);
const config = new ConfigSpace({
  vendorId: 0x1234,
  deviceId: 0x11e9,
  classCode: 0x120000,
  bars: { 0: { kind: 'memory32', size: 0x1000 }, 4: { kind: 'memory32', size: 0x2000 } },
  capabilities: [{ kind: 'msix', vectors: 1, table: { bar: 4, offset: 0 }, pba: { bar: 4, offset: 0x1000 } }],
});
const bytes = new Uint8Array(0x1000);
const registers = new DataView(bytes.buffer); // 0: address, 8: length, which starts, 12: status
/** @type {import('vfio-user/server').ClientMemory | undefined} */
let memory;

/** Turns bytes of the client around, then signals vector 0. The status is 1, or 2 when there are no such bytes. */
async function reverse() {
  const [address, length] = [registers.getBigUint64(0, true), registers.getUint32(8, true)];
  try {
    await memory?.write(address, (await memory.read(address, length)).reverse());
    registers.setUint32(12, 1, true);
  } catch {
    registers.setUint32(12, 2, true);
  }
  msix.trigger(0);
}

const server = await serve(process.argv[2] ?? '/tmp/reverser.sock', {
  name: 'reverser',
  irqs: new Map([[PciIrq.msix, 1]]),
  regions: new Map([
    [PciRegion.config, configRegion(config, (effect) => msix.configure(effect))],
    [PciRegion.bar4, msix.region({ size: 0x2000, table: 0, pba: 0x1000 })],
    [
      PciRegion.bar0,
      {
        size: bytes.length,
        read: (offset, data) => data.set(bytes.subarray(offset, offset + data.length)),
        write: (offset, data) => {
          bytes.set(data, offset);
          if (offset === 8) void reverse(); // Not awaited: the client is answered before the DMA.
        },
      },
    ],
  ]),
  attach(client) {
    memory = client.memory;
    msix.attach(client);
  },
});
console.log(`serving ${server.path}`);
process.once('SIGTERM', () => void server.close());
