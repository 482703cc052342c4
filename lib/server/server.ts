// SPDX-License-Identifier: MIT
import { availableParallelism } from 'node:os';
import { VfioUserError, invalidArgument, outOfRange } from '../errors';
import {
  ListeningSocket,
  Socket,
  isAbstractPath,
  type ListeningWatcher,
  type PeerCredentials,
  type SocketOwner,
} from '../native';
import { PROTOCOL_MAJOR, PROTOCOL_MINOR, encodeVersion, type Capabilities } from '../protocol';
import { checkKeys, type Keys } from '../pci/check-keys';
import { ReportLimit } from '../report-limit';
import { Admission } from './admission';
import { checkModel } from './check-model';
import { DeviceDescription } from './device-description';
import type { Client, PciDeviceModel } from './device-model';
import { FunctionState } from './function-state';
import { Migration } from './migration';
import { serverCapabilities } from './negotiation';
import { readProcessLimits } from './process-limits';
import type { ServedDevice } from './served-client';
import { Session } from './session';

/**
 * What a server announces (vfio-user, VFIO_USER_VERSION, "Capabilities"). It is said as far as the client's own VERSION
 * leaves room; what is not said has the default of the specification.
 */
export interface ServerCapabilities {
  /** File descriptors that are taken with one message, 0 to 65535. Default 16; QEMU does not connect when there are more. */
  readonly maxMsgFds?: number;
  /** Largest `count` of a data transfer, in bytes, 1 to 2^32 - 1. Default 1 MiB. */
  readonly maxDataXferSize?: number;
  /**
   * DMA ranges that a client may have at a time, 0 to 2^32 - 1. Default: as many as the process can map for clients, which is
   * 3/8 of vm.max_map_count and at most 32768. Ranges that have no descriptor may be more.
   */
  readonly maxDmaMaps?: number;
  /** Page sizes for DMA ranges, or'ed together: a multiple of 4096, below 2^53. Default 4096. */
  readonly pageSizes?: number;
  /**
   * Announces REGION_WRITE_MULTI, to clients that announce it too. It is always served. Default false: in QEMU 10.1 and 10.2
   * the flag for it overlaps the one that forces messages through the queue.
   */
  readonly writeMultiple?: boolean;
}

/** How to serve. Times are in milliseconds, Infinity for none. */
export interface ServeOptions {
  /** Permissions of the socket file, such as 0o600; without, the umask decides. */
  readonly mode?: number;
  /** Whose the socket file is; set, as `mode` is, before anybody can connect. */
  readonly owner?: SocketOwner;
  /**
   * Decides about each process that connects: it is served when this returns `true`, and disconnected otherwise, also when
   * this throws or returns a promise. Not asked about a connection that is given by descriptor.
   *
   * Default: everybody who may connect. An abstract socket has no permissions, so that is every process of the network
   * namespace; of these, only those of the server's own user and of root are served.
   */
  readonly accept?: (peer: PeerCredentials) => boolean;
  /** Time-out of the DMA_READ and DMA_WRITE messages that we send. Default 5000. */
  readonly messageTimeout?: number;
  /** Time for a client to send VERSION; one that does not is disconnected so that the next is served. Default 5000. */
  readonly versionTimeout?: number;
  /**
   * Disconnects a client that does nothing for this long while another one waits, after at most twice that time. A sign of
   * the client is a message, an access by ioregionfd, and what `activity` of the device model counts: stores to mapped
   * memory are not seen otherwise. Default Infinity: a client keeps its place.
   */
  readonly idleTimeout?: number;
  /**
   * Microseconds, 0 to 1,000,000, that the event loop looks for the client's next message after each one, instead of sleeping. A
   * client that waits for each answer gets it sooner then, since no processor has to be woken. Everything else on the loop is
   * served meanwhile, and a client that sends nothing costs nothing. Default 50; 0 where there is one processor only, which the client
   * needs.
   */
  readonly spin?: number;
  /** Closes the server when aborted. */
  readonly signal?: AbortSignal;
  /**
   * Told of errors that nobody else gets: of the device model, which the client sees as EIO; of a client that breaks the
   * protocol; of accept(2). A client can cause any number of them. Default: a process warning for each cause, and then once a minute
   * how often it came again.
   */
  readonly onError?: (error: unknown, client: Client | null) => void;
  /**
   * Whether clients that ask for a socket of its own for our DMA_READ and DMA_WRITE get one (vfio-user,
   * VFIO_USER_VERSION, "twin_socket"). Default true.
   */
  readonly twinSocket?: boolean;
  /** What to announce instead of the defaults. */
  readonly capabilities?: ServerCapabilities;
}

const OPTIONS: Keys<ServeOptions> = {
  mode: 'optional',
  owner: 'optional',
  accept: 'optional',
  messageTimeout: 'optional',
  versionTimeout: 'optional',
  idleTimeout: 'optional',
  spin: 'optional',
  signal: 'optional',
  onError: 'optional',
  twinSocket: 'optional',
  capabilities: 'optional',
};
const OWNER: Keys<SocketOwner> = { uid: 'optional', gid: 'optional' };
const CAPABILITIES: Keys<ServerCapabilities> = {
  maxMsgFds: 'optional',
  maxDataXferSize: 'optional',
  maxDmaMaps: 'optional',
  pageSizes: 'optional',
  writeMultiple: 'optional',
};

/** Default of `spin`: as long as KVM looks for work before a processor sleeps (`halt_poll_ns`). */
const SPIN_MICROSECONDS = availableParallelism() > 1 ? 50 : 0;
const MAX_SPIN_MICROSECONDS = 1_000_000;

/** How long to wait when a client cannot be accepted, because the process has no descriptor left. */
const RETRY_MILLISECONDS = 100;

/**
 * Serves a device to vfio-user clients, one after the other; who comes meanwhile waits in the socket's backlog. Two
 * wait there (three with `idleTimeout`); further ones cannot connect (EAGAIN) until there is room.
 *
 * @param endpoint path of the socket to listen at, which replaces a stale one, or `@name` for an abstract socket; or the
 *   descriptor of a unix stream socket, which becomes the server's: one that listens, as systemd hands it over, or that is connected
 *   to the one client
 * @throws VfioUserError ERR_VFIO_USER_SYSTEM (EADDRINUSE when somebody listens there)
 * @throws TypeError or RangeError for a device model or options that make no sense
 * @example await using server = await serve('/run/gpio.sock', model);
 */
export async function serve(
  endpoint: string | { readonly fd: number },
  model: PciDeviceModel,
  options: ServeOptions = {},
): Promise<Server> {
  await Promise.resolve();
  options.signal?.throwIfAborted();
  return start(endpoint, model, options);
}

/** Constructs a server, which users do with {@link serve} alone. */
let start: (...how: Required<Parameters<typeof serve>>) => Server;

/** A device that is being served. Made by {@link serve}. */
export class Server {
  /** Where: the path as it was given, or `fd` and its number. */
  readonly path: string;
  readonly #device: ServedDevice;
  readonly #options: ServeOptions;
  readonly #capabilities: Capabilities;
  readonly #processLimits = readProcessLimits();
  readonly #listener: ListeningSocket | null = null;
  readonly #onAbort = (): void => {
    void this.close();
  };
  #watcher: ListeningWatcher | undefined;
  #retry: NodeJS.Timeout | undefined;
  readonly #admission: Admission;
  #session: Session | null = null;
  /** The client that waits for the one that is served now, where it may be disconnected for that. */
  #next: Socket | null = null;
  #clients = 0;
  #end: () => void = () => undefined;
  /** Resolves when no client is going to come any more: the server was closed, or the one client that it was given is gone. */
  readonly ended = new Promise<void>((resolve) => (this.#end = resolve));
  /** A client must not fill a log. */
  readonly #warnings = new ReportLimit((text) => {
    process.emitWarning(text, 'VfioUserWarning');
  });
  /** No client could be accepted when one came last. */
  #starved = false;
  #closed = false;

  static {
    start = (endpoint, model, options) => new Server(endpoint, model, options);
  }

  private constructor(
    endpoint: string | { readonly fd: number },
    model: PciDeviceModel,
    options: ServeOptions,
  ) {
    checkKeys('options of serve', options, OPTIONS);
    checkKeys('capabilities of serve', options.capabilities ?? {}, CAPABILITIES);
    checkTimeout('messageTimeout', options.messageTimeout);
    checkTimeout('versionTimeout', options.versionTimeout);
    checkTimeout('idleTimeout', options.idleTimeout);
    checkSpin(options.spin);
    checkSocketFile(endpoint, options);
    const given = Object.entries(options.capabilities ?? {}).filter(([, value]) => value !== undefined);
    this.#capabilities = {
      ...serverCapabilities(this.#processLimits.mappings),
      ...(Object.fromEntries(given) as ServerCapabilities),
      twinSocket: { supported: options.twinSocket ?? true },
    };
    encodeVersion(PROTOCOL_MAJOR, PROTOCOL_MINOR, this.#capabilities);
    this.#options = options;
    checkModel(model);
    const state = new FunctionState(model);
    this.#device = {
      model,
      function: state,
      description: new DeviceDescription(state, model.reset !== undefined),
      migration: model.migration === undefined ? null : new Migration(model.migration),
    };
    this.path = typeof endpoint === 'string' ? endpoint : `fd ${endpoint.fd}`;
    this.#admission = new Admission(this.path, options.accept, (error) => {
      this.#report(error, null);
    });
    if (typeof endpoint === 'string') {
      const { mode, owner } = options;
      this.#listener = ListeningSocket.listen(endpoint, {
        ...(mode !== undefined && { mode }),
        ...(owner !== undefined && { owner }),
      });
    } else {
      this.#listener = ListeningSocket.fromFd(endpoint.fd);
      if (this.#listener === null) this.#begin(Socket.fromFd(endpoint.fd));
    }
    this.#listen();
    options.signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** The client that is served now, once it has negotiated. */
  get client(): Client | null {
    return this.#session?.client ?? null;
  }

  /**
   * Stops listening, removes the socket file, disconnects the client, and waits until the device model is at rest:
   * until the promise of the command that it serves, if any, settles. Idempotent.
   */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#listener?.close();
    this.#next?.close();
    this.#session?.close();
    await this.#session?.ended;
    this.#warnings.close();
    this.#end();
  }

  /** Calls {@link close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #listen(): void {
    if (this.#closed) return;
    try {
      this.#watcher = this.#listener?.watch(() => {
        this.#accept();
      });
    } catch (error) {
      this.#listenLater(error);
    }
  }

  #accept(): void {
    try {
      const socket = this.#listener?.accept() ?? null;
      if (socket === null || !this.#admission.admits(socket)) return;
      this.#watcher?.close();
      if (this.#session === null) this.#begin(socket);
      else this.#next = socket;
      this.#starved = false;
    } catch (error) {
      this.#listenLater(error);
    }
  }

  /** The process has no descriptor left. A client still waits, so that the watcher would call again at once, and for ever. */
  #listenLater(error: unknown): void {
    this.#watcher?.close();
    this.#retry = setTimeout(() => {
      this.#listen();
    }, RETRY_MILLISECONDS);
    // Told once, and not at every try.
    if (!this.#starved) this.#report(error, null);
    this.#starved = true;
  }

  #begin(socket: Socket): void {
    const { messageTimeout = 5000, versionTimeout = 5000, idleTimeout = Infinity } = this.#options;
    const { spin = SPIN_MICROSECONDS } = this.#options;
    const { pid } = socket.peerCredentials();
    const session = new Session(socket, {
      name: `client ${++this.#clients} of ${this.path} (process ${pid})`,
      device: this.#device,
      capabilities: this.#capabilities,
      processLimits: this.#processLimits,
      messageTimeout,
      versionTimeout,
      idleTimeout,
      spin,
      wanted: () => this.#next !== null,
      report: (error, client) => {
        this.#report(error, client);
      },
    });
    this.#session = session;
    void session.ended.then(() => {
      this.#session = null;
      if (this.#next !== null) this.#beginNext(this.#next);
      else if (this.#listener === null) this.#end();
      else this.#listen();
    });
    if (idleTimeout !== Infinity) this.#listen();
  }

  #beginNext(socket: Socket): void {
    this.#next = null;
    if (this.#closed) return;
    try {
      this.#begin(socket);
    } catch (error) {
      this.#listenLater(error);
    }
  }

  #report(error: unknown, client: Client | null): void {
    const { onError } = this.#options;
    if (onError !== undefined) onError(error, client);
    else this.#warnings.report(`${this.#device.model.name} at ${this.path}: ${describe(error)}`);
  }
}

function describe(error: unknown): string {
  if (error instanceof VfioUserError) return `${error.code}: ${error.message}`;
  return typeof error === 'object' && error !== null && 'stack' in error
    ? String(error.stack)
    : String(error);
}

function checkTimeout(name: string, value: number | undefined): void {
  if (value !== undefined && !(value > 0))
    throw invalidArgument(`${name} is ${value}; give milliseconds above 0, or Infinity for none`);
}

function checkSpin(value: number | undefined): void {
  if (value !== undefined && !(value >= 0 && value <= MAX_SPIN_MICROSECONDS))
    throw outOfRange(`spin is from 0 to ${MAX_SPIN_MICROSECONDS} microseconds, got ${value}`);
}

function checkSocketFile(endpoint: string | { readonly fd: number }, { mode, owner }: ServeOptions): void {
  if (owner !== undefined) checkKeys('owner of serve', owner, OWNER);
  if (mode === undefined && owner === undefined) return;
  if (typeof endpoint !== 'string' || isAbstractPath(endpoint))
    throw invalidArgument('mode and owner are those of a socket file, and there is none; listen at a path');
}
