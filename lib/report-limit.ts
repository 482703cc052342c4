// SPDX-License-Identifier: MIT

/** Milliseconds after which what came again is told as a number. */
const INTERVAL = 60_000;
/** Causes that are told apart. All beyond them count as one. */
const MAX_CAUSES = 64;
/** Numbers tell reports of one cause apart: addresses, ids, processes. */
const NUMBERS = /0x[\da-f]+|\d+/gi;

interface Cause {
  /** Reports since the last one that was told. */
  count: number;
  /** The latest of them. */
  latest: string;
}

/**
 * Bounds what is told of things that a peer can make happen as often as it likes: each cause at once, and then once a minute how often it
 * came again. Reports that differ in their numbers alone have one cause.
 */
export class ReportLimit {
  readonly #tell: (report: string) => void;
  readonly #causes = new Map<string, Cause>();
  #timer: NodeJS.Timeout | undefined;

  constructor(tell: (report: string) => void) {
    this.#tell = tell;
  }

  /** Something has happened. */
  report(text: string): void {
    const own = text.replace(NUMBERS, '0');
    const known = this.#causes.size < MAX_CAUSES || this.#causes.has(own);
    const key = known ? own : '';
    const cause = this.#causes.get(key);
    if (cause !== undefined) {
      cause.count++;
      cause.latest = text;
      return;
    }
    this.#causes.set(key, { count: 0, latest: text });
    this.#timer ??= setInterval(() => {
      this.#summarize();
    }, INTERVAL).unref();
    this.#tell(text);
  }

  /** Tells what came again and was not told. More may be reported later. */
  close(): void {
    this.#summarize();
    this.#causes.clear();
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  /** Tells of causes that came again, and forgets those that did not. */
  #summarize(): void {
    for (const [key, cause] of this.#causes) {
      const { count, latest } = cause;
      cause.count = 0;
      if (count > 0) this.#tell(`${latest} (${count} more such reports since the last one)`);
      else this.#causes.delete(key);
    }
    if (this.#causes.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}
