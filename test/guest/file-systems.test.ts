// SPDX-License-Identifier: MIT
import { describeGuest } from './describe-guest';

describeGuest('file systems', { script: 'file-systems', serve: ['--size', '1g'] });
