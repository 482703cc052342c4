// SPDX-License-Identifier: MIT
import { readFileSync } from 'node:fs';

/** Both sides of a comparison, measured one after the other. */
export interface Round<T> {
  readonly ours: T;
  readonly peer: T;
  /** Share of the processors' time that the hypervisor gave to other machines meanwhile, 0 to 1. */
  readonly stolen: number;
}

/** From this share on, the hypervisor has a say in the result. */
const MUCH_STOLEN = 0.01;

/**
 * The rounds of a comparison. Who was first in one is second in the next, as the second finds the machine warmer. A round
 * during which the hypervisor took much is repeated, until there are twice as many as wanted.
 */
export class Rounds<T> {
  readonly #wanted: number;
  readonly #stolenShare: () => () => number;
  readonly #all: Round<T>[] = [];

  /** @param begin begins to count what is stolen; the function that it returns tells the share since then */
  constructor(wanted: number, begin: () => () => number = stolenShare) {
    this.#wanted = wanted;
    this.#stolenShare = begin;
  }

  get done(): boolean {
    const good = this.#all.filter(({ stolen }) => stolen < MUCH_STOLEN).length;
    return good >= this.#wanted || this.#all.length >= 2 * this.#wanted;
  }

  async run(measureOurs: () => T | Promise<T>, measurePeer: () => T | Promise<T>): Promise<void> {
    const stolenSince = this.#stolenShare();
    if (this.#all.length % 2 === 0) {
      const ours = await measureOurs();
      this.#all.push({ ours, peer: await measurePeer(), stolen: stolenSince() });
    } else {
      const peer = await measurePeer();
      this.#all.push({ ours: await measureOurs(), peer, stolen: stolenSince() });
    }
  }

  /** Of all rounds those that count: as many as wanted, in which the hypervisor took least. */
  get best(): readonly Round<T>[] {
    return [...this.#all].sort((a, b) => a.stolen - b.stolen).slice(0, this.#wanted);
  }
}

/** What was stolen at most in a round that counts, in words; undefined when it was little. */
export function warningOfStolen(rounds: readonly Round<unknown>[]): string | undefined {
  const most = Math.max(0, ...rounds.map(({ stolen }) => stolen));
  if (most < MUCH_STOLEN) return undefined;
  return `the hypervisor took up to ${(most * 100).toFixed(0)} % of the processors' time: these ratios are uncertain`;
}

function stolenShare(): () => number {
  const before = processorTimes();
  return () => {
    const after = processorTimes();
    return (after.stolen - before.stolen) / Math.max(1, after.all - before.all);
  };
}

/** In ticks, of all processors (proc(5), /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal). */
function processorTimes(): { stolen: number; all: number } {
  const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n', 1);
  const times = line.trim().split(/\s+/).slice(1, 9).map(Number);
  return { stolen: times[7] ?? 0, all: times.reduce((sum, time) => sum + time, 0) };
}
