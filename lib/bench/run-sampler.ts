// SPDX-License-Identifier: MIT
import { DIRECTIONS, type Direction } from './job';
import type { JobTally } from './job-tally';
import { DirectionSampler, type Samples } from './samples';

/** Samples of all directions of a run, at intervals of one length from its beginning on. Times are in milliseconds. */
export class RunSampler {
  readonly #intervalMs: number;
  readonly #samplers = {
    read: new DirectionSampler(),
    write: new DirectionSampler(),
    trim: new DirectionSampler(),
  };
  #began = 0;
  /** When the last sample was taken. */
  #sampled = 0;

  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /** A copy of the samples so far. */
  samples(direction: Direction): Samples {
    return this.#samplers[direction].samples;
  }

  /** The run begins now: drops all samples. */
  begin(now: number): void {
    this.#began = this.#sampled = now;
    for (const direction of DIRECTIONS) this.#samplers[direction].reset();
  }

  /**
   * Takes a sample when an interval is over. One that comes late stands for all the intervals that have passed.
   *
   * @returns whether it was taken
   */
  take(now: number, tally: JobTally): boolean {
    const intervals = this.#passed(now);
    if (intervals < 1) return false;
    this.#take(tally, (now - this.#sampled) / 1000, intervals);
    this.#sampled = now;
    return true;
  }

  /** As {@link take}, after a time without I/Os: what was done belongs to the first of the intervals that have passed. */
  takeAfterGap(now: number, tally: JobTally): void {
    const intervals = this.#passed(now);
    if (intervals < 1) return;
    const seconds = this.#intervalMs / 1000;
    this.#take(tally, seconds, 1);
    this.#take(tally, seconds, intervals - 1);
    this.#sampled = this.#began + this.#samplers.read.length * this.#intervalMs;
  }

  /** Intervals that are over, and have no sample. */
  #passed(now: number): number {
    return Math.floor((now - this.#began) / this.#intervalMs) - this.#samplers.read.length;
  }

  #take(tally: JobTally, seconds: number, intervals: number): void {
    for (const direction of DIRECTIONS)
      this.#samplers[direction].take(tally[direction], tally.bytes(direction), seconds, intervals);
  }
}
