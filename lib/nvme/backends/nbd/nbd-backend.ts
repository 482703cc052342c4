// SPDX-License-Identifier: MIT
import { constants as system } from 'node:os';
import { VfioUserError, asError, outOfRange } from '../../../errors';
import { type AsynchronousBackend, BackendResult, type Deallocation } from '../backend';
import { resultOf } from '../backend-error';
import { VolatileWrites } from '../volatile-writes';
import { NbdConnection } from './connection';
import type { NbdExport } from './handshake';
import { NbdLink } from './link';
import type { NbdRequest } from './request';
import { type NbdAddress, parseNbdUri } from './uri';
import { Command, CommandFlag, ESHUTDOWN, ExportFlag } from './wire';

const { EIO } = system.errno;

const DEFAULT_TIMEOUT = 10_000;
/** Bytes that one request without data is for at most. */
const LONGEST_EFFECT = 2 ** 25;
/** Bytes of zeros that are sent at a time to a server that does not know Write Zeroes. */
const ZERO_BYTES = 2 ** 20;
/** Bytes of the largest blocks of a namespace. */
const LARGEST_BLOCK = 4096;

/** Options of {@link NbdBackend.connect}. */
export interface NbdBackendOptions {
  /**
   * Milliseconds that the server has to answer a request, and that a command waits for a server that is not there. Up to 2^31 - 1.
   * Default 10 000: a reset of the controller waits for it, and hosts wait 15 s for a reset.
   */
  readonly timeout?: number;
  /** Called with a line for people when the connection was lost, could not be made again, or was. Default: nobody is told. */
  readonly onState?: (message: string) => void;
  /** Ends the first attempt to connect. */
  readonly signal?: AbortSignal;
}

/**
 * A backend that is an export of a server of the NBD protocol, such as nbdkit or qemu-nbd.
 *
 * When the connection is lost, the accesses in flight end with {@link BackendResult} `unavailable`, and those that come later wait while
 * the backend connects again. What was acknowledged and not flushed may be lost by then: so {@link flush} rejects until
 * it has been written again.
 */
export class NbdBackend implements AsynchronousBackend {
  readonly asynchronous = true;
  readonly kind = 'nbd';
  readonly identity: string;
  readonly blockSize: number;
  readonly volatileCache: boolean;
  readonly deallocation: Deallocation | undefined;
  readonly #link: NbdLink;
  readonly #export: NbdExport;
  readonly #writes: VolatileWrites;
  readonly #uri: string;
  #size: number;
  /** Bytes of the export now. */
  #present: number;
  #onSizeChange: (size: number) => void = () => undefined;

  private constructor(address: NbdAddress, connection: NbdConnection, options: Required<LinkOptions>) {
    const exported = connection.export;
    const { size, flags, minBlock, preferredBlock } = exported;
    this.#export = exported;
    this.#uri = address.uri;
    this.identity = identityOf(address);
    this.#size = this.#present = size;
    this.blockSize = minBlock;
    this.volatileCache = (flags & ExportFlag.flush) !== 0;
    // What was trimmed may read as anything (proto.md, NBD_CMD_TRIM).
    this.deallocation =
      (flags & ExportFlag.trim) !== 0
        ? { unit: Math.min(preferredBlock, LONGEST_EFFECT), readsZero: false }
        : undefined;
    const what = `Flushing ${this.#uri}`;
    this.#writes = new VolatileWrites({
      sync: () => this.#sync(what),
      failure: (lost) =>
        new VfioUserError('ERR_VFIO_USER_SYSTEM', `${what}, of which ${lost}`, { errno: EIO }),
    });
    this.#link = new NbdLink(address, connection, {
      ...options,
      onLost: () => {
        this.#writes.lose();
      },
      flush: () => this.#writes.flush(),
      onSize: (present) => {
        this.#present = present;
        this.#onSizeChange(present);
      },
    });
  }

  /**
   * Connects to an export.
   *
   * @param uri an NBD URI such as `nbd://localhost/disk` or `nbd+unix:///?socket=/run/nbd.sock`
   * @throws VfioUserError `ERR_VFIO_USER_CONNECT`, `ERR_VFIO_USER_TIMEOUT` or `ERR_VFIO_USER_PROTOCOL` when that fails,
   *   `ERR_VFIO_USER_UNSUPPORTED` for an export that cannot be a namespace; TypeError for a URI that makes no sense
   */
  static async connect(uri: string, options: NbdBackendOptions = {}): Promise<NbdBackend> {
    const address = parseNbdUri(uri);
    const { timeout = DEFAULT_TIMEOUT, onState = () => undefined, signal } = options;
    if (!(timeout > 0 && timeout < 2 ** 31)) {
      throw outOfRange(`timeout is a number of milliseconds from 0 to 2147483647, got ${timeout}`);
    }
    const connection = await told(uri, () =>
      NbdConnection.open(address, timeout, signal ?? new AbortController().signal),
    );
    const problem = unfit(connection.export);
    if (problem !== null) {
      connection.close();
      throw new VfioUserError('ERR_VFIO_USER_UNSUPPORTED', `${uri} cannot be a namespace: ${problem}`);
    }
    return new NbdBackend(address, connection, { timeout, onState });
  }

  async read(offset: number, target: Uint8Array, at: number, length: number): Promise<BackendResult> {
    return this.#inParts(offset, length, this.#export.maxPayload, (from, part) => {
      const begin = at + from - offset;
      const data = target.subarray(begin, begin + part);
      return this.#perform({ type: Command.read, flags: 0, offset: from, length: part, data });
    });
  }

  async write(offset: number, source: Uint8Array, at: number, length: number): Promise<BackendResult> {
    return this.#inParts(offset, length, this.#export.maxPayload, (from, part) => {
      const begin = at + from - offset;
      const data = source.subarray(begin, begin + part);
      return this.#store({ type: Command.write, flags: 0, offset: from, length: part, data });
    });
  }

  async zero(offset: number, length: number, deallocate: boolean): Promise<BackendResult> {
    if ((this.#export.flags & ExportFlag.writeZeroes) === 0) {
      const most = Math.min(this.#export.maxPayload, ZERO_BYTES);
      return this.#inParts(offset, length, most, (from, part) =>
        this.write(from, new Uint8Array(part), 0, part),
      );
    }
    const flags = deallocate ? 0 : CommandFlag.noHole;
    return this.#inParts(offset, length, LONGEST_EFFECT, (from, part) =>
      this.#store({ type: Command.writeZeroes, flags, offset: from, length: part }),
    );
  }

  async deallocate(offset: number, length: number): Promise<BackendResult> {
    if (this.deallocation === undefined) return BackendResult.success;
    return this.#inParts(offset, length, LONGEST_EFFECT, (from, part) =>
      this.#perform({ type: Command.trim, flags: 0, offset: from, length: part }),
    );
  }

  flush(): Promise<void> {
    return this.#writes.flush();
  }

  get size(): number {
    return this.#size;
  }

  /**
   * Without a size the server is asked for that of the export, by another connection. Rejects with a RangeError when the export has less,
   * and with the error of the connection.
   */
  async resize(size?: number): Promise<void> {
    if (size === undefined || size > this.#present) await this.#link.renew();
    if (size !== undefined && size > this.#present) {
      throw outOfRange(`${this.#uri} has ${this.#present} bytes, fewer than ${size}`);
    }
    const previous = this.#size;
    this.#size = size ?? this.#present;
    // Nobody asks any more for what was lost there.
    if (this.#size < previous) this.#writes.replaced(this.#size, previous - this.#size);
  }

  onSizeChange(listener: (size: number) => void): void {
    this.#onSizeChange = listener;
  }

  close(): void {
    this.#link.close();
  }

  /** Does what changes bytes, and remembers that they are not durable yet. */
  async #store(request: NbdRequest): Promise<BackendResult> {
    const { flags } = this.#export;
    // A server that cannot flush, but knows of Force Unit Access, makes every write durable.
    const durable = !this.volatileCache && (flags & ExportFlag.forceUnitAccess) !== 0;
    const asked = durable ? { ...request, flags: request.flags | CommandFlag.forceUnitAccess } : request;
    const { connection, result } = await this.#ask(asked);
    if (result === BackendResult.success && this.volatileCache) {
      this.#writes.add(request.offset, request.length);
      this.#writes.replaced(request.offset, request.length);
      // The connection was lost between the reply and now.
      if (connection?.lost === true) this.#writes.lose();
    }
    return result;
  }

  async #perform(request: NbdRequest): Promise<BackendResult> {
    return (await this.#ask(request)).result;
  }

  async #ask(request: NbdRequest): Promise<{ connection: NbdConnection | null; result: BackendResult }> {
    const connection = await this.#link.connection();
    const errno = connection === null ? null : await connection.request(request);
    return { connection, result: errno === null ? BackendResult.unavailable : resultOfReply(errno) };
  }

  async #sync(what: string): Promise<void> {
    if (!this.volatileCache) return;
    const connection = await this.#link.writer();
    const flush = { type: Command.flush, flags: 0, offset: 0, length: 0 };
    const errno = connection === null ? null : await connection.request(flush);
    if (errno === 0) return;
    if (errno === null) {
      throw new VfioUserError('ERR_VFIO_USER_DISCONNECTED', `${what}: the connection to the server is lost`);
    }
    throw new VfioUserError('ERR_VFIO_USER_REMOTE', `${what}: the server failed with errno ${errno}`, {
      errno,
    });
  }

  /** Does something with the parts of a range, one after the other, until one fails. */
  async #inParts(
    offset: number,
    length: number,
    most: number,
    act: (offset: number, length: number) => Promise<BackendResult>,
  ): Promise<BackendResult> {
    const unit = Math.max(this.blockSize, 1);
    const step = Math.floor(most / unit) * unit;
    for (let done = 0; done < length; done += step) {
      const result = await act(offset + done, Math.min(step, length - done));
      if (result !== BackendResult.success) return result;
    }
    return BackendResult.success;
  }
}

type LinkOptions = Pick<NbdBackendOptions, 'timeout' | 'onState'>;

/** What an errno in a reply means (proto.md, Error values: they are those of Linux). */
function resultOfReply(errno: number): BackendResult {
  return errno === ESHUTDOWN ? BackendResult.unavailable : resultOf(errno);
}

/** Why an export cannot be a namespace; null when it can. */
function unfit({ size, flags, minBlock }: NbdExport): string | null {
  if ((flags & ExportFlag.readOnly) !== 0) return 'the export is read-only';
  if (minBlock > LARGEST_BLOCK) {
    return `its blocks have ${minBlock} bytes, and those of a namespace at most ${LARGEST_BLOCK}`;
  }
  if (size < 512) return `the export has ${size} bytes, less than a block`;
  return Number.isSafeInteger(size) ? null : `the export has ${size} bytes, which is too much`;
}

/** What the data is known by: where it is, without how it is reached safely. */
function identityOf({ transport, exportName }: NbdAddress): string {
  const where = transport.kind === 'unix' ? transport.path : `${transport.host}:${transport.port}`;
  return `nbd ${where} ${exportName}`;
}

/** Tells the failure of a first connection as the package does. */
async function told<T>(uri: string, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (error) {
    const reason = asError(error);
    if (reason.name === 'AbortError') throw reason;
    const code = reason instanceof VfioUserError ? reason.code : 'ERR_VFIO_USER_CONNECT';
    throw new VfioUserError(code, `Connecting to ${uri}: ${reason.message}`, { cause: reason });
  }
}
