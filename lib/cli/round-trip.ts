// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError } from '../errors';
import type { DeviceRegion } from '../pci';

/** Times of single messages, in microseconds. */
export interface RoundTripTimes {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

/** How long the server takes to answer a message. */
export interface RoundTrip {
  /** What was read: region index and offset. */
  readonly region: number;
  readonly offset: number;
  /** Messages of each kind. */
  readonly samples: number;
  /** Awaited on the event loop. */
  readonly async: RoundTripTimes;
  /** Waited for without the event loop. */
  readonly sync: RoundTripTimes;
}

/** Few enough that a server that polls once a millisecond answers all in a moment. */
const SAMPLES = 40;

/**
 * Reads 4 bytes time and again; none of these reads may change the device.
 *
 * @param deadline in milliseconds of `performance.now()`
 * @throws VfioUserError ERR_VFIO_USER_TIMEOUT when it is not done by then
 */
export async function measureRoundTrip(
  region: DeviceRegion,
  offset: number,
  deadline: number,
): Promise<RoundTrip> {
  const waited: number[] = [];
  const blocked: number[] = [];
  for (let sample = 0; sample < SAMPLES; sample++) {
    const start = performance.now();
    await region.read32(offset);
    waited.push(performance.now() - start);
  }
  for (let sample = 0; sample < SAMPLES; sample++) {
    const start = performance.now();
    if (start >= deadline)
      throw new VfioUserError(
        'ERR_VFIO_USER_TIMEOUT',
        'there was no time for all messages of the round trip',
      );
    region.read32Sync(offset);
    blocked.push(performance.now() - start);
  }
  return { region: region.index, offset, samples: SAMPLES, async: summary(waited), sync: summary(blocked) };
}

function summary(milliseconds: readonly number[]): RoundTripTimes {
  const sorted = milliseconds.map((time) => Math.round(time * 10_000) / 10).sort((a, b) => a - b);
  const at = (index: number): number => sorted[index] ?? 0;
  return { min: at(0), median: at(sorted.length >> 1), max: at(sorted.length - 1) };
}
