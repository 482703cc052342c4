// SPDX-License-Identifier: MIT
import { invalidArgument, outOfRange } from './errors';

/** Number of buckets: 29 groups of 64, the layout of fio's latency statistics (fio `stat.h`, `FIO_IO_U_PLAT_*`). */
export const HISTOGRAM_BUCKETS = 1856;

const SUB_BUCKETS = 64;
const LINEAR_LIMIT = 128;
/** First value, in ns, beyond the range of the last bucket: about 17 s. */
const RANGE = 2 ** 34;

// Slots of the data: the exact statistics first, then the buckets. Zeros are an empty histogram.
const COUNT = 0;
const SUM = 1;
const SQUARES = 2;
const MIN = 3;
const MAX = 4;
const BUCKETS = 8;

/** Length of the data of a {@link LatencyHistogram}. */
export const HISTOGRAM_SLOTS = BUCKETS + HISTOGRAM_BUCKETS;

/**
 * Index of the bucket that counts a latency. Below 128 a bucket holds one value; from there on each power of two is
 * divided into 64 equal buckets, so that a bucket is at most 1/64 (1.6 %) of its value wide.
 *
 * @param ns 0 or more; fractions are cut off, values of 2^34 and above fall into the last bucket
 * @internal Exported for its test.
 */
export function bucketIndex(ns: number): number {
  if (ns < LINEAR_LIMIT) return ns >>> 0;
  if (ns >= 2 ** 31) return farBucketIndex(ns);
  const shift = 25 - Math.clz32(ns);
  return (shift + 1) * SUB_BUCKETS + ((ns >>> shift) & (SUB_BUCKETS - 1));
}

/** {@link bucketIndex} of latencies that are not 31-bit integers: the bucket of an eighth of the value lies three groups lower. */
function farBucketIndex(ns: number): number {
  if (ns >= RANGE) return HISTOGRAM_BUCKETS - 1;
  return bucketIndex(Math.floor(ns / 8)) + 3 * SUB_BUCKETS;
}

/**
 * The latency in ns that stands for a bucket: the value itself below 128, else the middle of the bucket.
 *
 * @param index 0 … {@link HISTOGRAM_BUCKETS} - 1
 * @internal Exported for its test.
 */
export function bucketValue(index: number): number {
  if (index < LINEAR_LIMIT) return index;
  const group = Math.floor(index / SUB_BUCKETS);
  const width = 2 ** (group - 1);
  return (SUB_BUCKETS + (index % SUB_BUCKETS) + 0.5) * width;
}

/** A bucket with a count above 0. */
export interface HistogramBucket {
  /** Latency that stands for the bucket, in ns; see {@link bucketValue}. */
  readonly value: number;
  /** Number of samples. */
  readonly count: number;
}

/**
 * Latencies in nanoseconds, counted in the buckets of fio's layout, with exact minimum, maximum, mean and standard deviation.
 *
 * All of it lives in one array, {@link data}, which can cross threads: another histogram over it reads the same. Counts are
 * doubles, exact up to 2^53. Nothing is allocated while recording.
 */
export class LatencyHistogram {
  readonly #slots: Float64Array;

  /**
   * @param data data of a histogram, or zeros; without it the histogram is empty
   * @throws ERR_OUT_OF_RANGE when its length is not {@link HISTOGRAM_SLOTS}
   */
  constructor(data: Float64Array = new Float64Array(HISTOGRAM_SLOTS)) {
    if (data.length !== HISTOGRAM_SLOTS)
      throw outOfRange(`The data of a histogram has ${HISTOGRAM_SLOTS} elements, not ${data.length}`);
    this.#slots = data;
  }

  /** The histogram as plain data. It changes when something is recorded. */
  get data(): Float64Array {
    return this.#slots;
  }

  /** Counts one latency in ns. Negative values and NaN count as 0. */
  record(ns: number): void {
    this.recordMany(ns, 1);
  }

  /** Counts the same latency `count` times. `count` is a positive integer and is not checked. */
  recordMany(ns: number, count: number): void {
    const slots = this.#slots;
    const value = ns > 0 ? ns : 0;
    const before = slots[COUNT] as number;
    slots[COUNT] = before + count;
    slots[SUM] = (slots[SUM] as number) + value * count;
    slots[SQUARES] = (slots[SQUARES] as number) + value * value * count;
    if (before === 0 || value < (slots[MIN] as number)) slots[MIN] = value;
    if (value > (slots[MAX] as number)) slots[MAX] = value;
    const slot = BUCKETS + bucketIndex(value);
    slots[slot] = (slots[slot] as number) + count;
  }

  /** Counts the first `count` latencies of an array, in ns. It is one call for all, so that no number is boxed for each. */
  recordAll(latencies: Float64Array, count: number): void {
    for (let index = 0; index < count; index++) this.recordMany(latencies[index] as number, 1);
  }

  /** Adds the samples of another histogram to this one. */
  merge(other: LatencyHistogram): void {
    const from = other.#slots;
    const to = this.#slots;
    if (from[COUNT] === 0) return;
    if (to[COUNT] === 0 || (from[MIN] as number) < (to[MIN] as number)) to[MIN] = from[MIN] as number;
    if ((from[MAX] as number) > (to[MAX] as number)) to[MAX] = from[MAX] as number;
    for (const slot of [COUNT, SUM, SQUARES]) to[slot] = (to[slot] as number) + (from[slot] as number);
    for (let slot = BUCKETS; slot < to.length; slot++)
      to[slot] = (to[slot] as number) + (from[slot] as number);
  }

  /** Drops all samples, as at the end of the ramp time. */
  reset(): void {
    this.#slots.fill(0);
  }

  /** Number of samples. */
  get count(): number {
    return this.#slots[COUNT] as number;
  }

  /** Sum of all samples in ns. */
  get sum(): number {
    return this.#slots[SUM] as number;
  }

  /** Exact smallest sample in ns; 0 without samples. */
  get min(): number {
    return this.#slots[MIN] as number;
  }

  /** Exact largest sample in ns; 0 without samples. */
  get max(): number {
    return this.#slots[MAX] as number;
  }

  /** Exact arithmetic mean in ns; 0 without samples. */
  get mean(): number {
    return this.count === 0 ? 0 : this.sum / this.count;
  }

  /** Standard deviation of the sample (divisor n - 1) in ns; 0 with fewer than two samples. */
  get stddev(): number {
    const n = this.count;
    if (n < 2) return 0;
    const spread = (this.#slots[SQUARES] as number) - (this.sum * this.sum) / n;
    return Math.sqrt(Math.max(0, spread) / (n - 1));
  }

  /**
   * Latency in ns that `percent` % of the samples do not exceed (nearest rank), within half a bucket of the sample and
   * never outside {@link min} … {@link max}; 0 without samples.
   *
   * @param percent 0 … 100
   * @throws ERR_INVALID_ARG_VALUE
   */
  percentile(percent: number): number {
    if (!(percent >= 0 && percent <= 100)) {
      throw invalidArgument(`A percentile lies between 0 and 100, not at ${percent}`);
    }
    const slots = this.#slots;
    // The factor undoes the rounding of the product, so that 99.9 % of 1000 is rank 999, not 1000.
    const rank = Math.max(1, Math.ceil(((percent * this.count) / 100) * (1 - 1e-15)));
    let seen = 0;
    for (let index = 0; index < HISTOGRAM_BUCKETS; index++) {
      seen += slots[BUCKETS + index] as number;
      if (seen >= rank) return Math.min(this.max, Math.max(this.min, bucketValue(index)));
    }
    return this.max;
  }

  /** Part of the samples, 0 to 1, that are not above a latency in ns, within half a bucket; 1 without samples. */
  shareWithin(ns: number): number {
    if (this.count === 0) return 1;
    let within = 0;
    for (const { value, count } of this.buckets()) if (value <= ns || ns >= this.max) within += count;
    return within / this.count;
  }

  /**
   * Numbers of samples that are not above each of some limits, within half a bucket.
   *
   * @param limits in ns, rising, below 2^34
   */
  countsWithin(limits: readonly number[]): number[] {
    let index = 0;
    let count = 0;
    return limits.map((limit) => {
      while (index < HISTOGRAM_BUCKETS && bucketValue(index) <= limit)
        count += this.#slots[BUCKETS + index++] as number;
      return count;
    });
  }

  /**
   * The largest sample, in ns within half a bucket, since an earlier time; 0 when there is none.
   *
   * @param before the {@link data} of that time; without it, of all samples
   */
  maxSince(before: Float64Array | undefined): number {
    const slots = this.#slots;
    for (let slot = slots.length - 1; slot >= BUCKETS; slot--) {
      if ((slots[slot] as number) > (before?.[slot] ?? 0))
        return Math.min(this.max, bucketValue(slot - BUCKETS));
    }
    return 0;
  }

  /** The buckets that hold samples, by rising latency. */
  *buckets(): Generator<HistogramBucket, void, undefined> {
    for (let index = 0; index < HISTOGRAM_BUCKETS; index++) {
      const count = this.#slots[BUCKETS + index] as number;
      if (count > 0) yield { value: bucketValue(index), count };
    }
  }
}
