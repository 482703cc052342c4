// SPDX-License-Identifier: MIT
import { Xoshiro128 } from '../../lib/random';

/** A fault to inject. It follows from the seed alone; what the numbers mean, its kind says. */
export interface Fault<Kind extends string = string> {
  /** From 1 on. */
  readonly round: number;
  readonly kind: Kind;
  /** How much of the load is done before it: 0 to less than 1. */
  readonly when: number;
  /** Which of several things is hit, and how much of it: 0 to less than 1. */
  readonly where: number;
  readonly much: number;
  /** Milliseconds for which it lasts, 1 to 50, for those that last. */
  readonly pause: number;
}

/**
 * Rounds of faults: in each, every kind once, in an order that the seed chooses.
 *
 * @param seed 32 bits
 */
export function* plan<Kind extends string>(
  kinds: readonly Kind[],
  rounds: number,
  seed: number,
): Generator<Fault<Kind>> {
  const random = Xoshiro128.fromSeed(seed);
  for (let round = 1; round <= rounds; round++) {
    const left = [...kinds];
    while (left.length > 0) {
      const [kind] = left.splice(random.below(left.length), 1) as [Kind];
      const [when, where, much] = [random.fraction(), random.fraction(), random.fraction()];
      yield { round, kind, when, where, much, pause: 1 + random.below(50) };
    }
  }
}

/** A fault as a line of `--plan`. */
export function describe({ round, kind, when, where, much, pause }: Fault): string {
  const share = (value: number): string => value.toFixed(3);
  return `${String(round).padStart(6)}  ${kind.padEnd(14)} when ${share(when)}  where ${share(where)}  much ${share(much)}  pause ${pause} ms`;
}
