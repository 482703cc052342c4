// SPDX-License-Identifier: MIT
import { LogPage, asyncEvent } from '../spec';

/** Asynchronous Event Requests that may be outstanding; AERL is this less one. */
export const ASYNC_EVENT_LIMIT = 4;

/** An event that is to be told. */
export interface RaisedEvent {
  readonly type: number;
  readonly info: number;
  /** Page to read, which arms events of the type again. */
  readonly logPage: number;
}

/** Asynchronous events (NVMe base 2.0, 5.2): at most one of a type is told until its log page was read. */
export class AsyncEvents {
  readonly #requests: number[] = [];
  readonly #waiting = new Map<number, RaisedEvent>();
  /** Page to be read, by the type of the event that was told. */
  readonly #told = new Map<number, number>();
  readonly #complete: (cid: number, dw0: number) => void;

  /** @param complete completes an Asynchronous Event Request */
  constructor(complete: (cid: number, dw0: number) => void) {
    this.#complete = complete;
  }

  /** Takes a request. False when there are too many. */
  request(cid: number): boolean {
    if (this.#requests.length >= ASYNC_EVENT_LIMIT) return false;
    this.#requests.push(cid);
    this.#tell();
    return true;
  }

  /** Takes back a request. True when it was outstanding. */
  abort(cid: number): boolean {
    const index = this.#requests.indexOf(cid);
    if (index >= 0) this.#requests.splice(index, 1);
    return index >= 0;
  }

  /** Tells an event, now or with the next request. Events of a type that is masked or waits already are dropped. */
  raise(event: RaisedEvent): void {
    if (this.#waiting.has(event.type) || this.#told.has(event.type)) return;
    this.#waiting.set(event.type, event);
    this.#tell();
  }

  /** A log page was read without Retain Asynchronous Event. */
  pageRead(page: number): void {
    for (const [type, told] of this.#told) {
      if (told === page) this.#told.delete(type);
    }
    if (page === LogPage.error || page === LogPage.smart) {
      for (const [type, event] of this.#waiting) {
        if (event.logPage === page) this.#waiting.delete(type);
      }
    }
  }

  reset(): void {
    this.#requests.length = 0;
    this.#waiting.clear();
    this.#told.clear();
  }

  #tell(): void {
    for (const [type, event] of this.#waiting) {
      const cid = this.#requests.shift();
      if (cid === undefined) return;
      this.#waiting.delete(type);
      this.#told.set(type, event.logPage);
      this.#complete(cid, asyncEvent.encode(event));
    }
  }
}
