// SPDX-License-Identifier: MIT
import type { Lie } from '../support/failing-storage';
import type { Fault } from './plan';
import type { Tally } from './tally';

/** How a role is run. */
export interface RunOptions {
  readonly faults: Iterable<Fault>;
  readonly seed: number;
  readonly tally: Tally;
  /** An empty folder, which is removed afterwards. */
  readonly folder: string;
  readonly lie: Lie;
}

/** A side of the package that faults befall. */
export interface Role {
  /** What is done to it, for `--help`. */
  readonly summary: string;
  /** Kinds of faults with what each does, for `--help`. */
  readonly kinds: Readonly<Record<string, string>>;
  /** What the gap in the report is measured from and to. */
  readonly gap: string;
  run(options: RunOptions): Promise<void>;
}
