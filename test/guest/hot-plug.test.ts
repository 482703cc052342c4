// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

describeGuest('hot plug', {
  script: 'hot-plug',
  // QEMU 11.1 aborts when a vfio-user device with MSI-X is unplugged.
  serve: ['--size', '256m', '--irq', 'msi'],
  machine: ['-device', 'pcie-root-port,id=slot1,slot=1,chassis=1'],
  drive: null,
  words: ['guest.drive=none', 'nvme_core.io_timeout=4'],
  host: ({ device, control }) => ({
    plug: (machine) => machine.execute('device_add', { ...device, bus: 'slot1' }),
    unplug: (machine) => machine.unplug('drive'),
    pull: () => control('inject', 'remove'),
  }),
});
