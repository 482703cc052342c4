// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError } from '../errors';
import type { Socket, SocketWatcher } from '../native';
import { isReply } from '../protocol/header';
import type { Commands } from './commands';
import { disconnectedError, violation } from './errors';
import type { Incoming, Message } from './incoming';
import type { Outgoing } from './outgoing';
import type { Requests } from './requests';
import { traceMessage, tracing } from './trace';

/** What a {@link Pump} moves messages between. */
export interface PumpParts {
  /** Name of the endpoint, for messages. */
  readonly name: string;
  readonly incoming: Incoming;
  readonly outgoing: Outgoing;
  readonly requests: Requests;
  readonly commands: Commands;
  /** Whether several messages may be read at a time while no reply with descriptors is expected. */
  readonly readsAhead: boolean;
  /** Called when nothing can be moved any more; it has to call {@link Pump.close}. */
  readonly failed: (error: VfioUserError) => void;
}

/** Messages handled per readiness event, so that one peer cannot keep the event loop to itself. */
const MESSAGES_PER_EVENT = 256;
/** How long a blocking wait spins before it sleeps in poll(2), in microseconds. A reply from an idle core takes 15 to 30. */
export const SPIN_MICROSECONDS = 50;
/** Longest single sleep of a blocking wait, in milliseconds, so that other deadlines are kept meanwhile. */
export const SLEEP_MILLISECONDS = 100;
/** Longest single sleep while a companion has to be served too, in milliseconds. */
const COMPANION_SLEEP_MILLISECONDS = 1;

/**
 * Moves the messages of a socket, whenever the event loop finds it ready or while a caller blocks: replies that came go to the
 * requests, commands to their handler, and what waits leaves.
 */
export class Pump {
  /** Served too while a caller blocks here. */
  companion: Pump | null = null;
  /** Messages that came from the peer. */
  received = 0;
  readonly #name: string;
  readonly #socket: Socket;
  readonly #watcher: SocketWatcher;
  readonly #incoming: Incoming;
  readonly #outgoing: Outgoing;
  readonly #requests: Requests;
  readonly #commands: Commands;
  readonly #readsAhead: boolean;
  readonly #failed: (error: VfioUserError) => void;
  #paused = false;
  #closed = false;

  /** Takes the socket over. */
  constructor(socket: Socket, parts: PumpParts) {
    this.#name = parts.name;
    this.#socket = socket;
    this.#incoming = parts.incoming;
    this.#outgoing = parts.outgoing;
    this.#requests = parts.requests;
    this.#commands = parts.commands;
    this.#readsAhead = parts.readsAhead;
    this.#failed = parts.failed;
    this.#watcher = socket.watch(() => {
      this.#serve();
    });
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Process id of the other end, 0 when it is not in a namespace that this process sees (unix(7), SO_PEERCRED). */
  get peerPid(): number {
    return this.#socket.peerCredentials().pid;
  }

  /** Keeps the event loop alive while the socket is open; the default. */
  ref(): void {
    this.#watcher.ref();
  }

  unref(): void {
    this.#watcher.unref();
  }

  /** @param microseconds that the event loop looks for the next message after each, instead of sleeping */
  setSpin(microseconds: number): void {
    this.#watcher.setSpin(microseconds);
  }

  /** Whether what waits is to leave when the socket takes bytes again. */
  setWritable(on: boolean): void {
    this.#watcher.setWritable(on);
  }

  /** Blocks until something has happened, or for a while: spins first, then sleeps. */
  wait(): void {
    this.#outgoing.release();
    const before = this.received;
    const companionServed = this.companion !== null && this.companion.#serve();
    this.#flush();
    this.#receive(1, this.#outgoing.bytes > 0 ? 0 : SPIN_MICROSECONDS, 0);
    if (this.received !== before || companionServed || this.#closed) return;

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

  /** Gives up, because the socket has failed or is at its end. */
  disconnect(cause: unknown): void {
    this.#failed(disconnectedError(this.#name, this.#incoming.partial, cause));
  }

  /** Closes the socket, and what has come of a message that will never be complete. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher.close();
    this.#incoming.discard();
    this.#socket.close();
  }

  /** Serves what has come, without waiting. Returns whether anything had. */
  #serve(): boolean {
    const before = this.received;
    this.#flush();
    this.#receive(MESSAGES_PER_EVENT, 0, 0);
    return this.received !== before;
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
      this.received++;
      const { header, fds } = message;
      if (tracing()) traceMessage(this.#name, 'received', header, fds.length);
      if (isReply(header.flags)) this.#requests.settle(message);
      else this.#commands.add(message);
    }
  }

  /** The next message; null when none is complete in time, or the connection has ended. */
  #next(spinMicroseconds: number, timeoutMilliseconds: number): Message | null {
    try {
      const message = this.#incoming.next(spinMicroseconds, timeoutMilliseconds);
      if (message !== 'end') return message;
      this.disconnect(undefined);
    } catch (error) {
      if (error instanceof VfioUserError && error.code !== 'ERR_VFIO_USER_SYSTEM')
        this.#failed(violation(this.#name, error));
      else this.disconnect(error);
    }
    return null;
  }
}
