// SPDX-License-Identifier: MIT
import { performance } from 'node:perf_hooks';
import { VfioUserError } from '../errors';
import type { Socket } from '../native';
import {
  Command,
  HEADER_SIZE,
  MAX_VERSION_JSON,
  commandName,
  commandRow,
  type Capabilities,
} from '../protocol';
import {
  CommandError,
  Connection,
  DeadlineTimer,
  Errno,
  type CommandReply,
  type IncomingCommand,
} from '../transport';
import { commandLane } from './command-lanes';
import type { Client } from './device-model';
import { ModelCalls, type Eventually } from './model-calls';
import { answerVersion } from './negotiation';
import type { ProcessLimits } from './process-limits';
import { ServedClient, type ServedDevice } from './served-client';
import { TwinSocket } from './twin-socket';

/** What a session serves, and how. */
export interface SessionOptions {
  /** Name of the client, for messages. */
  readonly name: string;
  readonly device: ServedDevice;
  /** What we announce. */
  readonly capabilities: Readonly<Capabilities>;
  readonly processLimits: ProcessLimits;
  /** Milliseconds until the client must have negotiated. */
  readonly versionTimeout: number;
  /** Milliseconds without a sign of the client after which it may be disconnected; Infinity for never. */
  readonly idleTimeout: number;
  /** Microseconds that the event loop looks for the client's next message after each, instead of sleeping. */
  readonly spin: number;
  /** Whether somebody else waits for the client's place. */
  readonly wanted: () => boolean;
  /** Time-out of our own requests, in milliseconds. */
  readonly messageTimeout: number;
  /** Told of what goes wrong and is not the caller's to handle. */
  readonly report: (error: unknown, client: Client | null) => void;
}

/** Largest message before the negotiation. */
const MAX_FIRST_MESSAGE = HEADER_SIZE + 8 + MAX_VERSION_JSON;
/** Room for the fixed part of a transfer, and for messages that are not transfers. */
const MESSAGE_ROOM = HEADER_SIZE + (1 << 16);

/** One client, from the connection to its end: what comes before it has negotiated, and after it has gone. */
export class Session {
  /** Resolves when the client is gone, its memory and eventfds are released, and the model is at rest. */
  readonly ended: Promise<void>;
  readonly #options: SessionOptions;
  readonly #connection: Connection;
  readonly #calls: ModelCalls;
  /** A client that connects and stays silent would keep all others out. */
  readonly #versionTimer = new DeadlineTimer(() => {
    this.#report(silenceError(this.#options));
    this.close();
    return Infinity;
  });
  readonly #idleTimer = new DeadlineTimer((now) => this.#checkIdleness(now));
  /** What had been done for the client at the last look. */
  #activity = -1;
  #client: ServedClient | null = null;

  /**
   * @param socket is the session's from now on
   * @throws VfioUserError ERR_VFIO_USER_SYSTEM (EMFILE)
   */
  constructor(socket: Socket, options: SessionOptions) {
    this.#options = options;
    const { name, device, messageTimeout, versionTimeout } = options;
    this.#calls = new ModelCalls(device.model.name, (error) => {
      this.#report(error);
    });
    let end = (): void => undefined;
    this.ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    try {
      this.#connection = new Connection(socket, {
        name,
        role: 'server',
        messageTimeout,
        maxMessageSize: MAX_FIRST_MESSAGE,
        maxDescriptor: options.processLimits.descriptors,
        spin: options.spin,
        onCommand: (command) => this.#calls.track(this.#dispatch(command)),
        lane: (command, payload) => commandLane(device.function.regions, command, payload),
        onClose: (error) => {
          void this.#release(error).finally(end);
        },
      });
    } catch (error) {
      // It could not be watched: the process has no descriptor left.
      socket.close();
      throw error;
    }
    this.#versionTimer.arm(performance.now() + versionTimeout);
    this.#idleTimer.arm(performance.now() + options.idleTimeout);
  }

  /**
   * Disconnects the client when it did nothing for a whole interval, and others wait. The device is asked too, since what goes
   * through mapped memory is not seen here.
   *
   * @returns when to look next
   */
  #checkIdleness(now: number): number {
    const { device, idleTimeout, wanted } = this.#options;
    let activity = this.#calls.count;
    this.#calls.tell(() => {
      activity += device.model.activity?.() ?? 0;
    });
    if (activity === this.#activity && !this.#calls.busy && wanted()) {
      this.#report(idleError(this.#options));
      this.close();
      return Infinity;
    }
    this.#activity = activity;
    return now + idleTimeout;
  }

  /** The client, once it has negotiated and until it is gone. */
  get client(): Client | null {
    return this.#client;
  }

  /** Disconnects the client. Idempotent. */
  close(): void {
    this.#connection.close();
  }

  #dispatch(command: IncomingCommand): Eventually<CommandReply> {
    if (this.#client === null) return this.#negotiate(command);
    checkFds(command);
    return this.#client.serve(command);
  }

  /** VERSION comes first, and a client with which we cannot agree is disconnected (vfio-user, VFIO_USER_VERSION). */
  #negotiate(incoming: IncomingCommand): CommandReply {
    try {
      const { command, payload } = incoming;
      checkFds(incoming);
      if (command !== Command.version)
        throw new CommandError(Errno.EINVAL, `${commandName(command)} before VERSION`);
      const { name, device, capabilities, processLimits, messageTimeout } = this.#options;
      const agreement = answerVersion(payload, capabilities);
      const { reply, ours, limits } = agreement;
      const maxMessageSize = MESSAGE_ROOM + ours.maxDataXferSize;
      this.#connection.maxMessageSize = maxMessageSize;
      const twin = limits.twinSocket
        ? new TwinSocket(this.#connection, { name, messageTimeout, maxMessageSize })
        : null;
      const client = new ServedClient({
        name,
        device,
        agreement,
        processLimits,
        connection: twin?.connection ?? this.#connection,
        turns: this.#connection.turns,
        calls: this.#calls,
        disconnect: () => {
          this.close();
        },
        report: (error) => {
          this.#report(error);
        },
      });
      this.#calls.tell(() => device.model.attach?.(client));
      this.#client = client;
      this.#versionTimer.clear();
      return twin?.reply(reply) ?? { payload: reply };
    } catch (error) {
      // After the reply, which leaves as soon as this throws.
      queueMicrotask(() => {
        this.close();
      });
      throw error;
    }
  }

  /**
   * The client is gone. The model lets go first, then the client's memory and eventfds are released. When the model has
   * finished what it was asked for, a device that can migrate runs again, for the next client.
   */
  async #release(error: VfioUserError | null): Promise<void> {
    this.#versionTimer.clear();
    this.#idleTimer.clear();
    const { device, report } = this.#options;
    const client = this.#client;
    const released = client === null ? undefined : this.#detach(client);
    try {
      // That a client goes away is no error.
      if (error !== null && error.code !== 'ERR_VFIO_USER_DISCONNECTED') report(error, client);
    } finally {
      await released;
      await this.#calls.rest();
      if (client !== null) await this.#resume(device);
    }
  }

  async #detach(client: ServedClient): Promise<void> {
    try {
      const done = this.#calls.call(() => this.#options.device.model.detach?.(client));
      if (done instanceof Promise) await done;
    } catch {
      // Reported by the call.
    }
    this.#client = null;
    await client.close();
  }

  async #resume({ migration }: ServedDevice): Promise<void> {
    try {
      await migration?.clientGone(this.#calls.call);
    } catch {
      // Reported by the call.
    }
  }

  #report(error: unknown): void {
    this.#options.report(error, this.#client);
  }
}

function checkFds({ command, fds }: IncomingCommand): void {
  if (fds.length > 0 && commandRow(command).requestFds === 0)
    throw new CommandError(Errno.EINVAL, `${commandName(command)} with file descriptors`);
}

function silenceError({ name, versionTimeout }: SessionOptions): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_TIMEOUT',
    `${name} did not send VERSION within ${versionTimeout} ms; it was disconnected so that others are served`,
    { command: 'VERSION' },
  );
}

function idleError({ name, idleTimeout }: SessionOptions): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_TIMEOUT',
    `${name} did nothing for ${idleTimeout} ms while another client waited; it was disconnected`,
  );
}
