// SPDX-License-Identifier: MIT
import { match, ok, rejects } from 'node:assert/strict';
import { once } from 'node:events';
import { connect, type VfioUserDevice } from '../../../lib';
import { NvmeController } from '../../../lib/nvme';
import { CONFORMANCE } from '../../support/device-conformance';

/** Of a device of the kernel's, which a proxy never lets be mapped. */
const MAPS = new Set([
  'doorbells are mapped, and unmapped for good',
  'it is closed once, and is of no use then',
]);

/** Reads until the device is gone, and returns why it was closed. */
async function readToTheEnd(device: VfioUserDevice): Promise<Error | null> {
  const closed = once(device, 'close') as Promise<[Error | null]>;
  const controller = await NvmeController.attach(device, { vectors: 2 });
  const memory = await device.dma.allocate(4096);
  console.log('waiting');
  await rejects(async () => {
    for (;;) await controller.namespace(1).read(memory, { lba: 0, blocks: 8 });
  });
  return (await closed)[0];
}

/** What is tried on a PCI device of the guest through `vfio-user serve vfio`, at a socket. */
export const PROXIED_PARTS: Readonly<Record<string, (place: { readonly address: string }) => Promise<void>>> =
  {
    /** It does what every device does, but that its registers are not mapped. */
    proxied: async ({ address }) => {
      await using device = await connect(address);
      for (const [name, check] of Object.entries(CONFORMANCE)) {
        if (MAPS.has(name)) continue;
        console.log(name);
        await check(device);
      }
      const bar = await device.region('bar0');
      ok(bar.areas.length === 0, 'registers can be mapped');
    },

    /** Lets go of the device when it is told that somebody wants it back. */
    told: async ({ address }) => {
      const device = await connect(address);
      await (
        await device.irq('req')
      ).enable([
        () => {
          void device.close();
        },
      ]);
      ok((await readToTheEnd(device)) === null, 'it was taken away');
    },

    /** Asks to be told, and goes on: the device is taken away after some seconds. */
    keeps: async ({ address }) => {
      await using device = await connect(address);
      let told = false;
      await (
        await device.irq('req')
      ).enable([
        () => {
          told = true;
        },
      ]);
      match(
        String(await readToTheEnd(device)),
        /ERR_VFIO_USER_DISCONNECTED|disconnected|closed the connection/,
      );
      ok(told, 'nobody said that it is wanted');
    },
  };
