// SPDX-License-Identifier: MIT
import { closeFd } from '../native';

/**
 * File descriptors that came with a message. The list owns them until {@link take}; {@link close} closes what nobody
 * took, so that a peer that sends more than it should cannot make us leak.
 */
export class FdList {
  readonly #fds: (number | null)[];

  constructor(fds: readonly number[]) {
    this.#fds = [...fds];
  }

  /** Number of descriptors that came with the message, taken or not. */
  get length(): number {
    return this.#fds.length;
  }

  /** Hands the descriptor at `index` to the caller, who owns it from now on; undefined when there is none. */
  take(index: number): number | undefined {
    const fd = this.#fds[index] ?? undefined;
    if (fd !== undefined) this.#fds[index] = null;
    return fd;
  }

  /** Closes every descriptor that was not taken. Idempotent. */
  close(): void {
    for (let index = 0; index < this.#fds.length; index++) {
      const fd = this.take(index);
      if (fd !== undefined) closeFd(fd);
    }
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The list of a message without descriptors. */
export const NO_FDS = new FdList([]);
