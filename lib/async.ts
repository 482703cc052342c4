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
