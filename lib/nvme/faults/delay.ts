// SPDX-License-Identifier: MIT
import type { Xoshiro128 } from '../../random';

/** How long something takes, in milliseconds: always the same, or drawn anew each time. */
export type Delay =
  | { readonly kind: 'fixed'; readonly duration: number }
  | { readonly kind: 'uniform'; readonly least: number; readonly most: number }
  | { readonly kind: 'normal'; readonly mean: number; readonly deviation: number }
  | { readonly kind: 'exponential'; readonly mean: number };

/** Longest delay in milliseconds: a day, less than what timers of Node.js take. */
const LONGEST_DELAY = 86_400_000;

const MILLISECONDS: Readonly<Record<string, number>> = { us: 1e-3, ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** What {@link readDelay} takes, for messages. */
export const DELAY_FORMS =
  'a duration with its unit, such as 500us, 20ms or 2s, at most a day, or uniform:LEAST:MOST, normal:MEAN:DEVIATION or exponential:MEAN of durations';

/** Milliseconds; undefined for a text that is no duration with a unit. */
function readDuration(text: string | undefined): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(us|ms|s|m|h)$/.exec(text ?? '');
  if (match === null) return undefined;
  const milliseconds = Number(match[1]) * (MILLISECONDS[match[2] as string] as number);
  return milliseconds <= LONGEST_DELAY ? milliseconds : undefined;
}

/** The delay that a text means; undefined for one that is none of {@link DELAY_FORMS}. */
export function readDelay(text: string): Delay | undefined {
  const words = text.split(':');
  if (words.length === 1) {
    const duration = readDuration(words[0]);
    return duration === undefined ? undefined : { kind: 'fixed', duration };
  }
  const [kind, ...durations] = words;
  const [first, second, ...more] = durations.map(readDuration);
  if (first === undefined || more.length > 0) return undefined;
  if (kind === 'exponential' && durations.length === 1) return { kind, mean: first };
  if (second === undefined) return undefined;
  if (kind === 'uniform' && first <= second) return { kind, least: first, most: second };
  return kind === 'normal' ? { kind, mean: first, deviation: second } : undefined;
}

/** Milliseconds of one delay, 0 to {@link LONGEST_DELAY}. */
export function drawDelay(delay: Delay, random: Xoshiro128): number {
  return Math.min(Math.max(draw(delay, random), 0), LONGEST_DELAY);
}

function draw(delay: Delay, random: Xoshiro128): number {
  switch (delay.kind) {
    case 'fixed':
      return delay.duration;
    case 'uniform':
      return delay.least + random.fraction() * (delay.most - delay.least);
    case 'normal':
      return delay.mean + delay.deviation * standardNormal(random);
    case 'exponential':
      return -delay.mean * Math.log(1 - random.fraction());
  }
}

/** A number with mean 0 and deviation 1, by the method of Box and Muller, which always takes two draws. */
function standardNormal(random: Xoshiro128): number {
  const radius = Math.sqrt(-2 * Math.log(1 - random.fraction()));
  return radius * Math.cos(2 * Math.PI * random.fraction());
}
