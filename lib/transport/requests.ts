// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError } from '../errors';
import { commandName, commandRow } from '../protocol/commands';
import { HeaderFlag } from '../protocol/constants';
import { DeadlineTimer } from './deadline-timer';
import { replyError } from './errors';
import type { FdList, Message } from './incoming';
import type { Departure, Outgoing } from './outgoing';

/** A request to the peer. */
export interface Request {
  readonly command: number;
  /** The fixed part of the payload. May be reused when the call returns. */
  readonly payload: Uint8Array;
  /** Bulk data that follows it; not copied unless the socket is full. */
  readonly data?: Uint8Array | undefined;
  /** Descriptors that go with the message. They stay the caller's. */
  readonly fds?: readonly number[] | undefined;
  /** Milliseconds until the request fails; Infinity for none. Default: the connection's. */
  readonly timeout?: number | undefined;
  /** Largest reply payload accepted, in bytes. Default: what fits into a message. */
  readonly maxReply?: number | undefined;
  /** `fail` where it acts although most of its command do not, see `CommandLoss`. Default: as its row says. */
  readonly loss?: 'fail' | undefined;
}

/**
 * The reply to a request: its payload after the header, and the descriptors that came with it, to be taken or closed. Those of a
 * reply that brings none by the specification have been closed.
 */
export interface Reply {
  readonly payload: Uint8Array;
  readonly fds: FdList;
}

/** What is called with the result of a request: one of the two functions, once. */
export interface Settlement {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

/** A request that waits for its reply. */
interface Pending extends Departure {
  readonly command: number;
  /** Time of the deadline, in milliseconds of `performance.now()`; Infinity for none. */
  readonly deadline: number;
  /** The time-out as the caller gave it, in milliseconds, for messages. */
  readonly timeout: number;
  /** Largest reply payload accepted, in bytes. */
  readonly maxReply: number;
  /** As the request says. */
  readonly loss: 'fail' | undefined;
  readonly settlement: Settlement;
}

const ID_COUNT = 0x10000;

/**
 * Our requests: their ids, deadlines and replies. An id whose request timed out or was aborted stays taken until its late reply
 * comes, so that the reply cannot be mistaken for that of a younger request.
 */
export class Requests {
  /** Time-out of a request that has none of its own, in milliseconds. */
  readonly timeout: number;
  /** Largest reply payload accepted, in bytes. */
  maxReply: number;
  /** Replies that came after their request had timed out or was aborted. */
  late = 0;
  /** Replies that no request waited for. */
  unexpected = 0;
  readonly #endpoint: string;
  readonly #outgoing: Outgoing;
  readonly #pending = new Map<number, Pending>();
  readonly #abandoned = new Set<number>();
  readonly #timer = new DeadlineTimer((now) => this.expire(now));
  /** Requests in flight whose reply may bring descriptors. */
  #expectingFds = 0;
  #nextId = 1;

  /** @param endpoint for messages */
  constructor(endpoint: string, outgoing: Outgoing, timeout: number, maxReply: number) {
    this.#endpoint = endpoint;
    this.#outgoing = outgoing;
    this.timeout = timeout;
    this.maxReply = maxReply;
  }

  /** Number of requests in flight. */
  get size(): number {
    return this.#pending.size;
  }

  /** Whether a reply that may bring descriptors is waited for. */
  get expectsFds(): boolean {
    return this.#expectingFds > 0;
  }

  /**
   * Sends a request. Everything else that sends one is made of this. It may have failed when this returns.
   *
   * @returns its id, for {@link abandon}
   * @throws VfioUserError ERR_VFIO_USER_TIMEOUT when all ids are in use
   */
  submit(request: Request, settlement: Settlement): number {
    const { command, payload, data, fds, timeout = this.timeout, maxReply = this.maxReply, loss } = request;
    const id = this.#claimId(command);
    const deadline = performance.now() + timeout;
    const pending: Pending = {
      command,
      deadline,
      timeout,
      maxReply,
      loss,
      settlement,
      departed: false,
      waiting: null,
    };
    this.#pending.set(id, pending);
    if (commandRow(command).replyFds > 0) this.#expectingFds++;
    this.#timer.arm(deadline);
    const message = { id, command, flags: HeaderFlag.command, errno: 0, payload, data, fds };
    this.#outgoing.send(message, pending);
    return id;
  }

  /** As {@link submit}, and gives the request up when `signal` is aborted, which it must not be yet. */
  submitAbortable(request: Request, { resolve, reject }: Settlement, signal: AbortSignal): void {
    const onAbort = (): void => {
      this.abandon(id);
      // The reason is the caller's own, whatever it is.
      reject(signal.reason as Error);
    };
    const done = (): void => {
      signal.removeEventListener('abort', onAbort);
    };
    const id = this.submit(request, {
      resolve: (reply) => {
        done();
        resolve(reply);
      },
      reject: (error) => {
        done();
        reject(error);
      },
    });
    if (this.#pending.has(id)) signal.addEventListener('abort', onAbort, { once: true });
  }

  /** Gives up on a request, without telling its owner. */
  abandon(id: number): void {
    const pending = this.#take(id);
    if (pending === undefined) return;
    // A request that never left gets no late reply, so its id is free at once.
    if (pending.departed) this.#abandoned.add(id);
    this.#outgoing.withdraw(pending);
  }

  /** Matches a reply with its request, checks it, and settles the request. */
  settle(message: Message): void {
    const { id } = message.header;
    const pending = this.#take(id);
    if (pending === undefined) {
      if (this.#abandoned.delete(id)) this.late++;
      else this.unexpected++;
      message.fds.close();
      return;
    }
    const error = replyError(this.#endpoint, pending, message);
    if (error !== null || commandRow(pending.command).replyFds === 0) message.fds.close();
    if (error === null) pending.settlement.resolve(message);
    else pending.settlement.reject(error);
  }

  /** Fails every request whose deadline is past; returns the earliest deadline left, Infinity for none. */
  expire(now: number): number {
    let earliest = Infinity;
    for (const [id, pending] of this.#pending) {
      if (pending.deadline > now) {
        earliest = Math.min(earliest, pending.deadline);
        continue;
      }
      this.abandon(id);
      pending.settlement.reject(timeoutError(pending));
    }
    return earliest;
  }

  /**
   * An id for a message that no reply is expected to: one that is not in use, or any when all are in use, as ids need not be
   * unique (vfio-user, "Header").
   */
  freeId(): number {
    const taken = this.#pending.size + this.#abandoned.size;
    const isTaken = (id: number): boolean => this.#pending.has(id) || this.#abandoned.has(id);
    while (taken > 0 && taken < ID_COUNT && isTaken(this.#nextId))
      this.#nextId = (this.#nextId + 1) % ID_COUNT;
    const id = this.#nextId;
    this.#nextId = (id + 1) % ID_COUNT;
    return id;
  }

  /**
   * Fails every request; nothing is sent any more.
   *
   * @param makeError told whether the request acts, so that it matters whether the peer has carried it out
   * @returns how many of them act
   */
  close(makeError: (command: number, acts: boolean) => Error): number {
    this.#timer.clear();
    const all = [...this.#pending.values()];
    this.#pending.clear();
    this.#abandoned.clear();
    this.#expectingFds = 0;
    let acting = 0;
    for (const { command, loss = commandRow(command).loss, settlement } of all) {
      if (loss === 'fail') acting++;
      settlement.reject(makeError(command, loss === 'fail'));
    }
    return acting;
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    if (pending === undefined) return undefined;
    if (commandRow(pending.command).replyFds > 0) this.#expectingFds--;
    this.#pending.delete(id);
    return pending;
  }

  #claimId(command: number): number {
    if (this.#pending.size + this.#abandoned.size < ID_COUNT) return this.freeId();
    throw new VfioUserError(
      'ERR_VFIO_USER_TIMEOUT',
      `all ${ID_COUNT} message ids are in flight or wait for a late reply; ` +
        `wait for replies before sending ${commandName(command)}, or reconnect`,
      { command: commandName(command) },
    );
  }
}

function timeoutError({ command, timeout }: Pending): VfioUserError {
  const name = commandName(command);
  return new VfioUserError(
    'ERR_VFIO_USER_TIMEOUT',
    `no reply to ${name} within ${timeout} ms; ` +
      'the peer may be busy, stopped or serving somebody else. A longer time-out can be set per connection and per call',
    { command: name },
  );
}
