// SPDX-License-Identifier: MIT
import { VfioUserError, errnoName } from '../errors';
import { CommandError, Errno } from '../transport';

/** What it means that a range exceeds its file, for whom the server has to be told. */
const FILE_TOO_SHORT =
  "the client's file ends before the range does; it joins several files to one range, as SPDK's tools do without -g";

/**
 * The DMA_MAPs of a client that were refused. Some clients go on without the memory, and fail where nobody sees why. Each cause
 * is told at once, and how often it came when the client is gone: there may be thousands.
 */
export class RefusedMaps {
  readonly #counts = new Map<number, number>();
  readonly #report: (error: VfioUserError) => void;

  constructor(report: (error: VfioUserError) => void) {
    this.#report = report;
  }

  /** @param error what the client is answered */
  note(error: unknown): void {
    const errno = error instanceof CommandError ? error.errno : Errno.EINVAL;
    const count = (this.#counts.get(errno) ?? 0) + 1;
    this.#counts.set(errno, count);
    if (count > 1) return;
    const hint = errno === Errno.ENXIO ? `: ${FILE_TOO_SHORT}` : '';
    const why = error instanceof Error ? error.message : errnoName(errno);
    this.#report(
      refusal(`a DMA_MAP was refused, and the device does not reach its memory: ${why}${hint}`, errno, error),
    );
  }

  /** The client is gone. */
  close(): void {
    for (const [errno, count] of this.#counts) {
      if (count > 1) this.#report(refusal(`${count} DMA_MAPs were refused with ${errnoName(errno)}`, errno));
    }
    this.#counts.clear();
  }
}

function refusal(text: string, errno: number, cause?: unknown): VfioUserError {
  return new VfioUserError('ERR_VFIO_USER_DMA', text, { errno, command: 'DMA_MAP', cause });
}
