// SPDX-License-Identifier: MIT
import { asError } from '../errors';

/**
 * Messages in flight at a time: enough that the peer always has the next. Descriptors that it has not received yet count
 * against RLIMIT_NOFILE (unix(7), ETOOMANYREFS), which may be 1024; and more messages than these would not fit into the
 * send buffer of a socket, which is 208 KiB by default (socket(7)) and takes 278 of them.
 */
const WINDOW = 256;

/**
 * Is called once for each of the things in flight: with null when it is done, else with its error; and with its index. It
 * looks like the callback of a request, so that one function serves all of them: of many, a promise or a function for each
 * costs more than its message.
 */
export type Done = (error: unknown, result: unknown, index: number) => void;

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
export function callBack(promise: Promise<unknown>, done: Done, index: number): void {
  promise.then(
    () => {
      done(null, null, index);
    },
    (error: unknown) => {
      done(error, null, index);
    },
  );
}

/**
 * Sends things by index, in order, without waiting for one before the next is sent. What throws has failed.
 *
 * @param begin is given what to call for each when it is done; returns what sends one
 * @param copies messages that each takes, to another device each
 * @returns by index, the error of what failed, or null
 */
export function pipelined(
  count: number,
  begin: (done: Done) => (index: number) => void,
  copies = 1,
): Promise<({ error: unknown } | null)[]> {
  const most = Math.ceil(WINDOW / Math.max(copies, 1));
  return new Promise((resolve) => {
    const results = new Array<{ error: unknown } | null>(count).fill(null);
    let sent = 0;
    let settled = 0;
    let advancing = false;
    const done: Done = (error, _, index) => {
      if (error !== null) results[index] = { error };
      settled++;
      advance();
    };
    const send = begin(done);
    const advance = (): void => {
      // What is done at once comes back here.
      if (advancing) return;
      advancing = true;
      while (sent < count && sent - settled < most) {
        const index = sent++;
        try {
          send(index);
        } catch (error) {
          done(error, null, index);
        }
      }
      advancing = false;
      if (settled === count) resolve(results);
    };
    advance();
  });
}
