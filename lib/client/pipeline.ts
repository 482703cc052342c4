// SPDX-License-Identifier: MIT
import { asError } from '../errors';

/**
 * Messages in flight at a time: enough that the peer always has the next. Descriptors that it has not received yet count
 * against RLIMIT_NOFILE (unix(7), ETOOMANYREFS), which may be 1024; and more messages than these would not fit into the
 * send buffer of a socket, which is 208 KiB by default (socket(7)) and takes 278 of them.
 */
const WINDOW = 256;

/** Is called once: with null when something is done, else with the error. Of many things in flight, promises cost more. */
export type Done = (error: unknown) => void;

/** A promise for what is told by a callback. */
export function promised(start: (done: Done) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    start((error) => {
      if (error === null) resolve();
      else reject(asError(error));
    });
  });
}

/** The other way round. */
export function callBack(promise: Promise<unknown>, done: Done): void {
  promise.then(() => {
    done(null);
  }, done);
}

/**
 * Calls `send` for each item, in order, without waiting for one before the next is sent. When it throws, the item has
 * failed.
 *
 * @param copies messages that an item takes, each to another device
 * @returns by item, the error of what failed, or null
 */
export function pipelined<T>(
  items: readonly T[],
  send: (item: T, index: number, done: Done) => void,
  copies = 1,
): Promise<({ error: unknown } | null)[]> {
  const most = Math.ceil(WINDOW / Math.max(copies, 1));
  return new Promise((resolve) => {
    const results = items.map((): { error: unknown } | null => null);
    let sent = 0;
    let settled = 0;
    let advancing = false;
    const start = (index: number): void => {
      const done: Done = (error) => {
        if (error !== null) results[index] = { error };
        settled++;
        advance();
      };
      try {
        send(items[index] as T, index, done);
      } catch (error) {
        done(error);
      }
    };
    const advance = (): void => {
      // What is done at once comes back here.
      if (advancing) return;
      advancing = true;
      while (sent < items.length && sent - settled < most) start(sent++);
      advancing = false;
      if (settled === items.length) resolve(results);
    };
    advance();
  });
}
