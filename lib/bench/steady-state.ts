// SPDX-License-Identifier: MIT

/** When the rate of a run counts as steady (fio: `steadystate`). */
export interface SteadyCriterion {
  /** Whether I/Os or bytes per second are looked at. */
  readonly measure: 'iops' | 'bw';
  /**
   * Whether the slope of the rates must be small, of the line that fits them best, in units per second; or the largest
   * distance of a rate from their mean.
   */
  readonly slope: boolean;
  /** What it must not exceed, in I/Os or bytes per second; or in percent of the mean. */
  readonly limit: number;
  readonly percent: boolean;
  /** Seconds for which it must hold. */
  readonly duration: number;
  /** Seconds of the run before rates are taken. */
  readonly rampTime: number;
}

/** What has become of it. */
export interface SteadyOutcome {
  readonly attained: boolean;
  /** The slope, or the largest distance, at the last look, in the unit of the limit; undefined before there was a window. */
  readonly value: number | undefined;
  /** Rates of the last window, one a second. */
  readonly iops: readonly number[];
  readonly bandwidth: readonly number[];
}

const SECOND = 1000;

/** Judges whether the rates of a run are steady, over a window that moves with time. */
export class SteadyState {
  readonly #criterion: SteadyCriterion;
  readonly #size: number;
  readonly #iops: number[] = [];
  readonly #bandwidth: number[] = [];
  #attained = false;
  #value: number | undefined;
  #next: number;
  #last: { readonly ms: number; readonly ios: number; readonly bytes: number } | undefined;

  constructor(criterion: SteadyCriterion) {
    this.#criterion = criterion;
    this.#size = Math.max(2, Math.floor(criterion.duration));
    this.#next = criterion.rampTime * SECOND;
  }

  get outcome(): SteadyOutcome {
    return {
      attained: this.#attained,
      value: this.#value,
      iops: [...this.#iops],
      bandwidth: [...this.#bandwidth],
    };
  }

  /**
   * Takes what all jobs have done so far.
   *
   * @param elapsedMs milliseconds of the measured run
   * @returns true once the rate is steady
   */
  look(elapsedMs: number, ios: number, bytes: number): boolean {
    if (this.#attained || elapsedMs < this.#next) return this.#attained;
    const last = this.#last;
    this.#last = { ms: elapsedMs, ios, bytes };
    this.#next = elapsedMs + SECOND;
    if (last === undefined) return false;
    const seconds = (elapsedMs - last.ms) / SECOND;
    this.#keep(this.#iops, (ios - last.ios) / seconds);
    this.#keep(this.#bandwidth, (bytes - last.bytes) / seconds);
    if (this.#iops.length < this.#size) return false;
    this.#attained = this.#judge();
    return this.#attained;
  }

  #keep(rates: number[], rate: number): void {
    rates.push(rate);
    if (rates.length > this.#size) rates.shift();
  }

  #judge(): boolean {
    const { measure, slope, limit, percent } = this.#criterion;
    const rates = measure === 'iops' ? this.#iops : this.#bandwidth;
    const mean = rates.reduce((sum, rate) => sum + rate, 0) / rates.length;
    if (mean === 0) return false;
    const found = slope
      ? Math.abs(leastSquaresSlope(rates))
      : Math.max(...rates.map((rate) => Math.abs(rate - mean)));
    this.#value = percent ? (found * 100) / mean : found;
    return this.#value <= limit;
  }
}

/** The slope of the line that fits values at 0, 1, 2 … best, by least squares. */
function leastSquaresSlope(values: readonly number[]): number {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const numerator = values.reduce((sum, value, at) => sum + (at - middle) * (value - mean), 0);
  const denominator = values.reduce((sum, _, at) => sum + (at - middle) ** 2, 0);
  return numerator / denominator;
}
