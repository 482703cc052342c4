// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

describeGuest('reboots', {
  script: 'reboots',
  kexec: true,
  host: () => ({ reset: (machine) => machine.execute('system_reset') }),
});
