// SPDX-License-Identifier: MIT
/** The LBA formats that namespaces have, and how a format erases (NVMe base 2.0, 5.14). */
import { type Backend, BackendResult } from '../backends';
import { Outcome, writeFailure } from './outcome';

/** Bytes of a logical block. */
export type BlockSize = 512 | 4096;

/** The block sizes by the index of their LBA format: the same for every namespace, whether it can have them or not. */
export const LBA_FORMATS: readonly BlockSize[] = [512, 4096];

/** Bytes that are erased without giving the event loop a turn: by giving storage back, and by writing zeros. */
const DEALLOCATE_AT_ONCE = 2 ** 30;
const ZERO_AT_ONCE = 2 ** 20;
/** Bytes of one request to a backend that takes its time, which may have to send as many zeros. */
const ZERO_REQUEST = 16 << 20;

/** Whether a namespace with this backend can have blocks of this size. */
export function isFormatOf({ blockSize: least = 1, size }: Backend, blockSize: BlockSize): boolean {
  return blockSize >= least && blockSize <= size;
}

/**
 * Makes the first `bytes` of a backend zero.
 *
 * @param alive tells whether to go on
 * @param progress told the percent that are left, 1 to 100
 * @returns an {@link Outcome}
 */
export async function eraseBytes(
  backend: Backend,
  bytes: number,
  alive: () => boolean,
  progress: (percent: number) => void,
): Promise<number> {
  const unit = eraseUnit(backend);
  for (let offset = 0; offset < bytes; offset += unit) {
    if (!alive()) return Outcome.internalError;
    progress(Math.ceil((100 * (bytes - offset)) / bytes));
    const result = await backend.zero(offset, Math.min(unit, bytes - offset), true);
    if (result !== BackendResult.success) return writeFailure(result);
    await new Promise(setImmediate);
  }
  return Outcome.success;
}

function eraseUnit(backend: Backend): number {
  if (backend.asynchronous === true) return ZERO_REQUEST;
  return backend.deallocation?.readsZero === true ? DEALLOCATE_AT_ONCE : ZERO_AT_ONCE;
}
