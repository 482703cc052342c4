// SPDX-License-Identifier: MIT
import { readdirSync } from 'node:fs';

/** Number of open descriptors of this process. */
export function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}
