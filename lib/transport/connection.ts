// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError } from '../errors';
import type { Socket } from '../native';
import { Command, commandName, commandRow } from '../protocol/commands';
import { HEADER_SIZE, HeaderFlag } from '../protocol/constants';
import { Commands, type CommandHandler, type CommandLane } from './commands';
import { closedError, errorFor, violation } from './errors';
import { Incoming } from './incoming';
import type { LaneQueue } from './lanes';
import { Outgoing } from './outgoing';
import { Pump } from './pump';
import { RequestWindow } from './request-window';
import { Requests, type Reply, type Request } from './requests';
import { traceState } from './trace';

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
/** A client takes descriptors with replies only: no command that a server sends brings any. */
const SERVERS_SEND_FDS = Object.values(Command).some((code) => {
  const { sender, requestFds } = commandRow(code);
  return sender === 'server' && requestFds > 0;
});

/**
 * One vfio-user socket, in either role: our {@link Requests}, the peer's {@link Commands}, and the {@link Pump} that moves both.
 * When the connection ends, every pending request fails with a typed error (vfio-user, "Header" and "Command Concurrency").
 */
export class Connection {
  readonly name: string;
  readonly #pump: Pump;
  readonly #incoming: Incoming;
  readonly #outgoing: Outgoing;
  readonly #requests: Requests;
  readonly #window = new RequestWindow();
  readonly #commands: Commands;
  readonly #onClose: (error: VfioUserError | null, acting: number) => void;
  #twin: Connection | null = null;
  #error: VfioUserError | null = null;

  constructor(socket: Socket, options: ConnectionOptions) {
    const { name, maxMessageSize = DEFAULT_MAX_MESSAGE } = options;
    this.name = name;
    this.#onClose = options.onClose ?? (() => undefined);
    this.#incoming = new Incoming(socket, maxMessageSize);
    const outgoing = new Outgoing(socket, {
      name,
      watchWritable: (on) => {
        this.#pump.setWritable(on);
      },
      failed: (error) => {
        this.#pump.disconnect(error);
      },
    });
    this.#outgoing = outgoing;
    const timeout = options.messageTimeout ?? DEFAULT_TIMEOUT;
    this.#requests = new Requests(name, outgoing, timeout, maxMessageSize - HEADER_SIZE);
    const { onCommand, lane = () => null, maxDescriptor = Infinity } = options;
    this.#commands = new Commands(onCommand, lane, maxDescriptor, {
      get congested() {
        return outgoing.congested;
      },
      reply: (message) => {
        outgoing.send(message);
      },
      fail: (error) => {
        this.#end(violation(name, error));
      },
    });
    this.#pump = new Pump(socket, {
      name,
      incoming: this.#incoming,
      outgoing,
      requests: this.#requests,
      commands: this.#commands,
      readsAhead: options.role === 'client' && !SERVERS_SEND_FDS,
      failed: (error) => {
        this.#end(error);
      },
    });
    const { spin = 0 } = options;
    if (spin > 0) this.#pump.setSpin(spin);
  }

  get closed(): boolean {
    return this.#pump.closed;
  }

  /** Why the connection ended; null while it is open and after {@link close}. */
  get error(): VfioUserError | null {
    return this.#error;
  }

  /** Whether a request failed by the end of this connection, and not by what the peer answered before. */
  endedBy(error: unknown): boolean {
    if (!this.closed || !(error instanceof VfioUserError)) return false;
    return this.#error === null ? error.code === 'ERR_VFIO_USER_CLOSED' : error.cause === this.#error;
  }

  /** Counters as they are now. */
  get statistics(): ConnectionStatistics {
    return {
      messagesSent: this.#outgoing.sent,
      messagesReceived: this.#pump.received,
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
    return this.#pump.peerPid;
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

  /**
   * Takes the other socket of a twin pair (vfio-user, VFIO_USER_VERSION, "twin_socket") along: its commands are served too
   * while the blocking form waits here, and it is closed with this connection.
   */
  pairWith(twin: Connection): void {
    this.#twin = twin;
    this.#pump.companion = twin.#pump;
  }

  /** Keeps the event loop alive while the connection is open; the default. */
  ref(): void {
    this.#pump.ref();
  }

  unref(): void {
    this.#pump.unref();
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
      signal?.throwIfAborted();
      this.#assertOpen(request.command);
      const settlement = { resolve, reject };
      if (signal === undefined) this.#requests.submit(request, settlement);
      else this.#requests.submitAbortable(request, settlement, signal);
    });
  }

  /**
   * Sends a request and blocks the thread until its reply is here or the deadline has passed. Errors are those of {@link request}.
   * Commands of the peer are served meanwhile, so a device that reads our memory by message before it answers does not deadlock.
   */
  requestSync(request: Request): Reply {
    const outcome: { error?: Error; reply?: Reply } = {};
    this.#assertOpen(request.command);
    this.#requests.submit(request, {
      resolve: (reply) => (outcome.reply = reply),
      reject: (error) => (outcome.error = error),
    });
    while (outcome.reply === undefined) {
      if (outcome.error !== undefined) throw outcome.error;
      this.#pump.wait();
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
      if (!this.closed) {
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
    while (!this.closed && this.full) await this.#outgoing.room();
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
    while (!this.closed && this.full) {
      if (performance.now() > deadline) {
        throw new VfioUserError(
          'ERR_VFIO_USER_TIMEOUT',
          `${this.name} did not take the messages that wait for it within ${timeout} ms; it may be stopped or hang`,
        );
      }
      this.#pump.wait();
    }
  }

  /** Ends the connection. Pending requests fail with `error`, or with ERR_VFIO_USER_CLOSED when it is null. Idempotent. */
  close(error: VfioUserError | null = null): void {
    this.#end(error);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #assertOpen(command: number): void {
    if (this.closed) throw this.#endedError(command);
  }

  #endedError(command: number): VfioUserError {
    const name = commandName(command);
    return this.#error === null ? closedError(this.name, name, 'is') : errorFor(this.#error, name);
  }

  #end(error: VfioUserError | null): void {
    if (this.closed) return;
    this.#error = error;
    this.#pump.close();
    this.#outgoing.close();
    this.#commands.close();
    traceState(this.name, 'closed', error?.message ?? '');
    const acting = this.#requests.close((command, acts) => {
      const name = commandName(command);
      return error === null ? closedError(this.name, name, 'was') : errorFor(error, name, acts);
    });
    this.#twin?.close();
    this.#onClose(error, acting);
  }
}
