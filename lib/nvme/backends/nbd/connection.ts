// SPDX-License-Identifier: MIT
import type { Socket } from 'node:net';
import { Budget } from '../../../async';
import { VfioUserError, asError } from '../../../errors';
import { ByteStream } from './byte-stream';
import { type NbdExport, handshake } from './handshake';
import { readReply } from './reply';
import type { NbdRequest, PendingRequest } from './request';
import { openSocket, startTls } from './socket';
import type { NbdAddress } from './uri';
import { Command, ESHUTDOWN, encodeRequest } from './wire';

/** Bytes of the requests that are in flight, unless one alone has more. Each counts as {@link LEAST_SHARE} at least. */
const BYTES_IN_FLIGHT = 16 << 20;
/** With it, at most 256 requests are in flight. */
const LEAST_SHARE = 64 << 10;
/** Milliseconds that the server has to close the connection after it was told to. */
const GOODBYE = 1000;

/** A connection to an export of an NBD server, from its handshake on. Requests are pipelined. */
export class NbdConnection {
  /** What the server has told of the export. */
  readonly export: NbdExport;
  readonly #socket: Socket;
  readonly #stream: ByteStream;
  readonly #timeout: number;
  readonly #budget = new Budget(BYTES_IN_FLIGHT);
  /** By cookie, in the order of their deadlines. */
  readonly #pending = new Map<number, PendingRequest>();
  #cookie = 0;
  #timer: NodeJS.Timeout | undefined;
  #failure: Error | null = null;
  #onEnd: (reason: Error) => void = () => undefined;
  /** What waits until nothing is in flight. */
  #idle: (() => void)[] = [];

  private constructor(socket: Socket, stream: ByteStream, exported: NbdExport, timeout: number) {
    this.#socket = socket;
    this.#stream = stream;
    this.export = exported;
    this.#timeout = timeout;
    void this.#receive();
  }

  /**
   * Connects, and negotiates.
   *
   * @param timeout milliseconds for all of it, and for each request later
   * @param signal ends the attempt
   */
  static async open(address: NbdAddress, timeout: number, signal: AbortSignal): Promise<NbdConnection> {
    signal.throwIfAborted();
    let socket = openSocket(address);
    let stream = new ByteStream(socket);
    const abort = (error: Error): void => {
      stream.fail(error);
      socket.destroy();
    };
    const timer = setTimeout(() => {
      abort(new VfioUserError('ERR_VFIO_USER_TIMEOUT', `it has not answered within ${timeout} ms`));
    }, timeout);
    const onAbort = (): void => {
      abort(asError(signal.reason));
    };
    signal.addEventListener('abort', onAbort);
    const { tls } = address;
    const link = {
      stream,
      send: (data: Uint8Array) => {
        socket.write(data);
      },
      upgrade:
        tls === undefined
          ? undefined
          : async () => {
              stream.detach();
              socket = await startTls(socket, tls);
              link.stream = stream = new ByteStream(socket);
            },
    };
    try {
      const exported = await handshake(link, address.exportName);
      signal.throwIfAborted();
      return new NbdConnection(socket, stream, exported, timeout);
    } catch (error) {
      socket.on('error', () => undefined);
      socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** Whether the connection has ended: nothing that is asked of it is done any more. */
  get lost(): boolean {
    return this.#failure !== null;
  }

  /**
   * Sends a request when there is room for it.
   *
   * @returns resolves with the server's errno, 0 for success; with null when the connection has ended before the reply
   */
  async request(request: NbdRequest): Promise<number | null> {
    const share = Math.max(request.data?.length ?? 0, LEAST_SHARE);
    const claim = this.#budget.take(share);
    if (claim !== null && !(await claim.granted)) return null;
    if (this.#failure !== null) return null;
    try {
      return await this.#send(request);
    } finally {
      this.#budget.give(share);
    }
  }

  /** Resolves when nothing is in flight any more, since it was answered or the connection has ended. */
  async idle(): Promise<void> {
    while (this.#pending.size > 0) {
      await new Promise<void>((resolve) => {
        this.#idle.push(resolve);
      });
    }
  }

  /** Calls `onEnd` with the reason when the connection has ended, before the requests in flight are settled; at once when it has already. */
  watch(onEnd: (reason: Error) => void): void {
    this.#onEnd = onEnd;
    if (this.#failure !== null) onEnd(this.#failure);
  }

  /** Ends the connection. What is in flight is lost. */
  close(): void {
    if (this.#failure !== null) return;
    const goodbye = { type: Command.disconnect, flags: 0, cookie: 0, offset: 0, length: 0 };
    this.#socket.end(encodeRequest(goodbye));
    const timer = setTimeout(() => this.#socket.destroy(), GOODBYE);
    this.#socket.once('close', () => {
      clearTimeout(timer);
    });
    this.#fail(new VfioUserError('ERR_VFIO_USER_CLOSED', 'the connection was closed'), false);
  }

  #send(request: NbdRequest): Promise<number | null> {
    let cookie = this.#cookie;
    while (this.#pending.has(cookie)) cookie = (cookie + 1) >>> 0;
    this.#cookie = (cookie + 1) >>> 0;
    return new Promise((settle) => {
      const deadline = performance.now() + this.#timeout;
      this.#pending.set(cookie, { ...request, deadline, parts: [], errno: 0, settle });
      if (this.#timer === undefined) this.#watch(this.#timeout);
      const { type, data } = request;
      this.#socket.cork();
      this.#socket.write(encodeRequest({ ...request, cookie }));
      if (type === Command.write && data !== undefined) this.#socket.write(data);
      // Requests of one turn of the event loop leave together.
      process.nextTick(() => {
        this.#socket.uncork();
      });
    });
  }

  async #receive(): Promise<void> {
    const take = (cookie: number): PendingRequest => {
      const request = this.#pending.get(cookie);
      if (request !== undefined) return request;
      throw new VfioUserError(
        'ERR_VFIO_USER_PROTOCOL',
        `it has answered a request that there is not, ${cookie}`,
      );
    };
    try {
      for (;;) {
        const { cookie, errno } = await readReply(this.#stream, this.export.structured, take);
        if (errno === null) continue; // A chunk with more to come.
        const request = take(cookie);
        this.#pending.delete(cookie);
        request.settle(errno);
        if (this.#pending.size === 0) this.#wakeIdle();
        if (errno === ESHUTDOWN) {
          throw new VfioUserError('ERR_VFIO_USER_DISCONNECTED', 'the server is shutting down');
        }
      }
    } catch (error) {
      this.#fail(asError(error), true);
    }
  }

  #fail(reason: Error, destroy: boolean): void {
    if (this.#failure !== null) return;
    this.#failure = reason;
    clearTimeout(this.#timer);
    this.#stream.fail(reason);
    // Whatever becomes of the socket from now on is of no interest.
    this.#socket.on('error', () => undefined);
    if (destroy) this.#socket.destroy();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#budget.cancelAll();
    this.#onEnd(reason);
    for (const { settle } of pending) settle(null);
    this.#wakeIdle();
  }

  #wakeIdle(): void {
    const waiting = this.#idle;
    this.#idle = [];
    for (const resolve of waiting) resolve();
  }

  /** Looks after some time whether the oldest request is too late. */
  #watch(milliseconds: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      const [oldest] = this.#pending.values();
      if (oldest === undefined) return;
      const left = oldest.deadline - performance.now();
      if (left > 0) {
        this.#watch(left);
        return;
      }
      const text = `it has not answered a request within ${this.#timeout} ms`;
      this.#fail(new VfioUserError('ERR_VFIO_USER_TIMEOUT', text), true);
    }, milliseconds);
  }
}
