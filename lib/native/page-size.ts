// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';

/** Size of the host's ordinary pages, in bytes: 4096, or 16384 or 65536 on some arm64 systems. */
export const pageSize: number = readPageSize();

/** From the auxiliary vector that the kernel gives each process: pairs of u64 of type and value (getauxval(3)). */
function readPageSize(): number {
  const AT_PAGESZ = 6n;
  let vector: Buffer;
  try {
    vector = readFileSync('/proc/self/auxv');
  } catch {
    return 4096; // No /proc; mmap(2) tells if this is wrong.
  }
  for (let offset = 0; offset + 16 <= vector.length; offset += 16) {
    if (vector.readBigUInt64LE(offset) === AT_PAGESZ) return Number(vector.readBigUInt64LE(offset + 8));
  }
  return 4096;
}
