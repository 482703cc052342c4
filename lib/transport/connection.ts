// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError, asError } from '../errors';
import type { Socket, SocketWatcher } from '../native';
import { HeaderFlag, commandName } from '../protocol/constants';
import { isReply } from '../protocol/header';
import { Backlog } from './backlog';
import { CommandQueue } from './command-queue';
import { closedError, disconnectedError, errorFor, replyError } from './connection-errors';
import type {
  ConnectionOptions,
  ConnectionStatistics,
  Expectation,
  Request,
  WordsRequest,
} from './connection-types';
import { DeadlineTimer } from './deadline-timer';
import type { LaneQueue } from './lane-queue';
import * as limits from './limits';
import { MessageReader, type Message } from './message-reader';
import { MessageWriter, type OutgoingMessage } from './message-writer';
import { PendingTable, replyBringsFds, type Pending, type Reply, type Settle } from './pending-table';
import { abortableReply, promisedReply } from './promised-reply';
import { RequestExchange } from './request-exchange';
import { RequestWindow } from './request-window';
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
  readonly #window = new RequestWindow();
  readonly #commands: CommandQueue;
  readonly #onClose: (error: VfioUserError | null) => void;
  readonly #readAhead: boolean;
  /** What waits for its turn while much is queued. */
  readonly #backlog: Backlog;
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
    this.#backlog = new Backlog(this.#outgoing);
    const outgoing = this.#outgoing;
    this.#commands = new CommandQueue(options.onCommand, options.lane ?? (() => null), {
      get congested() {
        return outgoing.replyBytes > limits.HIGH_WATER;
      },
      reply: (id, command, flags, errno, payload, data, fds) => {
        this.#backlog.emitHeld();
        this.#transmit(id, flags, errno, { command, payload, data, fds }, false);
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
    return this.#backlog.any;
  }

  /** Whether so much is queued that senders should wait for {@link drained}. */
  get full(): boolean {
    return this.#backlog.full;
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
    const start = (settle: Settle): number => this.#start(request, true, settle);
    const { signal } = request;
    return signal === undefined ? promisedReply(start) : abortableReply(signal, this.#pending, start);
  }

  /**
   * The same with a callback, which is called once, with an error or a reply, and with `tag`: of many requests in flight,
   * promises cost more than the messages. `signal` is not heeded.
   */
  submit(request: Request, settle: Settle, tag = 0): void {
    try {
      this.#start(request, true, settle, tag);
    } catch (error) {
      settle(asError(error), null, tag);
    }
  }

  /**
   * Sends `count` requests in order, without waiting for a reply before the next. At most 256 are in flight, shared by all
   * such calls of the thread: descriptors in flight count against RLIMIT_NOFILE. The requests of a second call leave behind
   * those of the first.
   *
   * @param requestAt called for each index just before that is sent; the payload may be reused for the next
   * @returns by index, the reply or why there is none. Never rejects
   */
  requestAll(count: number, requestAt: (index: number) => Request): Promise<PromiseSettledResult<Reply>[]> {
    // When the connection has ended, one error serves all requests of a command: it costs more than a message.
    const ended = new Map<number, Error>();
    return this.#window.send(count, (index, settle) => {
      const request = requestAt(index);
      if (!this.#closed) {
        this.submit(request, settle, index);
        return;
      }
      const error = ended.get(request.command) ?? this.#endedError(request.command);
      ended.set(request.command, error);
      settle(error, null, index);
    });
  }

  /**
   * As {@link request}, blocking the thread until the reply is here or the deadline has passed. Commands of the peer are
   * served meanwhile, so a device that reads our memory by message before it answers does not deadlock.
   */
  requestSync(request: Request): Reply {
    const exchange = this.#exchangeFor(request.command);
    if (exchange?.takes(request) !== true)
      return this.#awaitSync((settle) => this.#start(request, false, settle));
    return this.#exchangeSync(request, (id) => exchange.run(id, request, limits.SPIN_MICROSECONDS));
  }

  /**
   * The same for a request that is a few 32-bit words, as its reply is.
   *
   * @param answer is given the payload of the reply, for which it has room
   * @returns bytes of the payload; the reply when it did not come at once, and `answer` is as it was
   */
  requestWordsSync(request: WordsRequest, answer: Uint32Array): Reply | number {
    const exchange = this.#exchangeFor(request.command);
    if (exchange === null) return this.requestSync({ ...request, payload: bytesOf(request.words) });
    return this.#exchangeSync(request, (id) =>
      exchange.runWords(id, request, answer, limits.SPIN_MICROSECONDS),
    );
  }

  /**
   * Sends a message to which no reply is asked for (vfio-user, "Header": No_reply). `data` may be reused at once.
   *
   * @returns false when much is queued and the caller should wait for {@link drained}
   */
  post(command: number, payload: Uint8Array, data?: Uint8Array): boolean {
    this.#backlog.emitHeld();
    this.#assertOpen(command);
    const send = (fixed: Uint8Array, bulk: Uint8Array | undefined): void => {
      const id = this.#pending.reserve();
      const flags = HeaderFlag.noReply;
      this.#transmit(id, flags, 0, { command, payload: fixed, data: bulk }, false);
    };
    if (!this.full) send(payload, data);
    else {
      const copies = [payload.slice(), data?.slice()] as const;
      this.#backlog.push(() => {
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
    this.#backlog.hold(emit);
  }

  /** Resolves when there is room for more messages, or the connection has ended. */
  async drained(): Promise<void> {
    while (!this.#closed && this.full) await this.#backlog.room();
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

  #start(request: Request, gather: boolean, settle: Settle, tag = 0): number {
    this.#backlog.emitHeld();
    const id = this.#pending.claim(request.command);
    const pending = this.#enter(id, request, settle, tag);
    if (this.full) this.#sendLater(id, request, pending, gather);
    else this.#transmit(id, HeaderFlag.command, 0, request, gather);
    return id;
  }

  #sendLater(id: number, request: Request, pending: Pending, gather: boolean): void {
    const copy = { ...request, payload: request.payload.slice() };
    this.#backlog.push(() => {
      // One that was given up before it left gets no late reply: its id is free at once.
      if (this.#pending.get(id) === pending) this.#transmit(id, HeaderFlag.command, 0, copy, gather);
      else this.#pending.late(id);
    });
  }

  /** Enters a request with its deadline. */
  #enter(id: number, request: Expectation, settle: Settle, tag: number): Pending {
    this.#assertOpen(request.command);
    const { command, timeout = this.messageTimeout, maxReply = this.#reader.maxPayload } = request;
    const deadline = performance.now() + timeout;
    const pending: Pending = { command, deadline, timeout, maxReply, settle, tag };
    this.#pending.enter(id, pending);
    this.#timer.arm(pending.deadline);
    return pending;
  }

  /** For a request after which nothing but its reply is expected; null when something else is under way. */
  #exchangeFor(command: number): RequestExchange | null {
    this.#backlog.emitHeld();
    this.#assertOpen(command);
    this.#release();
    const alone = this.#readAhead && !replyBringsFds(command) && !tracing() && this.#quiet;
    const exchange = alone ? this.#socket.exchange() : null;
    if (exchange === null) return null;
    return (this.#exchange ??= new RequestExchange(exchange, this.#reader, this.#outgoing));
  }

  /** Nearly always the next message is the reply. Only when it is not, the request enters the table, with its deadline. */
  #exchangeSync<T>(request: Expectation, run: (id: number) => T | null): T | Reply {
    const id = this.#pending.claim(request.command);
    let reply: T | null = null;
    try {
      reply = run(id);
      this.statistics.messagesSent++;
      if (reply !== null) this.statistics.messagesReceived++;
      else if (this.#outgoing.bytes > 0) this.#watcher.setWritable(true);
    } catch (error) {
      this.#end(this.#disconnected(error));
    }
    return reply ?? this.#awaitSync((settle) => this.#enter(id, request, settle, 0));
  }

  /** Blocks until what `start` begins has called back. */
  #awaitSync(start: (settle: Settle) => unknown): Reply {
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

  #transmit(id: number, flags: number, errno: number, message: OutgoingMessage, gather: boolean): void {
    if (this.#closed) return;
    try {
      const header = this.#writer.write(id, flags, errno, message, gather ? this.#release : null);
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
    this.#backlog.advance();
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
    const pending = this.#pending.take(id);
    if (pending === undefined) {
      if (this.#pending.late(id)) this.statistics.lateReplies++;
      else this.statistics.unexpectedReplies++;
      message.fds.close();
      return;
    }
    const error = replyError(this.name, pending, message);
    if (error !== null || !replyBringsFds(pending.command)) message.fds.close();
    pending.settle(error, error === null ? message : null, pending.tag);
  }

  #assertOpen(command: number): void {
    if (this.#closed) throw this.#endedError(command);
  }

  #endedError(command: number): VfioUserError {
    const name = commandName(command);
    return this.#error === null ? closedError(this.name, name, 'is') : errorFor(this.#error, name);
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
    this.#backlog.close();
    this.#reader.discard();
    this.#commands.close();
    this.#socket.close();
    traceState(this.name, 'closed', error?.message ?? '');
    this.#pending.failAll((pending) => {
      const name = commandName(pending.command);
      return error === null ? closedError(this.name, name, 'was') : errorFor(error, name);
    });
    this.companion?.close();
    this.#onClose(error);
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: Uint32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}
