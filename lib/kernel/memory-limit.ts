// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { VfioUserError } from '../errors';

/** `CAP_IPC_LOCK` (capabilities(7)): memory may be locked without limit. */
const CAP_IPC_LOCK = 14n;

/** What lets a process lock more memory. */
export const MORE_MEMORY =
  'Raise it for the shell with `ulimit -l unlimited` as root, or with LimitMEMLOCK=infinity of a systemd unit';
/** Of 2 MiB pages, which a `DmaContainer` takes. */
const HUGE_PAGES = ['kernel', 'mm', 'hugepages', 'hugepages-2048kB', 'free_hugepages'];

/**
 * Checks that there are huge pages, for a container that takes nothing else.
 *
 * @param sys mount point of sysfs
 * @throws VfioUserError ERR_VFIO_USER_CONNECT with the command that makes some
 */
export function checkHugePages(address: string, sys: string): void {
  if (Number(textOf(join(sys, ...HUGE_PAGES))) > 0) return;
  throw new VfioUserError(
    'ERR_VFIO_USER_CONNECT',
    `${address} cannot be opened with huge pages alone (hugePages 'always'): none of 2 MiB is free. Reserve some as root, ` +
      'with `sysctl vm.nr_hugepages=64` for 128 MiB',
  );
}

/**
 * Bytes that this process may lock (RLIMIT_MEMLOCK), which DMA mappings count against; Infinity without a limit, or with
 * the right to exceed it.
 *
 * @param proc mount point of procfs
 */
export function lockableBytes(proc: string): number {
  const limit = /^Max locked memory\s+(\S+)/m.exec(textOf(join(proc, 'self', 'limits')))?.[1];
  const capabilities = /^CapEff:\s+([0-9a-f]+)/m.exec(textOf(join(proc, 'self', 'status')))?.[1];
  const privileged =
    capabilities !== undefined && ((BigInt(`0x${capabilities}`) >> CAP_IPC_LOCK) & 1n) === 1n;
  return privileged || limit === undefined || limit === 'unlimited' ? Infinity : Number(limit);
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}
