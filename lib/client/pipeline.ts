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
export async function pipelined<T>(
  items: readonly T[],
  send: (item: T) => Promise<void>,
): Promise<({ error: unknown } | null)[]> {
  const results: Promise<{ error: unknown } | null>[] = [];
  for (const [index, item] of items.entries()) {
    if (index >= WINDOW) await results[index - WINDOW];
    results.push(
      send(item).then(
        () => null,
        (error: unknown) => ({ error }),
      ),
    );
  }
  return Promise.all(results);
}
