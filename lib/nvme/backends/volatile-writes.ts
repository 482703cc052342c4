// SPDX-License-Identifier: MIT
import { BlockSet } from './block-set';

/** Storage with a volatile cache. */
export interface VolatileStorage {
  /** Makes durable what was written before the call, or rejects: then it may be lost. */
  sync(): Promise<void>;
  /** Throws when the storage is not what it should be, although {@link sync} has succeeded. */
  verify?(): void;
  /** Makes the error of a flush that comes too late for blocks that were lost. */
  failure(what: string): Error;
}

/**
 * What was written to storage with a volatile cache, and is not durable yet; and the flushes that make it so. There is one flush at a
 * time, since some storage tells an error to one call only, and all who ask meanwhile share the next.
 */
export class VolatileWrites {
  readonly #storage: VolatileStorage;
  /** Written since the last flush began. */
  #dirty = new BlockSet();
  /** Written, but perhaps lost, and not written again since. The success of a later flush proves nothing for them. */
  readonly #lost = new BlockSet();
  /** The flush that runs. */
  #running: Promise<void> | null = null;
  /** The flush that follows, for all who asked since the one that runs has begun. */
  #next: Promise<void> | null = null;

  constructor(storage: VolatileStorage) {
    this.#storage = storage;
  }

  /** Ends when no flush runs. Never rejects. */
  get idle(): Promise<void> | null {
    const end = (): void => undefined;
    return this.#running?.then(end, end) ?? null;
  }

  /** A range of bytes is about to be written, or has been. */
  add(offset: number, length: number): void {
    this.#dirty.add(offset, length);
  }

  /** A range of bytes was written as a whole: what may have been lost of it does not matter any more. */
  replaced(offset: number, length: number): void {
    if (this.#lost.size > 0) this.#lost.delete(offset, length);
  }

  /** What is not durable may have been lost. */
  lose(): void {
    this.#lost.addAll(this.#dirty);
    this.#dirty = new BlockSet();
  }

  /** Makes durable what was written before the call. Rejects when it cannot, and as long as something that was lost was not replaced. */
  flush(): Promise<void> {
    if (this.#next !== null) return this.#next;
    if (this.#running === null) return this.#flushNow();
    // What was written since the flush that runs began may not be part of it.
    const next = (): Promise<void> => this.#flushNow();
    return (this.#next = this.#running.then(next, next));
  }

  #flushNow(): Promise<void> {
    this.#next = null;
    return (this.#running = this.#flush().finally(() => {
      this.#running = null;
    }));
  }

  async #flush(): Promise<void> {
    const flushed = this.#dirty;
    const lost = this.#lost.size;
    this.#dirty = new BlockSet();
    try {
      await this.#storage.sync();
    } catch (error) {
      // What was written meanwhile may have been lost with the rest.
      this.#lost.addAll(flushed);
      this.lose();
      throw error;
    }
    if (lost > 0) {
      throw this.#storage.failure(
        `${lost} blocks of 512 bytes that an earlier flush may have lost were not written again`,
      );
    }
    this.#storage.verify?.();
  }
}
