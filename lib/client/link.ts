// SPDX-License-Identifier: MIT
import { VfioUserError } from '../errors';
import { commandName, commandRow } from '../protocol';
import {
  closedError,
  errorFor,
  type Connection,
  type ConnectionStatistics,
  type Reply,
  type Request,
} from '../transport';

/** Connections that a request may outlive. One that ends them all is not sent again: it may be what ends them. */
const MOST_REPEATS = 5;

/** How it is with the connection of a device. */
export type LinkState = 'connected' | 'reconnecting' | 'closed';

/** What a {@link Link} tells the device that it belongs to. */
export interface LinkOwner {
  /** The connection has ended: what came with it is over. `acting` requests were in flight that act. */
  connectionEnded(error: VfioUserError | null, acting: number): void;
  /** A connection is to be set up in its place. It ends with `renewed` or `close` of the link. */
  renew(error: VfioUserError): void;
  /** No connection will follow: null after a close by the user. */
  linkClosed(error: VfioUserError | null): void;
}

/**
 * The way to a device's server, for as long as there is one: the connection now, and those that are set up in its place
 * when the server comes back. A device whose server is not waited for has a link that is not renewed.
 *
 * What becomes of a request when the connection ends is told by its row in `protocol/commands.ts`: what acts fails, at once
 * too while there is no connection; what asks or says what is to be waits for the next connection, and is sent again there.
 * The blocking forms never wait for a connection.
 */
export class Link {
  readonly name: string;
  /** Number of connections that have ended. What began in one epoch must not go on in the next. */
  epoch = 0;
  #connection: Connection;
  #state: LinkState = 'connected';
  #error: VfioUserError | null = null;
  #owner: LinkOwner | null = null;
  #renewable = false;
  #settled: Promise<void> | null = null;
  #settle: () => void = () => undefined;
  /** Counters of the connections that have ended. */
  #before: ConnectionStatistics | null = null;

  /** @param connection may have ended already */
  constructor(connection: Connection) {
    this.name = connection.name;
    this.#connection = connection;
    if (!connection.closed) return;
    this.#state = 'closed';
    this.#error = connection.error;
  }

  get state(): LinkState {
    return this.#state;
  }

  /** The connection now; while there is none, the one that has ended. */
  get connection(): Connection {
    return this.#connection;
  }

  /** Counters of all connections together. */
  get statistics(): ConnectionStatistics {
    const now = this.#connection.statistics;
    const before = this.#before;
    if (before === null) return now;
    return {
      messagesSent: before.messagesSent + now.messagesSent,
      messagesReceived: before.messagesReceived + now.messagesReceived,
      lateReplies: before.lateReplies + now.lateReplies,
      unexpectedReplies: before.unexpectedReplies + now.unexpectedReplies,
    };
  }

  /** @param owner told from now on */
  belongsTo(owner: LinkOwner): void {
    this.#owner = owner;
  }

  /** From now on a connection that the server ends is renewed. */
  makeRenewable(): void {
    this.#renewable = true;
  }

  /** As `Connection.request`; the class comment tells what happens when the connection ends. */
  request(request: Request): Promise<Reply> {
    if (commandRow(request.command).loss !== 'fail' && request.loss !== 'fail') return this.#ask(request);
    if (this.#connection.closed) return Promise.reject(this.absent(request.command));
    return this.#connection.request(request);
  }

  /** As `Connection.requestSync`. */
  requestSync(request: Request): Reply {
    if (this.#connection.closed) throw this.absent(request.command);
    return this.#connection.requestSync(request);
  }

  /** As `Connection.post`. */
  post(command: number, payload: Uint8Array, data?: Uint8Array): boolean {
    if (this.#connection.closed) throw this.absent(command);
    return this.#connection.post(command, payload, data);
  }

  /** Resolves when it is known whether there is a connection: at once unless one is being set up. */
  settled(): Promise<void> {
    if (this.#state !== 'reconnecting') return Promise.resolve();
    return (this.#settled ??= new Promise((resolve) => {
      this.#settle = resolve;
    }));
  }

  /**
   * @param what cannot be done without a connection, for the message
   * @param epoch in which it began
   * @throws VfioUserError ERR_VFIO_USER_DISCONNECTED or CLOSED when there is no connection, or another one
   */
  assertConnected(what: string, epoch = this.epoch): void {
    if (this.#state !== 'connected') throw this.#absence(what);
    if (epoch === this.epoch) return;
    throw new VfioUserError(
      'ERR_VFIO_USER_DISCONNECTED',
      `${what}: the connection to ${this.name} was lost meanwhile, and another has taken its place; begin anew`,
    );
  }

  /** To be called when a connection ends; one that is not the link's, since it was never set up, does not matter. */
  connectionEnded(connection: Connection, error: VfioUserError | null, acting: number): void {
    if (connection !== this.#connection || this.#state !== 'connected') return;
    this.epoch++;
    // A peer that breaks the protocol is there, and would do so again.
    const gone = error?.code === 'ERR_VFIO_USER_DISCONNECTED';
    const renews = this.#renewable && gone;
    this.#state = renews ? 'reconnecting' : 'closed';
    if (!renews) this.#error = error;
    this.#owner?.connectionEnded(error, acting);
    if (renews) this.#owner?.renew(error);
    else this.#owner?.linkClosed(error);
  }

  /**
   * A new connection is set up.
   *
   * @throws VfioUserError why it has ended already
   */
  renewed(connection: Connection): void {
    // It may have ended between the last answer that it brought and the code that waited for it.
    if (connection.closed) throw connection.error ?? closedError(connection.name, 'connect', 'was');
    this.#before = this.statistics;
    this.#connection = connection;
    this.#state = 'connected';
    this.#wake();
  }

  /** Ends the link: with null by the user, with an error when no connection will come. Idempotent. */
  close(error: VfioUserError | null): void {
    if (this.#state === 'closed') return;
    if (this.#state === 'connected') {
      this.#connection.close(error);
      return;
    }
    this.#state = 'closed';
    this.#error = error;
    this.#wake();
    this.#owner?.linkClosed(error);
  }

  /** Sends what may be sent again. */
  async #ask(request: Request): Promise<Reply> {
    for (let repeats = 0; ; repeats++) {
      if (this.#state === 'reconnecting') await this.settled();
      const connection = this.#connection;
      if (connection.closed) throw this.absent(request.command);
      try {
        return await connection.request(request);
      } catch (error) {
        if (!connection.endedBy(error) || this.#state === 'closed' || repeats === MOST_REPEATS) throw error;
      }
    }
  }

  #wake(): void {
    this.#settled = null;
    this.#settle();
    this.#settle = () => undefined;
  }

  /** The error of a command for which there is no connection. */
  absent(command: number): VfioUserError {
    return this.#absence(commandName(command));
  }

  #absence(what: string): VfioUserError {
    if (this.#state === 'reconnecting') {
      return new VfioUserError(
        'ERR_VFIO_USER_DISCONNECTED',
        `${what}: the server of ${this.name} has gone, and is being waited for; the event "reconnect" tells when it is back`,
        { command: what, cause: this.#connection.error },
      );
    }
    return this.#error === null ? closedError(this.name, what, 'is') : errorFor(this.#error, what);
  }
}
