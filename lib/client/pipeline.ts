// SPDX-License-Identifier: MIT

/**
 * Messages in flight at a time: enough that the peer always has the next. Descriptors that it has not received yet count
 * against RLIMIT_NOFILE (unix(7), ETOOMANYREFS), which may be 1024; and more messages than these would not fit into the
 * send buffer of a socket, which is 208 KiB by default (socket(7)) and takes 278 of them.
 */
const WINDOW = 256;

/**
 * Calls `send` for each item, in order, without waiting for one before the next is sent.
 *
 * @param copies messages that an item takes, each to another device
 * @returns by item, what its promise was rejected with, or null
 */
export function pipelined<T>(
  items: readonly T[],
  send: (item: T, index: number) => Promise<void>,
  copies = 1,
): Promise<({ error: unknown } | null)[]> {
  const most = Math.ceil(WINDOW / Math.max(copies, 1));
  return new Promise((resolve) => {
    const results = items.map((): { error: unknown } | null => null);
    let sent = 0;
    let settled = 0;
    const settle = (): void => {
      settled++;
      advance();
    };
    const advance = (): void => {
      while (sent < items.length && sent - settled < most) {
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
