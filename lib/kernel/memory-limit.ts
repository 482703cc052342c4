// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** `CAP_IPC_LOCK` (capabilities(7)): memory may be locked without limit. */
const CAP_IPC_LOCK = 14n;

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
