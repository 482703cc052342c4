// SPDX-License-Identifier: MIT

/** What a device model may return: at once, or a promise. */
export type Eventually<T> = T | Promise<T>;

/**
 * Calls a function of the device model. What it throws comes back as a `CommandError`: its own, or EIO for any other
 * error, which has been reported then.
 */
export type ModelCall = <T>(call: () => Eventually<T>) => Eventually<T>;

/** `value` once `before` is done; at once when it is no promise, so that plain models stay synchronous. */
export function after<T>(before: Eventually<unknown>, value: () => T): Eventually<T> {
  return before instanceof Promise ? before.then(value) : value();
}
