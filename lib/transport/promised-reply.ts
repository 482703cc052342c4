// SPDX-License-Identifier: MIT
import { asError } from '../errors';
import type { PendingTable, Reply, Settle } from './pending-table';

/** Begins a request; its id. */
type Start = (settle: Settle) => number;

/** The reply to what `start` begins. */
export function promisedReply(start: Start): Promise<Reply> {
  return new Promise((resolve, reject) => {
    start(settling(resolve, reject));
  });
}

/** The same, given up when the signal is aborted: rejected with its reason. */
export function abortableReply(signal: AbortSignal, pending: PendingTable, start: Start): Promise<Reply> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const settle = settling(resolve, reject);
    let id = -1;
    const onAbort = (): void => {
      pending.abandon(id);
      // The reason is the caller's own, whatever it is.
      reject(signal.reason as Error);
    };
    id = start((error, reply) => {
      signal.removeEventListener('abort', onAbort);
      settle(error, reply, 0);
    });
    if (pending.get(id) !== undefined) signal.addEventListener('abort', onAbort, { once: true });
  });
}

function settling(resolve: (reply: Reply) => void, reject: (error: Error) => void): Settle {
  return (error, reply) => {
    if (reply === null) reject(asError(error));
    else resolve(reply);
  };
}
