// SPDX-License-Identifier: MIT
import { AsyncEventType, AsyncNotice, GenericStatus, LogPage, asyncEvent } from '../spec';
import { type ErrorLog, NOT_KNOWN } from './error-log';
import { Outcome } from './outcome';
import type { QueueSet } from './queue-set';

/** Asynchronous Event Requests that may be outstanding; AERL is this less one. */
export const ASYNC_EVENT_LIMIT = 4;

/** An event of which the host is to be told. */
export interface RaisedEvent {
  /** A value of `AsyncEventType`. */
  readonly type: number;
  readonly info: number;
  /** Page to read, which arms events of the type again. */
  readonly logPage: number;
}

/** Asynchronous events (NVMe base 2.0, 5.2): at most one of a type is reported until its log page was read. */
export class AsyncEvents {
  /** Command ids of the requests that are outstanding. */
  readonly #requests: number[] = [];
  readonly #waiting = new Map<number, RaisedEvent>();
  /** Page to be read, by the type of the event that was reported. */
  readonly #reported = new Map<number, number>();
  readonly #queues: QueueSet;
  readonly #errors: ErrorLog;

  constructor(queues: QueueSet, errors: ErrorLog) {
    this.#queues = queues;
    this.#errors = errors;
  }

  /** Takes a request. False when there are too many. */
  request(cid: number): boolean {
    if (this.#requests.length >= ASYNC_EVENT_LIMIT) return false;
    this.#requests.push(cid);
    this.#report();
    return true;
  }

  /** Completes a request with the status of an aborted command. False when it was not outstanding. */
  abort(cid: number): boolean {
    const index = this.#requests.indexOf(cid);
    if (index < 0) return false;
    this.#requests.splice(index, 1);
    this.#queues.completeHeld(cid, Outcome.abortRequested, 0);
    return true;
  }

  /**
   * Reports an event, now or with the next request. It is dropped when one of its type waits already, or was reported
   * and its page not read since.
   */
  raise(event: RaisedEvent): void {
    if (this.#waiting.has(event.type) || this.#reported.has(event.type)) return;
    this.#waiting.set(event.type, event);
    this.#report();
  }

  /**
   * Logs an error that no command has caused, and raises its event.
   * @param info a value of `AsyncErrorEvent`
   */
  raiseError(info: number): void {
    this.#errors.add(NOT_KNOWN, NOT_KNOWN, GenericStatus.success, 0);
    this.raise({ type: AsyncEventType.error, info, logPage: LogPage.error });
  }

  /** Tells that the namespaces are not what they were (NVMe base 2.0, 5.2.1.3). */
  raiseNamespaceNotice(): void {
    this.raise({
      type: AsyncEventType.notice,
      info: AsyncNotice.namespaceAttributeChanged,
      logPage: LogPage.changedNamespaces,
    });
  }

  /** A log page was read without Retain Asynchronous Event. */
  pageRead(page: number): void {
    for (const [type, reported] of this.#reported) {
      if (reported === page) this.#reported.delete(type);
    }
    if (page === LogPage.error || page === LogPage.smart || page === LogPage.changedNamespaces) {
      for (const [type, event] of this.#waiting) {
        if (event.logPage === page) this.#waiting.delete(type);
      }
    }
  }

  /** Forgets all requests and events. */
  reset(): void {
    this.#requests.length = 0;
    this.#waiting.clear();
    this.#reported.clear();
  }

  #report(): void {
    for (const [type, event] of this.#waiting) {
      const cid = this.#requests.shift();
      if (cid === undefined) return;
      this.#waiting.delete(type);
      this.#reported.set(type, event.logPage);
      this.#queues.completeHeld(cid, Outcome.success, asyncEvent.encode(event));
    }
  }
}
