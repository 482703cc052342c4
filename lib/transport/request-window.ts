// SPDX-License-Identifier: MIT
import { asError } from '../errors';
import { Fifo } from './fifo';
import type { Reply, Settlement } from './requests';

/**
 * Most requests in flight: enough that the peer always has one to serve. Descriptors that the peer has not received yet count
 * against RLIMIT_NOFILE (unix(7), ETOOMANYREFS), which may be 1024. The send buffer of a socket, 208 KiB by default
 * (socket(7)), takes 278 such messages.
 */
const WINDOW = 256;

/** The requests of a series that are not sent yet. */
interface Series {
  readonly count: number;
  next: number;
  readonly send: (index: number) => void;
}

/** Requests in flight of all connections of this thread. */
let inFlight = 0;
/** Connections that have more to send. They take turns, one request each. */
const turns: RequestWindow[] = [];
let advancing = false;

/** A connection's series of requests, which are sent one behind the other without waiting for the replies. */
export class RequestWindow {
  readonly #series = new Fifo<Series>();

  /**
   * Sends a series when those before it are sent. Never rejects.
   *
   * @param start sends a request by its index; what it throws is the outcome of that index
   * @returns by index, the reply or why there is none
   */
  send(
    count: number,
    start: (index: number, settlement: Settlement) => void,
  ): Promise<PromiseSettledResult<Reply>[]> {
    if (count === 0) return Promise.resolve([]);
    return new Promise((resolve) => {
      const results = new Array<PromiseSettledResult<Reply>>(count);
      let left = count;
      const settle = (index: number, result: PromiseSettledResult<Reply>): void => {
        results[index] = result;
        inFlight--;
        if (--left === 0) resolve(results);
        advance();
      };
      const send = (index: number): void => {
        const reject = (reason: unknown): void => {
          settle(index, { status: 'rejected', reason });
        };
        const fulfil = (value: Reply): void => {
          settle(index, { status: 'fulfilled', value });
        };
        try {
          start(index, { resolve: fulfil, reject });
        } catch (error) {
          reject(asError(error));
        }
      };
      this.#series.push({ count, next: 0, send });
      if (this.#series.length === 1) turns.push(this);
      advance();
    });
  }

  /** Sends one request. Returns whether there are more. */
  sendNext(): boolean {
    const series = this.#series.peek() as Series;
    const index = series.next++;
    if (series.next === series.count) this.#series.shift();
    inFlight++;
    series.send(index);
    return this.#series.length > 0;
  }
}

function advance(): void {
  // A request that fails at once calls this again.
  if (advancing) return;
  advancing = true;
  while (inFlight < WINDOW) {
    const window = turns.shift();
    if (window === undefined) break;
    if (window.sendNext()) turns.push(window);
  }
  advancing = false;
}
