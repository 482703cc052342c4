// SPDX-License-Identifier: MIT
import { readFileSync, readdirSync } from 'node:fs';
import { EventFd, Mapping, closeFd, createSharedMemory } from '../../lib/native';

/** Number of open descriptors of this process. */
export function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}

/** Number of mappings of shared memory in this process. */
export function mappings(): number {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes('memfd:')).length;
}

/** Opens what the addon keeps open from its first use on, so that descriptors can be counted afterwards. */
export function warmUp(): void {
  const fd = createSharedMemory(4096);
  Mapping.map(fd, 0, 4096).close();
  closeFd(fd);
  const event = EventFd.create();
  event.watch(() => undefined).close();
  event.close();
}
