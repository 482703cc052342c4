// SPDX-License-Identifier: MIT
import type { LatencyHistogram } from '../latency-histogram';

/** What a direction did in each interval of a run, in order. */
export interface Samples {
  /** I/Os per second. */
  readonly iops: readonly number[];
  /** Bytes per second. */
  readonly bandwidth: readonly number[];
  /** Mean latency in ns; 0 in an interval without I/Os. */
  readonly meanLatency: readonly number[];
  /** Latency of the slowest I/O in ns, within half a bucket; 0 in an interval without I/Os. */
  readonly maxLatency: readonly number[];
}

/** No intervals. */
export const NO_SAMPLES: Samples = { iops: [], bandwidth: [], meanLatency: [], maxLatency: [] };

/** Takes the samples of a direction from what it has done in all so far. */
export class DirectionSampler {
  readonly #iops: number[] = [];
  readonly #bandwidth: number[] = [];
  readonly #meanLatency: number[] = [];
  readonly #maxLatency: number[] = [];
  #before: Float64Array | undefined;
  #count = 0;
  #sum = 0;
  #bytes = 0;

  /** A copy of the samples so far. */
  get samples(): Samples {
    return {
      iops: [...this.#iops],
      bandwidth: [...this.#bandwidth],
      meanLatency: [...this.#meanLatency],
      maxLatency: [...this.#maxLatency],
    };
  }

  /** Number of samples. */
  get length(): number {
    return this.#iops.length;
  }

  /** Drops all samples: what was counted begins again at 0. */
  reset(): void {
    for (const series of [this.#iops, this.#bandwidth, this.#meanLatency, this.#maxLatency])
      series.length = 0;
    this.#before = undefined;
    this.#count = this.#sum = this.#bytes = 0;
  }

  /**
   * Takes what was done since the last sample.
   *
   * @param latency of all I/Os so far
   * @param bytes that they transferred
   * @param seconds since the last sample
   * @param times number of intervals that it stands for
   */
  take(latency: LatencyHistogram, bytes: number, seconds: number, times: number): void {
    const ios = latency.count - this.#count;
    const mean = ios > 0 ? (latency.sum - this.#sum) / ios : 0;
    const max = ios > 0 ? latency.maxSince(this.#before) : 0;
    for (let index = 0; index < times; index++) {
      this.#iops.push(ios / seconds);
      this.#bandwidth.push((bytes - this.#bytes) / seconds);
      this.#meanLatency.push(mean);
      this.#maxLatency.push(max);
    }
    // A direction that is not used has nothing to copy.
    if (ios > 0) this.#before = latency.data.slice();
    this.#count = latency.count;
    this.#sum = latency.sum;
    this.#bytes = bytes;
  }
}

/** The samples of jobs that ran at the same time: rates add up interval by interval, because the rates of the same moment do. */
export function mergeSamples(parts: readonly Samples[]): Samples {
  const add = (pick: (samples: Samples) => readonly number[]): number[] =>
    combine(parts.map(pick), (values) => values.reduce((sum, value) => sum + value, 0));
  const iops = add((samples) => samples.iops);
  const waiting = combine(
    parts.map(({ iops: rates, meanLatency }) => meanLatency.map((mean, at) => mean * (rates[at] ?? 0))),
    (values) => values.reduce((sum, value) => sum + value, 0),
  );
  return {
    iops,
    bandwidth: add((samples) => samples.bandwidth),
    meanLatency: iops.map((rate, at) => (rate > 0 ? (waiting[at] ?? 0) / rate : 0)),
    maxLatency: combine(
      parts.map(({ maxLatency }) => maxLatency),
      (values) => values.reduce((most, value) => Math.max(most, value), 0),
    ),
  };
}

function combine(
  series: readonly (readonly number[])[],
  action: (values: readonly number[]) => number,
): number[] {
  const length = series.reduce((most, { length: each }) => Math.max(most, each), 0);
  return Array.from({ length }, (_, at) => action(series.map((values) => values[at] ?? 0)));
}
