// SPDX-License-Identifier: MIT

/** Lets one action run at a time, in the order of the calls. */
export class Mutex {
  /** Never rejects. */
  #last: Promise<void> = Promise.resolve();
  #users = 0;

  /** Runs an action when all before it have ended, however they ended. */
  run<T>(action: () => Promise<T>): Promise<T> {
    this.#users++;
    const end = (): void => {
      this.#users--;
    };
    const result = this.#last.then(action);
    this.#last = result.then(end, end);
    return result;
  }

  /** Runs an action when no {@link run} is under way or waits. Any number of these overlap, and no {@link run} waits for them. */
  async runShared<T>(action: () => Promise<T>): Promise<T> {
    while (this.#users > 0) await this.#last;
    return action();
  }
}

/** Does something at once, and makes a promise of its result: what it throws rejects. */
export function promised<T>(action: () => T): Promise<T> {
  return new Promise((resolve) => {
    resolve(action());
  });
}

/**
 * A function that asks once for each key, and from then on returns the same promise. A failure is not remembered: the calls
 * that were made until then get it, and the next call asks again.
 */
export function memoize<T, Key = void>(ask: (key: Key) => Promise<T>): (key: Key) => Promise<T> {
  const answers = new Map<Key, Promise<T>>();
  return (key) => {
    let answer = answers.get(key);
    if (answer === undefined) {
      answer = ask(key);
      answers.set(key, answer);
      answer.catch(() => answers.delete(key));
    }
    return answer;
  };
}

/** A wait for a share of a {@link Budget}. */
export interface Claim {
  /** Resolves with true when the share is taken, with false when the wait was cancelled. */
  readonly granted: Promise<boolean>;
  /** Ends the wait. Does nothing when the share is taken already. */
  cancel(): void;
}

/**
 * An amount of something that work under way shares. Who takes a share gives it back; who finds too little left waits, in the
 * order of the calls. Who asks for more than the whole gets the whole, when nothing else is taken.
 */
export class Budget {
  readonly #total: number;
  #taken = 0;
  /** Those who wait: how much they want, and whom to tell. */
  readonly #waiting = new Map<
    Claim,
    { readonly amount: number; readonly settle: (granted: boolean) => void }
  >();

  constructor(total: number) {
    this.#total = total;
  }

  /**
   * Takes a share, to be given back with {@link give}.
   *
   * @returns null when it is taken; a wait for it when too little is left, or others wait
   */
  take(amount: number): Claim | null {
    const share = Math.min(amount, this.#total);
    if (this.#waiting.size === 0 && this.#taken + share <= this.#total) {
      this.#taken += share;
      return null;
    }
    let settle: (granted: boolean) => void = () => undefined;
    const claim: Claim = {
      granted: new Promise((resolve) => {
        settle = resolve;
      }),
      cancel: () => {
        if (!this.#waiting.delete(claim)) return;
        settle(false);
        this.#grant();
      },
    };
    this.#waiting.set(claim, { amount: share, settle });
    return claim;
  }

  /** Gives back what {@link take} was asked for. */
  give(amount: number): void {
    this.#taken -= Math.min(amount, this.#total);
    this.#grant();
  }

  /** Ends all waits. */
  cancelAll(): void {
    const all = [...this.#waiting.values()];
    // First, since nobody who waits shall get what others do not wait for any more.
    this.#waiting.clear();
    for (const { settle } of all) settle(false);
  }

  #grant(): void {
    for (const [claim, { amount, settle }] of this.#waiting) {
      if (this.#taken + amount > this.#total) return;
      this.#waiting.delete(claim);
      this.#taken += amount;
      settle(true);
    }
  }
}
