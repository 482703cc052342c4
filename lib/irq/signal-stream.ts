// SPDX-License-Identifier: MIT

/** What a {@link SignalStream} needs of the vector that feeds it. */
export interface SignalSource {
  /** The stream wants to be told of signals from now on. */
  start(stream: SignalStream): void;
  /** The stream wants no more signals. Called once for each start. */
  stop(stream: SignalStream): void;
  /** The consumer asks for the next count, so it is done with the one before. */
  handled(): void;
}

interface Waiting {
  readonly resolve: (result: IteratorResult<number, undefined>) => void;
  readonly reject: (reason: Error) => void;
}

/**
 * Numbers of signals of an interrupt vector, as an asynchronous iterator. Signals that come while the consumer is busy
 * coalesce into one number. It listens from the first `next()` on, and holds nothing before that and after its end.
 */
export class SignalStream implements AsyncIterableIterator<number> {
  readonly #source: SignalSource;
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => {
    // The reason is the caller's own, whatever it is.
    this.end(this.#signal?.reason as Error);
  };
  #state: 'new' | 'started' | 'ended' = 'new';
  #signals = 0;
  #busy = false;
  #error: Error | null = null;
  #waiting: Waiting[] = [];

  /** @internal */
  constructor(source: SignalSource, signal?: AbortSignal) {
    this.#source = source;
    this.#signal = signal;
  }

  /** This object, for `for await`. */
  [Symbol.asyncIterator](): this {
    return this;
  }

  /**
   * The number of signals since the call before, once there are any.
   *
   * @returns rejects once with the error with which the stream ended, when what was counted has been told
   */
  next(): Promise<IteratorResult<number, undefined>> {
    if (this.#state === 'new') this.#start();
    if (this.#busy) {
      this.#busy = false;
      if (this.#state === 'started') this.#source.handled();
    }
    if (this.#signals > 0) return Promise.resolve(this.#take());
    if (this.#error !== null) {
      const error = this.#error;
      this.#error = null;
      return Promise.reject(error);
    }
    if (this.#state === 'ended') return Promise.resolve({ done: true, value: undefined });
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Ends the stream. Called when a `for await` loop is left. */
  return(): Promise<IteratorResult<number, undefined>> {
    if (this.#busy && this.#state === 'started') this.#source.handled();
    this.#busy = false;
    this.end(null);
    this.#signals = 0;
    this.#error = null;
    return Promise.resolve({ done: true, value: undefined });
  }

  /** Counts more signals. @internal */
  push(signals: number): void {
    this.#signals += signals;
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) waiting.resolve(this.#take());
  }

  /**
   * Ends the stream: with an error, which the consumer gets after what was counted, or without. Idempotent.
   *
   * @internal
   */
  end(error: Error | null): void {
    if (this.#state === 'ended') return;
    const started = this.#state === 'started';
    this.#state = 'ended';
    this.#signal?.removeEventListener('abort', this.#onAbort);
    if (started) this.#source.stop(this);
    const [first, ...others] = this.#waiting;
    this.#waiting = [];
    if (error === null || first === undefined) this.#error = error;
    if (error === null) first?.resolve({ done: true, value: undefined });
    else first?.reject(error);
    for (const { resolve } of others) resolve({ done: true, value: undefined });
  }

  #start(): void {
    if (this.#signal?.aborted === true) {
      this.#onAbort();
      return;
    }
    this.#state = 'started';
    this.#signal?.addEventListener('abort', this.#onAbort, { once: true });
    this.#source.start(this);
  }

  #take(): IteratorResult<number, undefined> {
    const value = this.#signals;
    this.#signals = 0;
    this.#busy = true;
    return { done: false, value };
  }
}
