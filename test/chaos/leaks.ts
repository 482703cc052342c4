// SPDX-License-Identifier: MIT
import { footprintText, FOOTPRINT_HEADER, type Footprint } from './footprint';
import type { Tally } from './tally';

const MIB = 2 ** 20;

/**
 * By how much a process may hold more than it did after a warm-up, in the same state: descriptors and shared mappings not at
 * all; memory by what the collector and the allocator keep, which does not depend on the number of rounds.
 */
const ALLOWED: Footprint = {
  fds: 0,
  eventfds: 0,
  shared: 0,
  mappings: 64,
  heap: 4 * MIB,
  external: MIB,
  rss: 32 * MIB,
};

/** Names what a process holds too much of; see {@link ALLOWED}. */
export function leaksBetween(before: Footprint, after: Footprint): string[] {
  const names = Object.keys(ALLOWED) as (keyof Footprint)[];
  return names
    .filter((name) => after[name] - before[name] > ALLOWED[name])
    .map((name) => `${name} ${before[name]} after the warm-up, ${after[name]} at the end`);
}

/** Enters leaks, and the figures, in the tally. */
export function judgeLeaks(tally: Tally, who: string, before: Footprint, after: Footprint): void {
  for (const leak of leaksBetween(before, after)) tally.mistake('leaks', `${who}: ${leak}`);
  tally.figures.push(
    `${who.padEnd(24)}${FOOTPRINT_HEADER}`,
    `${'  after the warm-up'.padEnd(24)}${footprintText(before)}`,
    `${'  at the end'.padEnd(24)}${footprintText(after)}`,
  );
}
