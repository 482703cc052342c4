// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError } from '../errors';
import type { Socket, SocketWatcher } from '../native';
import { HeaderFlag, commandName } from '../protocol/constants';
import { isReply } from '../protocol/header';
import { CommandQueue } from './command-queue';
import { closedError, disconnectedError, errorFor, replyError } from './connection-errors';
import type { ConnectionOptions, ConnectionStatistics, Request } from './connection-types';
import { DeadlineTimer } from './deadline-timer';
import { Fifo } from './fifo';
import type { LaneQueue } from './lane-queue';
import * as limits from './limits';
import { MessageReader, type Message } from './message-reader';
import { MessageWriter, requestMessage, type OutgoingMessage } from './message-writer';
import { PendingTable, replyBringsFds, type Pending, type Reply } from './pending-table';
import { RequestExchange } from './request-exchange';
import type { SendQueue } from './send-queue';
import { traceMessage, traceState, tracing } from './trace';

/**
 * One vfio-user socket, in either role: sends requests and matches their replies, serves the peer's commands.
 *
 * The asynchronous and the synchronous form run through the same state. Any number of requests may be in flight.
 * Replies are matched by id and checked (type, command, error flag, size); each request has a deadline; when the
 * connection ends, every pending request fails with a typed error (vfio-user, "Header" and "Command Concurrency").
 */
export class Connection {
  readonly name: string;
  readonly statistics: ConnectionStatistics = {
    messagesSent: 0,
    messagesReceived: 0,
    lateReplies: 0,
    unexpectedReplies: 0,
  };
  messageTimeout: number;
  /**
   * The other socket of a twin pair (vfio-user, VFIO_USER_VERSION, "twin_socket"): its commands are served too while the
   * synchronous form waits here, and it is closed with this connection.
   */
  companion: Connection | null = null;

  readonly #socket: Socket;
  readonly #watcher: SocketWatcher;
  readonly #reader: MessageReader;
  readonly #writer: MessageWriter;
  readonly #outgoing: SendQueue;
  /** Of the synchronous form, once it is used. */
  #exchange: RequestExchange | null = null;
  readonly #pending = new PendingTable();
  readonly #commands: CommandQueue;
  readonly #onClose: (error: VfioUserError | null) => void;
  readonly #readAhead: boolean;
  /** What waits for its turn while much is queued: functions that send it. */
  #unsent = new Fifo<() => void>();
  #turns: (() => void)[] = [];
  /** Sends what was gathered. */
  readonly #release = (): void => {
    if (this.#closed) return;
    try {
      this.#outgoing.release();
    } catch (error) {
      this.#end(this.#disconnected(error));
      return;
    }
    if (this.#outgoing.bytes > 0) this.#watcher.setWritable(true);
  };
  /** Sends what {@link hold} keeps back. */
  #held: (() => void) | null = null;
  readonly #timer = new DeadlineTimer((now) => this.#pending.expire(now));
  #closed = false;
  #paused = false;
  #error: VfioUserError | null = null;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.name = options.name;
    this.messageTimeout = options.messageTimeout ?? limits.DEFAULT_TIMEOUT;
    this.#socket = socket;
    this.#onClose = options.onClose ?? (() => undefined);
    this.#readAhead = options.readAhead ?? false;
    this.#reader = new MessageReader(socket, options.maxMessageSize ?? limits.DEFAULT_MAX_MESSAGE);
    this.#writer = new MessageWriter(socket);
    this.#outgoing = this.#writer.queue;
    const outgoing = this.#outgoing;
    this.#commands = new CommandQueue(options.onCommand, options.lane ?? (() => null), {
      get congested() {
        return outgoing.replyBytes > limits.HIGH_WATER;
      },
      reply: (id, command, flags, errno, payload, data, fds) => {
        this.#emitHeld();
        this.#transmit({ id, command, flags, errno, payload, data, fds }, false);
      },
      fail: (error) => {
        this.#end(error);
      },
    });
    this.#watcher = socket.watch(() => {
      this.#onEvents();
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Why the connection ended; null while it is open and after {@link close}. */
  get error(): VfioUserError | null {
    return this.#error;
  }

  /** Number of requests in flight. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** Bytes that wait for the socket. */
  get queuedBytes(): number {
    return this.#outgoing.bytes;
  }

  /** Whether messages wait for the socket, so that one sent now would have to wait too. */
  get backlogged(): boolean {
    return this.#outgoing.bytes > 0 || this.#unsent.length > 0;
  }

  /** Whether so much is queued that senders should wait for {@link drained}. */
  get full(): boolean {
    return this.#outgoing.bytes > limits.HIGH_WATER || this.#unsent.length > 0;
  }

  /** The order of the peer's commands, for work of the peer that comes by other ways. */
  get turns(): LaneQueue {
    return this.#commands.turns;
  }

  /** Largest message accepted, with its header, in bytes. */
  set maxMessageSize(bytes: number) {
    this.#reader.maxMessageSize = bytes;
  }

  /** Keeps the event loop alive while the connection is open; the default. */
  ref(): void {
    this.#watcher.ref();
  }

  unref(): void {
    this.#watcher.unref();
  }

  /**
   * Sends a request and waits for its reply. Messages leave in the order of the calls; when much is queued, requests
   * wait for their turn, so that `data` and `fds` must stay as they are until the promise settles.
   *
   * @throws VfioUserError REMOTE, TIMEOUT, DISCONNECTED, CLOSED or PROTOCOL; the reason of `signal` when aborted
   */
  request(request: Request): Promise<Reply> {
    return new Promise<Reply>((resolve, reject) => {
      const { signal } = request;
      const settle: Pending['settle'] = (error, reply) => {
        if (reply === null) reject(error ?? new Error('unreachable: neither error nor reply'));
        else resolve(reply);
      };
      if (signal === undefined) {
        this.#start(request, true, settle);
        return;
      }
      signal.throwIfAborted();
      let id = -1;
      const onAbort = (): void => {
        this.#pending.abandon(id);
        // The reason is the caller's own, whatever it is.
        reject(signal.reason as Error);
      };
      id = this.#start(request, true, (error, reply) => {
        signal.removeEventListener('abort', onAbort);
        settle(error, reply);
      });
      if (this.#pending.get(id) !== undefined) signal.addEventListener('abort', onAbort, { once: true });
    });
  }

  /**
   * The same, blocking the thread until the reply is here or the deadline has passed. Commands of the peer are served
   * meanwhile, so a device that reads our memory by message before it answers does not deadlock.
   */
  requestSync(request: Request): Reply {
    this.#emitHeld();
    this.#assertOpen(request.command);
    const exchange = this.#exchangeFor(request);
    if (exchange === null) return this.#awaitSync((settle) => this.#start(request, false, settle));
    // Nearly always the next message is the reply. Only when it is not, the request enters the table, with its deadline.
    const id = this.#pending.claim(request.command);
    const reply = this.#exchangeSync(exchange, id, request);
    return reply ?? this.#awaitSync((settle) => this.#enter(id, request, settle));
  }

  /**
   * Sends a message to which no reply is asked for (vfio-user, "Header": No_reply). `data` may be reused at once.
   *
   * @returns false when much is queued and the caller should wait for {@link drained}
   */
  post(command: number, payload: Uint8Array, data?: Uint8Array): boolean {
    this.#emitHeld();
    this.#assertOpen(command);
    const send = (fixed: Uint8Array, bulk: Uint8Array | undefined): void => {
      const id = this.#pending.reserve();
      const flags = HeaderFlag.noReply;
      this.#transmit({ id, command, flags, errno: 0, payload: fixed, data: bulk, fds: undefined }, false);
    };
    if (!this.full) send(payload, data);
    else {
      const copies = [payload.slice(), data?.slice()] as const;
      this.#unsent.push(() => {
        send(...copies);
      });
    }
    return !this.full;
  }

  /**
   * Holds a message back while the connection is {@link backlogged}, so that it can still grow. `emit` is called once:
   * before any other message is sent or queued, or when the socket has taken what waits. It sends with {@link post}.
   */
  hold(emit: () => void): void {
    this.#emitHeld();
    this.#held = emit;
  }

  /** Resolves when there is room for more messages, or the connection has ended. */
  async drained(): Promise<void> {
    while (!this.#closed && this.full) {
      await new Promise<void>((resolve) => this.#turns.push(resolve));
    }
  }

  /**
   * The same, blocking the thread. Commands of the peer are served meanwhile.
   *
   * @throws VfioUserError ERR_VFIO_USER_TIMEOUT when there is no room within the time-out of a message
   */
  drainSync(): void {
    const deadline = performance.now() + this.messageTimeout;
    while (!this.#closed && this.full) {
      if (performance.now() > deadline) {
        throw new VfioUserError(
          'ERR_VFIO_USER_TIMEOUT',
          `${this.name} did not take the messages that wait for it within ${String(this.messageTimeout)} ms; it may be stopped or hang`,
        );
      }
      this.#waitOnce();
    }
  }

  /**
   * Ends the connection: what is pending fails with `error`, without one with ERR_VFIO_USER_CLOSED. Idempotent.
   */
  close(error: VfioUserError | null = null): void {
    this.#end(error);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #start(request: Request, gather: boolean, settle: Pending['settle']): number {
    this.#emitHeld();
    const id = this.#pending.claim(request.command);
    const pending = this.#enter(id, request, settle);
    const send = (): void => {
      this.#transmit(requestMessage(id, request), gather);
    };
    if (!this.full) send();
    else {
      this.#unsent.push(() => {
        // One that was given up before it left gets no late reply: its id is free at once.
        if (this.#pending.get(id) === pending) send();
        else this.#pending.late(id);
      });
    }
    return id;
  }

  /** Enters a request with its deadline. */
  #enter(id: number, request: Request, settle: Pending['settle']): Pending {
    this.#assertOpen(request.command);
    const { command, timeout = this.messageTimeout, maxReply = this.#reader.maxPayload } = request;
    const pending: Pending = { command, deadline: performance.now() + timeout, timeout, maxReply, settle };
    this.#pending.enter(id, pending);
    this.#timer.arm(pending.deadline);
    return pending;
  }

  /** For a request after which nothing but its reply is expected; null when something else is under way. */
  #exchangeFor(request: Request): RequestExchange | null {
    this.#release();
    const alone = this.#readAhead && !replyBringsFds(request.command) && !tracing() && this.#quiet;
    const exchange = alone ? this.#socket.exchange() : null;
    if (exchange === null) return null;
    this.#exchange ??= new RequestExchange(exchange, this.#reader, this.#outgoing);
    return this.#exchange.takes(request) ? this.#exchange : null;
  }

  #exchangeSync(exchange: RequestExchange, id: number, request: Request): Reply | null {
    try {
      const reply = exchange.run(id, request, limits.SPIN_MICROSECONDS);
      this.statistics.messagesSent++;
      if (reply !== null) this.statistics.messagesReceived++;
      else if (this.#outgoing.bytes > 0) this.#watcher.setWritable(true);
      return reply;
    } catch (error) {
      this.#end(this.#disconnected(error));
      return null;
    }
  }

  /** Blocks until what `start` begins has called back. */
  #awaitSync(start: (settle: Pending['settle']) => unknown): Reply {
    const outcome: { error: Error | null; reply: Reply | null } = { error: null, reply: null };
    start((error, reply) => Object.assign(outcome, { error, reply }));
    while (outcome.error === null && outcome.reply === null) this.#waitOnce();
    if (outcome.reply === null) throw outcome.error as Error;
    return outcome.reply;
  }

  /** Open, and nothing is under way in either direction, as far as is known. */
  get #quiet(): boolean {
    const idle = this.#pending.size === 0 && !this.backlogged && !this.#reader.partial;
    return idle && !this.#closed && this.companion === null;
  }

  #emitHeld(): void {
    const emit = this.#held;
    this.#held = null;
    emit?.();
  }

  #transmit(message: OutgoingMessage, gather: boolean): void {
    if (this.#closed) return;
    try {
      const header = this.#writer.write(message, gather ? this.#release : null);
      this.statistics.messagesSent++;
      if (tracing()) traceMessage(this.name, 'sent', header, message.fds?.length ?? 0);
    } catch (error) {
      this.#end(this.#disconnected(error));
      return;
    }
    if (this.#outgoing.bytes > 0) this.#watcher.setWritable(true);
  }

  #onEvents(): void {
    this.#flush();
    this.#receive(limits.MESSAGES_PER_EVENT, 0, 0);
  }

  #flush(): void {
    if (this.#closed || this.#outgoing.bytes === 0) return;
    try {
      if (this.#outgoing.flush()) this.#watcher.setWritable(false);
    } catch (error) {
      this.#end(this.#disconnected(error));
      return;
    }
    if (!this.#pauseReading()) this.#commands.turns.advance();
    while (this.#outgoing.bytes <= limits.HIGH_WATER && this.#unsent.length > 0) this.#unsent.shift()?.();
    if (!this.backlogged) this.#emitHeld();
    if (!this.full) this.#wakeTurns();
  }

  #wakeTurns(): void {
    const turns = this.#turns;
    this.#turns = [];
    for (const turn of turns) turn();
  }

  #waitOnce(): void {
    this.#release();
    const now = performance.now();
    const inFlight = this.#pending.size;
    const earliest = this.#pending.expire(now);
    // One that expired may be what is waited for.
    if (this.#pending.size < inFlight) return;
    const sleep = Math.max(0, Math.min(earliest - now, limits.SLEEP_MILLISECONDS));
    if (this.#outgoing.bytes > 0) {
      // Both directions are open questions: the peer may not read before we have read, so neither wait is long.
      this.#flush();
      if (this.#outgoing.bytes > 0) this.#socket.waitWritable(1);
      this.#receive(limits.MESSAGES_PER_EVENT, 0, 0);
    } else if (this.companion === null) {
      this.#receive(1, limits.SPIN_MICROSECONDS, Math.ceil(sleep));
    } else {
      // Two sockets are not awaited by one system call, so this one is slept on briefly, and not while the other is busy.
      const served = this.companion.#serveNow();
      const nap = served ? 0 : Math.min(Math.ceil(sleep), limits.COMPANION_SLEEP_MILLISECONDS);
      this.#receive(1, limits.SPIN_MICROSECONDS, nap);
    }
  }

  /** Serves what is there without waiting; true when it was anything. */
  #serveNow(): boolean {
    const before = this.statistics.messagesReceived;
    this.#flush();
    this.#receive(limits.MESSAGES_PER_EVENT, 0, 0);
    return this.statistics.messagesReceived !== before;
  }

  /** A peer that sends commands but does not read our replies must not make us queue without bound. */
  #pauseReading(): boolean {
    const pause = this.#outgoing.replyBytes > limits.HIGH_WATER;
    if (pause !== this.#paused) {
      this.#paused = pause;
      this.#watcher.setReadable(!pause);
    }
    return pause;
  }

  #receive(limit: number, spinMicroseconds: number, timeoutMilliseconds: number): void {
    // The socket does not tell again of what was read ahead, so that is dealt with in any case.
    for (let count = 0; (count < limit || this.#reader.buffered) && !this.#closed; count++) {
      if (this.#pauseReading()) return;
      this.#reader.readAhead = this.#readAhead && count < limit && !this.#pending.expectsFds;
      const message = this.#next(spinMicroseconds, timeoutMilliseconds);
      if (message === null) return;
      this.#dispatch(message);
    }
  }

  /** The next message; null when none is complete in time, or the connection has ended. */
  #next(spinMicroseconds: number, timeoutMilliseconds: number): Message | null {
    if (this.#closed) return null;
    let message;
    try {
      message = this.#reader.next(spinMicroseconds, timeoutMilliseconds);
    } catch (error) {
      this.#end(
        error instanceof VfioUserError && error.code !== 'ERR_VFIO_USER_SYSTEM'
          ? error
          : this.#disconnected(error),
      );
      return null;
    }
    if (message === 'end') {
      this.#end(this.#disconnected(undefined));
      return null;
    }
    if (message === null) return null;
    this.statistics.messagesReceived++;
    if (tracing()) traceMessage(this.name, 'received', message.header, message.fds.length);
    return message;
  }

  #dispatch(message: Message): void {
    if (isReply(message.header.flags)) this.#onReply(message);
    else this.#commands.add(message);
  }

  #onReply(message: Message): void {
    const { id } = message.header;
    const pending = this.#pending.get(id);
    if (pending === undefined) {
      if (this.#pending.late(id)) this.statistics.lateReplies++;
      else this.statistics.unexpectedReplies++;
      message.fds.close();
      return;
    }
    this.#pending.remove(id);
    const error = replyError(this.name, pending, message);
    if (error !== null) message.fds.close();
    pending.settle(error, error === null ? message : null);
  }

  #assertOpen(command: number): void {
    if (!this.#closed) return;
    const name = commandName(command);
    throw this.#error === null ? closedError(this.name, name, 'is') : errorFor(this.#error, name);
  }

  #disconnected(cause: unknown): VfioUserError {
    return disconnectedError(this.name, this.#reader.partial, cause);
  }

  #end(error: VfioUserError | null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#timer.clear();
    this.#watcher.close();
    this.#outgoing.clear();
    this.#unsent = new Fifo();
    this.#held = null;
    this.#reader.discard();
    this.#commands.close();
    this.#socket.close();
    traceState(this.name, 'closed', error?.message ?? '');
    this.#pending.failAll((pending) => {
      const name = commandName(pending.command);
      return error === null ? closedError(this.name, name, 'was') : errorFor(error, name);
    });
    this.#wakeTurns();
    this.companion?.close();
    this.#onClose(error);
  }
}
