// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError } from '../errors';
import type { Socket, SocketWatcher } from '../native';
import { Command, commandName, commandRow } from '../protocol/commands';
import { HEADER_SIZE, HeaderFlag } from '../protocol/constants';
import { isReply } from '../protocol/header';
import { Commands, type CommandHandler, type CommandLane } from './commands';
import { closedError, disconnectedError, errorFor, violation } from './errors';
import { Incoming, type Message } from './incoming';
import type { LaneQueue } from './lanes';
import { Outgoing } from './outgoing';
import { RequestWindow } from './request-window';
import { Requests, type Reply, type Request, type Settlement } from './requests';
import { traceMessage, traceState, tracing } from './trace';

/** How a {@link Connection} behaves. Sizes are in bytes, times in milliseconds. */
export interface ConnectionOptions {
  /** Name of the endpoint, for messages. */
  readonly name: string;
  /** Which side of the protocol this is. */
  readonly role: 'client' | 'server';
  /** Serves the commands of the peer. */
  readonly onCommand: CommandHandler;
  /** What commands of the peer overlap with. Default: nothing, they are served one after the other. */
  readonly lane?: CommandLane;
  /**
   * Called once when the connection has ended, and every request has failed: with null after `Connection.close`, and with
   * the number of those requests that act (see `CommandLoss`), so that it matters whether the peer has carried them out.
   */
  readonly onClose?: (error: VfioUserError | null, acting: number) => void;
  /** Time-out of a request unless its own says otherwise. Default 5000. */
  readonly messageTimeout?: number;
  /** Largest message accepted, with its header. Default 1 MiB and 64 KiB. */
  readonly maxMessageSize?: number;
  /**
   * A command of the peer that has to wait for others is refused (EMFILE) when it brings a descriptor with this number, or a
   * greater one: the number tells how many are open. Default Infinity.
   */
  readonly maxDescriptor?: number;
  /** Microseconds that the event loop looks for the next message after each, instead of sleeping. Default 0. */
  readonly spin?: number;
}

/** What a connection has seen so far. */
export interface ConnectionStatistics {
  /** Messages that were handed to the socket, or wait for it. */
  readonly messagesSent: number;
  /** Messages that came from the peer. */
  readonly messagesReceived: number;
  /** Replies that came after their request had timed out or was aborted; dropped. */
  readonly lateReplies: number;
  /** Replies that no request waited for: duplicates, or replies to posted messages; dropped. */
  readonly unexpectedReplies: number;
}

const DEFAULT_TIMEOUT = 5000;
/** 1 MiB of data and its fixed part. */
const DEFAULT_MAX_MESSAGE = (1 << 20) + (1 << 16);
/** Messages handled per readiness event, so that one peer cannot keep the event loop to itself. */
const MESSAGES_PER_EVENT = 256;
/** How long a blocking wait spins before it sleeps in poll(2), in microseconds. A reply from an idle core takes 15 to 30. */
export const SPIN_MICROSECONDS = 50;
/** Longest single sleep of a blocking wait, in milliseconds, so that other deadlines are kept meanwhile. */
export const SLEEP_MILLISECONDS = 100;
/** Longest single sleep while a companion has to be served too, in milliseconds. */
const COMPANION_SLEEP_MILLISECONDS = 1;
/** A client takes descriptors with replies only: no command that a server sends brings any. */
const SERVERS_SEND_FDS = Object.values(Command).some((code) => {
  const { sender, requestFds } = commandRow(code);
  return sender === 'server' && requestFds > 0;
});

/**
 * One vfio-user socket, in either role. It is the pump between four parts: our {@link Requests}, the peer's {@link Commands}, what
 * is {@link Outgoing} and what is {@link Incoming}. When the connection ends, every pending request fails with a typed error
 * (vfio-user, "Header" and "Command Concurrency").
 */
export class Connection {
  readonly name: string;
  /**
   * The other socket of a twin pair (vfio-user, VFIO_USER_VERSION, "twin_socket"): its commands are served too while the
   * blocking form waits here, and it is closed with this connection.
   */
  companion: Connection | null = null;

  readonly #socket: Socket;
  readonly #watcher: SocketWatcher;
  readonly #incoming: Incoming;
  readonly #outgoing: Outgoing;
  readonly #requests: Requests;
  readonly #window = new RequestWindow();
  readonly #commands: Commands;
  readonly #onClose: (error: VfioUserError | null, acting: number) => void;
  /** Whether several messages may be read at a time while no reply with descriptors is expected. */
  readonly #readsAhead: boolean;
  #received = 0;
  #paused = false;
  #closed = false;
  #error: VfioUserError | null = null;

  constructor(socket: Socket, options: ConnectionOptions) {
    const { name, maxMessageSize = DEFAULT_MAX_MESSAGE } = options;
    this.name = name;
    this.#socket = socket;
    this.#onClose = options.onClose ?? (() => undefined);
    this.#readsAhead = options.role === 'client' && !SERVERS_SEND_FDS;
    this.#incoming = new Incoming(socket, maxMessageSize);
    this.#outgoing = new Outgoing(socket, {
      name,
      watchWritable: (on) => {
        this.#watcher.setWritable(on);
      },
      failed: (error) => {
        this.#end(this.#disconnected(error));
      },
    });
    const timeout = options.messageTimeout ?? DEFAULT_TIMEOUT;
    this.#requests = new Requests(name, this.#outgoing, timeout, maxMessageSize - HEADER_SIZE);
    const outgoing = this.#outgoing;
    const { onCommand, lane = () => null, maxDescriptor = Infinity } = options;
    this.#commands = new Commands(onCommand, lane, maxDescriptor, {
      get congested() {
        return outgoing.congested;
      },
      reply: (message) => {
        this.#outgoing.send(message);
      },
      fail: (error) => {
        this.#end(violation(this.name, error));
      },
    });
    this.#watcher = socket.watch(() => {
      this.#flush();
      this.#receive(MESSAGES_PER_EVENT, 0, 0);
    });
    const { spin = 0 } = options;
    if (spin > 0) this.#watcher.setSpin(spin);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Why the connection ended; null while it is open and after {@link close}. */
  get error(): VfioUserError | null {
    return this.#error;
  }

  /** Whether a request failed by the end of this connection, and not by what the peer answered before. */
  endedBy(error: unknown): boolean {
    if (!this.#closed || !(error instanceof VfioUserError)) return false;
    return this.#error === null ? error.code === 'ERR_VFIO_USER_CLOSED' : error.cause === this.#error;
  }

  /** Counters as they are now. */
  get statistics(): ConnectionStatistics {
    return {
      messagesSent: this.#outgoing.sent,
      messagesReceived: this.#received,
      lateReplies: this.#requests.late,
      unexpectedReplies: this.#requests.unexpected,
    };
  }

  /** Time-out of a request that has none of its own, in milliseconds. */
  get messageTimeout(): number {
    return this.#requests.timeout;
  }

  /** Number of requests in flight. */
  get inFlight(): number {
    return this.#requests.size;
  }

  /** Process id of the other end, 0 when it is not in a namespace that this process sees (unix(7), SO_PEERCRED). */
  get peerPid(): number {
    return this.#socket.peerCredentials().pid;
  }

  /** Bytes that wait for the socket. */
  get queuedBytes(): number {
    return this.#outgoing.bytes;
  }

  /** Whether messages wait for the socket, so that one sent now would have to wait too. */
  get backlogged(): boolean {
    return this.#outgoing.backlogged;
  }

  /** Whether so much is queued that senders should wait for {@link drained}. */
  get full(): boolean {
    return this.#outgoing.full;
  }

  /** The order of the peer's commands, for work of the peer that comes by other ways. */
  get turns(): LaneQueue {
    return this.#commands.turns;
  }

  /** Largest message accepted, with its header, in bytes. */
  set maxMessageSize(bytes: number) {
    this.#incoming.maxMessageSize = bytes;
    this.#requests.maxReply = bytes - HEADER_SIZE;
  }

  /** Keeps the event loop alive while the connection is open; the default. */
  ref(): void {
    this.#watcher.ref();
  }

  unref(): void {
    this.#watcher.unref();
  }

  /**
   * Sends a request and waits for its reply. Messages leave in the order of the calls; when much is queued, requests wait for
   * their turn, so that `data` and `fds` must stay as they are until the promise settles.
   *
   * @param signal gives the request up when it is aborted
   * @throws VfioUserError REMOTE, TIMEOUT, DISCONNECTED, CLOSED or PROTOCOL; the reason of `signal` when aborted
   */
  request(request: Request, signal?: AbortSignal): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (signal === undefined) this.#submit(request, { resolve, reject });
      else this.#submitAbortable(request, signal, { resolve, reject });
    });
  }

  /**
   * Sends a request and blocks the thread until its reply is here or the deadline has passed. Errors are those of {@link request}.
   * Commands of the peer are served meanwhile, so a device that reads our memory by message before it answers does not deadlock.
   */
  requestSync(request: Request): Reply {
    const outcome: { error?: Error; reply?: Reply } = {};
    this.#submit(request, {
      resolve: (reply) => (outcome.reply = reply),
      reject: (error) => (outcome.error = error),
    });
    while (outcome.reply === undefined) {
      if (outcome.error !== undefined) throw outcome.error;
      this.#waitOnce();
    }
    return outcome.reply;
  }

  /**
   * Sends a series of requests in order, without waiting for a reply before the next. At most 256 are in flight, shared by all
   * such calls of the thread. The requests of a second call leave behind those of the first. Never rejects.
   *
   * @param requestAt gives a request by its index. What it returned may be reused when it is called again
   * @returns by index, the reply or why there is none
   */
  requestAll(count: number, requestAt: (index: number) => Request): Promise<PromiseSettledResult<Reply>[]> {
    // When the connection has ended, one error serves all requests of a command: it costs more than a message.
    const ended = new Map<number, Error>();
    return this.#window.send(count, (index, settlement) => {
      const request = requestAt(index);
      if (!this.#closed) {
        this.#requests.submit(request, settlement);
        return;
      }
      const error = ended.get(request.command) ?? this.#endedError(request.command);
      ended.set(request.command, error);
      settlement.reject(error);
    });
  }

  /**
   * Sends a message to which no reply is asked for (vfio-user, "Header": No_reply). `payload` and `data` may be reused at once.
   *
   * @returns false when much is queued and the caller should wait for {@link drained}
   */
  post(command: number, payload: Uint8Array, data?: Uint8Array): boolean {
    this.#assertOpen(command);
    // What is held back takes its id and its place first.
    this.#outgoing.releaseHeld();
    const id = this.#requests.freeId();
    this.#outgoing.send({ id, command, flags: HeaderFlag.noReply, errno: 0, payload, data });
    return !this.full;
  }

  /**
   * Holds a message back while the connection is {@link backlogged}, so that it can still grow. `emit` is called once:
   * before any other message is sent or queued, or when the socket has taken what waits. It sends with {@link post}.
   */
  hold(emit: () => void): void {
    this.#outgoing.hold(emit);
  }

  /** Resolves when there is room for more messages, or the connection has ended. */
  async drained(): Promise<void> {
    while (!this.#closed && this.full) await this.#outgoing.room();
  }

  /**
   * Blocks the thread until there is room for more messages, or the connection has ended. Commands of the peer are served
   * meanwhile.
   *
   * @throws VfioUserError ERR_VFIO_USER_TIMEOUT when there is no room within the time-out of a message
   */
  drainSync(): void {
    const { timeout } = this.#requests;
    const deadline = performance.now() + timeout;
    while (!this.#closed && this.full) {
      if (performance.now() > deadline) {
        throw new VfioUserError(
          'ERR_VFIO_USER_TIMEOUT',
          `${this.name} did not take the messages that wait for it within ${timeout} ms; it may be stopped or hang`,
        );
      }
      this.#waitOnce();
    }
  }

  /** Ends the connection. Pending requests fail with `error`, or with ERR_VFIO_USER_CLOSED when it is null. Idempotent. */
  close(error: VfioUserError | null = null): void {
    this.#end(error);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #submit(request: Request, settlement: Settlement): number {
    this.#assertOpen(request.command);
    return this.#requests.submit(request, settlement);
  }

  #submitAbortable(request: Request, signal: AbortSignal, { resolve, reject }: Settlement): void {
    signal.throwIfAborted();
    const onAbort = (): void => {
      this.#requests.abandon(id);
      // The reason is the caller's own, whatever it is.
      reject(signal.reason as Error);
    };
    const done = (): void => {
      signal.removeEventListener('abort', onAbort);
    };
    const id = this.#submit(request, {
      resolve: (reply) => {
        done();
        resolve(reply);
      },
      reject: (error) => {
        done();
        reject(error);
      },
    });
    if (this.#requests.has(id)) signal.addEventListener('abort', onAbort, { once: true });
  }

  /** Blocks until something has happened, or for a while: spins first, then sleeps. */
  #waitOnce(): void {
    this.#outgoing.release();
    const before = this.#received;
    const companionServed = this.companion !== null && this.companion.#serveNow();
    this.#flush();
    this.#receive(1, this.#outgoing.bytes > 0 ? 0 : SPIN_MICROSECONDS, 0);
    if (this.#received !== before || companionServed || this.#closed) return;

    const now = performance.now();
    const inFlight = this.#requests.size;
    const earliest = this.#requests.expire(now);
    // The request that is waited for may have expired.
    if (this.#requests.size < inFlight) return;
    // One call waits for one direction of one socket, so the wait is short while bytes wait to leave or there is a companion.
    const longest = this.companion === null ? SLEEP_MILLISECONDS : COMPANION_SLEEP_MILLISECONDS;
    if (this.#outgoing.bytes > 0) this.#socket.waitWritable(1);
    else this.#receive(1, 0, Math.ceil(Math.max(0, Math.min(earliest - now, longest))));
  }

  /** Serves what has come, without waiting. Returns whether anything had. */
  #serveNow(): boolean {
    const before = this.#received;
    this.#flush();
    this.#receive(MESSAGES_PER_EVENT, 0, 0);
    return this.#received !== before;
  }

  #flush(): void {
    if (this.#closed || this.#outgoing.bytes === 0) return;
    this.#outgoing.flush();
    if (!this.#pauseReading()) this.#commands.turns.advance();
  }

  /** A peer that sends commands but does not read our replies must not make us queue without bound. */
  #pauseReading(): boolean {
    const pause = this.#outgoing.congested;
    if (pause !== this.#paused && !this.#closed) {
      this.#paused = pause;
      this.#watcher.setReadable(!pause);
    }
    return pause;
  }

  #receive(limit: number, spinMicroseconds: number, timeoutMilliseconds: number): void {
    // The socket does not report again what was read ahead, so these messages are always handled.
    for (let count = 0; (count < limit || this.#incoming.buffered) && !this.#closed; count++) {
      if (this.#pauseReading()) return;
      this.#incoming.readAhead = this.#readsAhead && count < limit && !this.#requests.expectsFds;
      const message = this.#next(spinMicroseconds, timeoutMilliseconds);
      if (message === null) return;
      this.#received++;
      const { header, fds } = message;
      if (tracing()) traceMessage(this.name, 'received', header, fds.length);
      if (isReply(header.flags)) this.#requests.settle(message);
      else this.#commands.add(message);
    }
  }

  /** The next message; null when none is complete in time, or the connection has ended. */
  #next(spinMicroseconds: number, timeoutMilliseconds: number): Message | null {
    try {
      const message = this.#incoming.next(spinMicroseconds, timeoutMilliseconds);
      if (message !== 'end') return message;
      this.#end(this.#disconnected(undefined));
    } catch (error) {
      const told = error instanceof VfioUserError && error.code !== 'ERR_VFIO_USER_SYSTEM';
      this.#end(told ? violation(this.name, error) : this.#disconnected(error));
    }
    return null;
  }

  #assertOpen(command: number): void {
    if (this.#closed) throw this.#endedError(command);
  }

  #endedError(command: number): VfioUserError {
    const name = commandName(command);
    return this.#error === null ? closedError(this.name, name, 'is') : errorFor(this.#error, name);
  }

  #disconnected(cause: unknown): VfioUserError {
    return disconnectedError(this.name, this.#incoming.partial, cause);
  }

  #end(error: VfioUserError | null): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#error = error;
    this.#watcher.close();
    this.#outgoing.close();
    this.#incoming.discard();
    this.#commands.close();
    this.#socket.close();
    traceState(this.name, 'closed', error?.message ?? '');
    const acting = this.#requests.close((command, acts) => {
      const name = commandName(command);
      return error === null ? closedError(this.name, name, 'was') : errorFor(error, name, acts);
    });
    this.companion?.close();
    this.#onClose(error, acting);
  }
}
