// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

describeGuest('resets, and drivers that come and go', { script: 'resets', processors: 2 });
