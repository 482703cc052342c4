// SPDX-License-Identifier: MIT
import type { VfioUserErrorCode } from '../../lib/errors';

/** An error of this shape, for `toThrow`. */
export function like(shape: Record<string, unknown>): Error {
  return expect.objectContaining(shape) as Error;
}

/** An error with this code, for `toThrow`. */
export const coded = (code: string): Error => like({ code });

/** The error of a system call that failed with this errno, for `toThrow`. */
export const errno = (errnoName: string): Error => like({ code: 'ERR_VFIO_USER_SYSTEM', errnoName });

/** What an error of this code, with a message like this, looks like to `toMatchObject`. */
export function failure(code: VfioUserErrorCode, text: RegExp | string = ''): Record<string, unknown> {
  const message: unknown =
    typeof text === 'string' ? expect.stringContaining(text) : expect.stringMatching(text);
  return { code, message };
}

/** What a promise is rejected with; undefined when it is fulfilled. */
export async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}
