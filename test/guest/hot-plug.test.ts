// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

describeGuest('hot plug', {
  script: 'hot-plug',
  machine: ['-device', 'pcie-root-port,id=slot1,slot=1,chassis=1'],
  drive: null,
  words: ['guest.drive=none'],
  host: (drive) => ({
    plug: (machine) => machine.execute('device_add', { ...drive, bus: 'slot1' }),
    unplug: async (machine) => {
      const gone = machine.qmp.event('DEVICE_DELETED');
      await machine.execute('device_del', { id: 'drive' });
      await gone;
    },
  }),
});
