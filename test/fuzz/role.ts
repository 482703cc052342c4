// SPDX-License-Identifier: MIT
import type { Random } from './random';

export const ROLE_NAMES = ['server', 'client', 'nvme-host', 'nvme-controller'] as const;
export type RoleName = (typeof ROLE_NAMES)[number];

/** Something that must never happen has happened: what, and what was expected. */
export class Violation extends Error {
  override readonly name = 'Violation';
}

/** What a session is made of: plain data, so that it can be saved, read by people and run again. */
export interface Step {
  /** What is done. */
  readonly do: string;
}

/** Counts what a run has seen. */
export class Tally {
  /** Messages, completions, submission entries and register accesses that were generated. */
  messages = 0;
  connections = 0;
  /** By what happened, such as `DMA_MAP EINVAL`. */
  readonly seen = new Map<string, number>();
  /** Called now and then, so that a supervisor sees that there is progress. */
  alive: () => void = () => undefined;

  see(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1);
  }
}

/** What is fuzzed, ready for sessions. */
export interface Fixture {
  /**
   * Runs one session, and checks that what is fuzzed still works.
   *
   * @throws Violation, or whatever the fuzzed side throws where it must not
   */
  run(steps: readonly Step[]): Promise<void>;
  /** Resolves when nothing of the sessions so far is left, so that leaks can be counted. */
  rest(): Promise<void>;
  close(): Promise<void>;
}

/** A side of the package that is fuzzed, and the generated peer that fuzzes it. */
export interface Role {
  readonly name: RoleName;
  /** What a long run must have seen, as in {@link Tally.seen}. */
  readonly wanted: readonly string[];
  /** The steps of a session: they follow from the random numbers alone. */
  generate(random: Random): Step[];
  open(tally: Tally): Promise<Fixture>;
}

/** How long the fuzzed side may take for something that it must do, in milliseconds; far more than a busy machine needs. */
export const PATIENCE = 20_000;
