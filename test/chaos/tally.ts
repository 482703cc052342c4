// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';

/** Texts of each kind of mistake that are kept for the report. */
const MOST_TEXTS = 10;

/** What a run must not find. */
export const MISTAKES = {
  lost: 'blocks that were lost',
  lies: 'flushes that were lies',
  wrong: 'reported wrongly',
  leaks: 'leaks',
  broken: 'broke otherwise',
} as const;
export type Mistake = keyof typeof MISTAKES;

/** Counts what a run has done and found. */
export class Tally {
  rounds = 0;
  readonly faults = new Map<string, number>();
  ios = 0;
  flushes = 0;
  verifiedBytes = 0;
  /** Commands that failed because they had to, by what they were and their status. */
  readonly failed = new Map<string, number>();
  /** Milliseconds. */
  readonly gaps: number[] = [];
  /** What could not be done, and why. */
  readonly notes = new Set<string>();
  /** Lines of figures for the report. */
  readonly figures: string[] = [];
  readonly #counts = new Map<Mistake, number>();
  readonly #texts: string[] = [];
  readonly #start = performance.now();
  /** Which fault is being injected, for texts. */
  now = 'before the first fault';

  mistake(kind: Mistake, text: string): void {
    this.#counts.set(kind, this.count(kind) + 1);
    if (this.count(kind) <= MOST_TEXTS) this.#texts.push(`${MISTAKES[kind]}: ${this.now}: ${text}`);
  }

  count(kind: Mistake): number {
    return this.#counts.get(kind) ?? 0;
  }

  get mistakes(): number {
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0);
  }

  get texts(): readonly string[] {
    return this.#texts;
  }

  get seconds(): number {
    return (performance.now() - this.#start) / 1000;
  }

  injected(kind: string): void {
    add(this.faults, kind);
  }

  fails(what: string): void {
    add(this.failed, what);
  }
}

function add(to: Map<string, number>, key: string): void {
  to.set(key, (to.get(key) ?? 0) + 1);
}
