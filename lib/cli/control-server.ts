// SPDX-License-Identifier: MIT
import { ListeningSocket, type ListeningWatcher, type Socket } from '../native';
import { ControlClient } from './control-client';
import type { ControlCommands } from './control-request';
import type { ReportLimit } from '../report-limit';
import type { SocketPermissions } from './socket-permissions';

/** Clients at a time. One more takes the place of the one that has been silent for the longest time. */
const MAX_CLIENTS = 16;
/** How long to wait when a client cannot be accepted, because the process has no descriptor left. */
const RETRY_MILLISECONDS = 100;

/**
 * Takes commands at a unix socket: lines of JSON, each of which is answered with a line. docs/faults.md has the protocol. Who may
 * write the socket file may give commands.
 */
export class ControlServer {
  readonly #listener: ListeningSocket;
  readonly #commands: ControlCommands;
  readonly #log: Pick<ReportLimit, 'report'>;
  /** The one that spoke last is the last. */
  readonly #clients = new Set<ControlClient>();
  #watcher: ListeningWatcher | undefined;
  #retry: NodeJS.Timeout | undefined;

  /**
   * @param log told of clients that cannot be taken
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM` (EADDRINUSE when somebody listens there)
   */
  constructor(
    path: string,
    { mode, owner }: SocketPermissions,
    commands: ControlCommands,
    log: Pick<ReportLimit, 'report'>,
  ) {
    this.#log = log;
    this.#commands = commands;
    this.#listener = ListeningSocket.listen(path, {
      backlog: MAX_CLIENTS,
      ...(mode !== undefined && { mode }),
      ...(owner !== undefined && { owner }),
    });
    this.#listen();
  }

  /** Stops listening, removes the socket file, and disconnects all. Idempotent. */
  close(): void {
    clearTimeout(this.#retry);
    this.#listener.close();
    for (const client of this.#clients) client.close();
  }

  #listen(): void {
    this.#watcher = this.#listener.watch(() => {
      this.#accept();
    });
  }

  #accept(): void {
    try {
      const socket = this.#listener.accept();
      if (socket !== null) this.#begin(socket);
    } catch (error) {
      // The process has no descriptor left. The client still waits, so that the watcher would call again at once.
      this.#log.report(`The control socket cannot take a client now: ${(error as Error).message}`);
      this.#watcher?.close();
      this.#retry = setTimeout(() => {
        this.#listen();
      }, RETRY_MILLISECONDS);
    }
  }

  #begin(socket: Socket): void {
    const [silent] = this.#clients;
    if (silent !== undefined && this.#clients.size >= MAX_CLIENTS) silent.close();
    const client: ControlClient = new ControlClient(socket, {
      commands: this.#commands,
      onSign: () => {
        this.#clients.delete(client);
        this.#clients.add(client);
      },
      onClose: () => this.#clients.delete(client),
    });
    this.#clients.add(client);
  }
}
