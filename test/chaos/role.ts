// SPDX-License-Identifier: MIT
import type { Lie } from '../support/failing-storage';
import { endWanted } from './children';
import type { Footprint } from './footprint';
import { judgeLeaks } from './leaks';
import type { Fault } from './plan';
import type { Tally } from './tally';

/** How a role is run. */
export interface RunOptions {
  readonly faults: readonly Fault[];
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

/** Faults before the first footprint that counts, at most. */
const WARM_UP = 60;
/** How often a long run says how far it is. */
const PROGRESS_SECONDS = 60;

/** What befalls something under load. */
export interface World {
  /** Injects a fault, and waits until all is well again. False where it cannot be injected, of which there is a note. */
  inject(fault: Fault): Promise<boolean>;
  /** What must not grow, measured when nothing of a fault is left; undefined for a world that is made anew by the faults. */
  readonly rest?: (before?: Footprint) => Promise<Footprint>;
  /** What is checked once more at the end. */
  finish(): Promise<void>;
  close(): Promise<void>;
}

/** Injects all faults, and judges what is left of them. */
export async function injectAll({ faults, tally }: RunOptions, world: World, who: string): Promise<void> {
  const warmUp = Math.min(WARM_UP, Math.ceil(faults.length / 3));
  let before: Footprint | undefined;
  let told = 0;
  try {
    for (const [index, fault] of faults.entries()) {
      if (endWanted()) {
        tally.notes.add(`stopped after ${index} of ${faults.length} faults`);
        break;
      }
      if (index === warmUp) before = await world.rest?.();
      tally.now = `round ${fault.round}, ${fault.kind}`;
      if (await world.inject(fault)) tally.injected(fault.kind);
      tally.rounds = fault.round;
      if (tally.seconds - told < PROGRESS_SECONDS) continue;
      told = tally.seconds;
      console.log(
        `${told.toFixed(0)} s: ${index + 1} of ${faults.length} faults, ${tally.mistakes} mistakes`,
      );
    }
    tally.now = 'at the end';
    if (before !== undefined && world.rest !== undefined)
      judgeLeaks(tally, who, before, await world.rest(before));
    await world.finish();
  } finally {
    await world.close();
  }
}
