// SPDX-License-Identifier: MIT
import { VfioUserError, errnoName } from '../errors';
import { Command, commandName } from '../protocol/constants';
import type { FdList } from './fd-list';

/**
 * The reply to a request: its payload after the header, and the descriptors that came with it, to be taken or closed. Of a
 * reply that brings none by the specification they are closed.
 */
export interface Reply {
  readonly payload: Uint8Array;
  readonly fds: FdList;
}

/** A request that waits for its reply. */
export interface Pending {
  readonly command: number;
  /** Time of the deadline, in milliseconds of `performance.now()`; Infinity for none. */
  readonly deadline: number;
  /** The time-out as the caller gave it, in milliseconds, for messages. */
  readonly timeout: number;
  /** Largest reply payload accepted, in bytes. */
  readonly maxReply: number;
  readonly settle: Settle;
  /** What the caller gave, for {@link settle}. */
  readonly tag: number;
}

/** Is told what became of a request, and the number that its caller gave, so that one function can serve many. */
export type Settle = (error: Error | null, reply: Reply | null, tag: number) => void;

const ID_COUNT = 0x10000;

/** Whether replies to a command may bring descriptors, by the specification: twin socket, mappable regions, I/O descriptors. */
export function replyBringsFds(command: number): boolean {
  return (
    command === Command.version ||
    command === Command.deviceGetRegionInfo ||
    command === Command.deviceGetRegionIoFds
  );
}

/**
 * Requests in flight, by message id. An id whose request timed out or was aborted stays taken until its late reply
 * comes, so that the reply cannot be mistaken for that of a younger request.
 */
export class PendingTable {
  readonly #pending = new Map<number, Pending>();
  readonly #abandoned = new Set<number>();
  #bringFds = 0;
  #next = 1;

  /** Number of requests in flight. */
  get size(): number {
    return this.#pending.size;
  }

  /** Whether a reply that may bring descriptors is waited for. */
  get expectsFds(): boolean {
    return this.#bringFds > 0;
  }

  /** Number of ids that wait for a late reply. */
  get abandoned(): number {
    return this.#abandoned.size;
  }

  /**
   * An id for a request, to be entered with {@link enter} before another one is asked for.
   *
   * @throws VfioUserError ERR_VFIO_USER_TIMEOUT when all are in use
   */
  claim(command: number): number {
    if (this.#pending.size + this.#abandoned.size >= ID_COUNT) {
      throw new VfioUserError(
        'ERR_VFIO_USER_TIMEOUT',
        `all ${String(ID_COUNT)} message ids are in flight or wait for a late reply; ` +
          `wait for replies before sending ${commandName(command)}, or reconnect`,
        { command: commandName(command) },
      );
    }
    return this.reserve();
  }

  /** Enters a request. */
  enter(id: number, pending: Pending): void {
    this.#pending.set(id, pending);
    if (replyBringsFds(pending.command)) this.#bringFds++;
  }

  /**
   * An id that is not in use now, for a message that no reply is expected to; any when all are in use, as ids need not
   * be unique (vfio-user, "Header").
   */
  reserve(): number {
    const taken = this.#pending.size + this.#abandoned.size;
    while (taken > 0 && taken < ID_COUNT && this.#isTaken(this.#next)) this.#advance();
    const id = this.#next;
    this.#advance();
    return id;
  }

  get(id: number): Pending | undefined {
    return this.#pending.get(id);
  }

  /** Removes a request that was answered or given up, if it is in flight; its id is free again. */
  take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    if (pending === undefined) return undefined;
    if (replyBringsFds(pending.command)) this.#bringFds--;
    this.#pending.delete(id);
    return pending;
  }

  /** Gives up on a request; its id stays taken until {@link late}. */
  abandon(id: number): void {
    if (this.take(id) !== undefined) this.#abandoned.add(id);
  }

  /** True when `id` belongs to an abandoned request, which it then frees. */
  late(id: number): boolean {
    return this.#abandoned.delete(id);
  }

  /** Abandons every request whose deadline is past; returns the earliest deadline left, Infinity for none. */
  expire(now: number): number {
    let earliest = Infinity;
    for (const [id, pending] of this.#pending) {
      if (pending.deadline > now) {
        earliest = Math.min(earliest, pending.deadline);
        continue;
      }
      this.abandon(id);
      pending.settle(timeoutError(pending), null, pending.tag);
    }
    return earliest;
  }

  /** Fails every request. */
  failAll(makeError: (pending: Pending) => Error): void {
    const all = [...this.#pending.values()];
    this.#pending.clear();
    this.#abandoned.clear();
    this.#bringFds = 0;
    for (const pending of all) pending.settle(makeError(pending), null, pending.tag);
  }

  #isTaken(id: number): boolean {
    return this.#pending.has(id) || this.#abandoned.has(id);
  }

  #advance(): void {
    this.#next = (this.#next + 1) % ID_COUNT;
  }
}

function timeoutError(pending: Pending): VfioUserError {
  const name = commandName(pending.command);
  return new VfioUserError(
    'ERR_VFIO_USER_TIMEOUT',
    `no reply to ${name} within ${String(pending.timeout)} ms; ` +
      'the peer may be busy, stopped or serving somebody else. A longer time-out can be set per connection and per call',
    { command: name },
  );
}

/** The error that the peer answered a command with; its errno may be 0. */
export function remoteError(endpoint: string, command: string, errno: number): VfioUserError {
  const told = errno === 0 ? 'an error without an errno' : errnoName(errno);
  return new VfioUserError('ERR_VFIO_USER_REMOTE', `${endpoint} refused ${command}: ${told}`, {
    errno,
    command,
  });
}
