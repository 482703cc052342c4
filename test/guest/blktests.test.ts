// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

/** A built blktests, a Linux project of tests for block devices. */
const folder = process.env['BLKTESTS_DIR'];

if (folder !== undefined)
  describeGuest('blktests', { script: 'blktests', folder, allTools: true, serve: ['--size', '1g'] });
else test.skip('blktests: skipped, BLKTESTS_DIR is not set', () => {});
