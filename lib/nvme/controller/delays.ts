// SPDX-License-Identifier: MIT

/** Below this many milliseconds a timer is too coarse: the clock is looked at in every turn of the event loop. */
const TIMER_GRAIN = 2;

/** What waits for its time, to a fraction of a millisecond while the event loop is free. */
export class Delays {
  /** What ends each wait early. */
  readonly #waits = new Set<(goOn: boolean) => void>();

  /** Resolves after so many milliseconds with true, or with false when {@link cancel} is called before. */
  wait(milliseconds: number): Promise<boolean> {
    const due = performance.now() + milliseconds;
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout | undefined;
      let immediate: NodeJS.Immediate | undefined;
      const end = (isDue: boolean): void => {
        clearTimeout(timer);
        clearImmediate(immediate);
        this.#waits.delete(end);
        resolve(isDue);
      };
      const look = (): void => {
        const left = due - performance.now();
        if (left <= 0) end(true);
        else if (left < TIMER_GRAIN) immediate = setImmediate(look);
        else timer = setTimeout(look, left - TIMER_GRAIN / 2);
      };
      this.#waits.add(end);
      look();
    });
  }

  /** Ends all waits. */
  cancel(): void {
    for (const end of [...this.#waits]) end(false);
  }
}
