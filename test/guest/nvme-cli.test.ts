// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

// The registers are those of a device with a driver, which Linux lets nobody else map by default.
describeGuest('nvme-cli', {
  script: 'nvme-cli',
  words: ['iomem=relaxed'],
  serve: ['--size', '256m', '--capacity', '64m'],
});
