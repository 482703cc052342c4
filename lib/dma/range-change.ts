// SPDX-License-Identifier: MIT
import type { MappedRange } from './memory';
import { mayStillHold, type DmaChange, type DmaTarget } from './target';

/** A change of a container's ranges, and what became of it. */
export class RangeChange implements DmaChange {
  readonly kind: 'map' | 'unmap';
  readonly range: MappedRange;
  /** Resolves when every device has answered. */
  answered: Promise<void> | null = null;
  /** Why it failed first; null when every device did it. */
  error: Error | null = null;
  /** Whether a device that failed to unmap the range may still use it. */
  held = false;
  #refusedBy: DmaTarget[] | null = null;

  constructor(kind: 'map' | 'unmap', range: MappedRange) {
    this.kind = kind;
    this.range = range;
  }

  /** @param target absent when our own table has no place for the range */
  refuse(error: Error, target?: DmaTarget): void {
    this.error ??= error;
    this.held ||= mayStillHold(error);
    if (target !== undefined) (this.#refusedBy ??= []).push(target);
  }

  isRefusedBy(target: DmaTarget): boolean {
    return this.#refusedBy?.includes(target) ?? false;
  }

  /** Resolves when every device has done it, else rejects with {@link error}. */
  async finished(): Promise<void> {
    await this.answered;
    if (this.error !== null) throw this.error;
  }
}
