// SPDX-License-Identifier: MIT

/**
 * Requests in flight at a time. Descriptors that the peer has not received yet count against RLIMIT_NOFILE (unix(7),
 * ETOOMANYREFS), which may be 1024.
 */
const WINDOW = 64;

/**
 * Calls `send` for each item, in order, without waiting for one before the next is sent.
 *
 * @returns by item, what its promise was rejected with, or null
 */
export function pipelined<T>(
  items: readonly T[],
  send: (item: T, index: number) => Promise<void>,
): Promise<({ error: unknown } | null)[]> {
  return new Promise((resolve) => {
    const results = items.map((): { error: unknown } | null => null);
    let sent = 0;
    let settled = 0;
    const settle = (): void => {
      settled++;
      advance();
    };
    const advance = (): void => {
      while (sent < items.length && sent - settled < WINDOW) {
        const index = sent++;
        send(items[index] as T, index).then(settle, (error: unknown) => {
          results[index] = { error };
          settle();
        });
      }
      if (settled === items.length) resolve(results);
    };
    advance();
  });
}
