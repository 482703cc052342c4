// SPDX-License-Identifier: MIT
import { VfioUserError, asError } from '../../../errors';
import { NbdConnection } from './connection';
import type { NbdExport } from './handshake';
import type { NbdAddress } from './uri';
import { ExportFlag } from './wire';

/** Milliseconds before the first attempt to connect again, which double up to {@link LONGEST_DELAY}. */
const FIRST_DELAY = 100;
const LONGEST_DELAY = 5000;
/** Bytes of the smallest export that can be a namespace. */
const LEAST_SIZE = 512;

/** Options of {@link NbdLink}. */
export interface NbdLinkOptions {
  /** Milliseconds that a request waits for a connection, and that the server has to answer. */
  readonly timeout: number;
  readonly onState: (message: string) => void;
  /** Called when a connection has ended, before anything else is done about it. */
  readonly onLost: () => void;
  /** Makes durable what was written, before its connection is given up. What cannot be is lost. */
  readonly flush: () => Promise<void>;
  /** Called when the export has another size than it had before: with that. */
  readonly onSize: (size: number) => void;
}

/** The connection to an export of the moment, which is made again whenever it was lost. */
export class NbdLink {
  readonly #address: NbdAddress;
  readonly #options: NbdLinkOptions;
  /** What the export was at first, and must be ever after, but for its size. */
  readonly #export: NbdExport;
  #size: number;
  #connection: NbdConnection | null = null;
  /** The connection that is about to be given up for another. */
  #retiring: NbdConnection | null = null;
  /** Those who wait for a connection. */
  readonly #waiting = new Set<(connection: NbdConnection | null) => void>();
  readonly #closing = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  /** What was told last about attempts that failed, so that it is told once. */
  #told = '';

  constructor(address: NbdAddress, connection: NbdConnection, options: NbdLinkOptions) {
    this.#address = address;
    this.#options = options;
    this.#export = connection.export;
    this.#size = connection.export.size;
    this.#use(connection);
  }

  /** The connection, once there is one; null when there is none in time, or the link was closed. */
  async connection(): Promise<NbdConnection | null> {
    if (this.#connection !== null || this.#closing.signal.aborted) return this.#connection;
    return new Promise((resolve) => {
      const settle = (connection: NbdConnection | null): void => {
        clearTimeout(timer);
        this.#waiting.delete(settle);
        resolve(connection);
      };
      const timer = setTimeout(() => {
        settle(null);
      }, this.#options.timeout);
      this.#waiting.add(settle);
    });
  }

  /** The connection that what was written so far went by; as {@link connection}. */
  async writer(): Promise<NbdConnection | null> {
    return this.#retiring ?? this.connection();
  }

  /** Ends the connection, and makes no other. Idempotent. */
  close(): void {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    clearTimeout(this.#timer);
    this.#connection?.close();
    this.#connection = null;
    this.#retiring?.close();
    for (const settle of this.#waiting) settle(null);
  }

  #use(connection: NbdConnection): void {
    this.#connection = connection;
    const { size } = connection.export;
    if (size !== this.#size) {
      this.#size = size;
      this.#options.onSize(size);
    }
    connection.watch((reason) => {
      // Nobody waits for one that is about to be given up.
      if (this.#closing.signal.aborted || this.#connection !== connection) return;
      this.#connection = null;
      this.#options.onLost();
      this.#options.onState(
        `The connection to ${this.#address.uri} is lost: ${reason.message}; connecting again`,
      );
      this.#told = '';
      this.#retry(FIRST_DELAY);
    });
    for (const settle of this.#waiting) settle(this.#connection);
  }

  #retry(delay: number): void {
    this.#timer = setTimeout(() => {
      this.#attempt().catch((error: unknown) => {
        if (this.#closing.signal.aborted) return;
        const { message } = asError(error);
        if (message !== this.#told)
          this.#options.onState(`Connecting to ${this.#address.uri} again: ${message}`);
        this.#told = message;
        this.#retry(Math.min(2 * delay, LONGEST_DELAY));
      });
    }, delay);
  }

  async #attempt(): Promise<void> {
    const connection = await this.#open();
    this.#options.onState(`Connected to ${this.#address.uri} again`);
    this.#use(connection);
  }

  /** Connects to the same export. Rejects when it is another one. */
  async #open(): Promise<NbdConnection> {
    const connection = await NbdConnection.open(this.#address, this.#options.timeout, this.#closing.signal);
    const change = difference(this.#export, connection.export);
    if (change === null) return connection;
    connection.close();
    throw new VfioUserError('ERR_VFIO_USER_IDENTITY', `it is not the export that it was: ${change}`);
  }

  /**
   * Connects anew, since a server tells the size of an export at the beginning of a connection only. Requests that come meanwhile wait
   * for it; the connection that there was does what it was asked for before it ends. Rejects when no connection can be made.
   */
  async renew(): Promise<void> {
    const next = await this.#open();
    const old = this.#connection;
    if (old === null) {
      // One that was lost is made anew anyway.
      next.close();
      return;
    }
    this.#connection = null;
    this.#retiring = old;
    await old.idle();
    await this.#options.flush().catch(() => undefined);
    this.#retiring = null;
    if (old.lost) this.#options.onLost();
    old.close();
    if (this.#closing.signal.aborted) next.close();
    else this.#use(next);
  }
}

/** In what an export is not what it was; null when nothing matters. */
function difference(before: NbdExport, after: NbdExport): string | null {
  if (after.size < LEAST_SIZE || !Number.isSafeInteger(after.size)) {
    return `its size was ${before.size} bytes and is ${after.size}, which no namespace can have`;
  }
  if (after.minBlock !== before.minBlock) {
    return `its blocks had ${before.minBlock} bytes and have ${after.minBlock}`;
  }
  if (after.maxPayload < before.maxPayload)
    return `it takes ${after.maxPayload} bytes at once, and took more`;
  const gone = before.flags & ~after.flags;
  const come = after.flags & ~before.flags & ExportFlag.readOnly;
  return gone !== 0 || come !== 0
    ? `its flags were 0x${before.flags.toString(16)} and are 0x${after.flags.toString(16)}`
    : null;
}
