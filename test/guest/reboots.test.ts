// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

describeGuest('reboots', {
  script: 'reboots',
  reboots: true,
  host: () => ({ reset: (machine) => machine.execute('system_reset') }),
});
