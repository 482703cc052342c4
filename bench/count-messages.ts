// SPDX-License-Identifier: MIT
/** Prints how many messages are sent from connect to the first completed read: `node count-messages.js ENDPOINT`. */
import { subscribe } from 'node:diagnostics_channel';
import { connect } from 'vfio-user';
import { NvmeController } from 'vfio-user/nvme';

let sent = 0;
subscribe('vfio-user:request', (message) => {
  if ((message as { readonly direction: string }).direction === 'sent') sent++;
});

async function main(endpoint: string): Promise<void> {
  await using device = await connect(endpoint);
  await using controller = await NvmeController.attach(device);
  const [namespace] = controller.namespaces;
  if (namespace === undefined) throw new Error('there is no namespace');
  await namespace.read(controller.arena.allocate(namespace.blockSize), { lba: 0, blocks: 1 });
  console.log(sent);
}

void main(process.argv[2] ?? '');
