// SPDX-License-Identifier: MIT
import type { Backend } from '../nvme/backends';
import {
  type NamespaceStore,
  NvmeControllerModel,
  type NvmeControllerOptions,
  type NvmeNamespaceInfo,
  memoryNamespaceStore,
  openNamespaceFolder,
} from '../nvme/controller';
import { type Server, serve, type SocketOwner } from '../server';
import { nvmeControlCommands, type ControlledNvme } from './control-commands';
import { ControlServer } from './control-server';
import { type NamespaceText, parseNamespace } from './namespace-text';
import { openBackend } from './open-backend';
import { UsageError } from './option-spec';
import { complain } from './output';
import { ReportLimit } from '../report-limit';

/** A controller to serve, and where. */
export interface NvmeServerOptions {
  /** Where the controller is served, for people: the path of the socket, `@name`, or `fd` and a number. */
  readonly socket: string;
  /** A socket that this process was started with, in place of one at that path. */
  readonly fd?: number | undefined;
  /** Permissions of the socket file, and whose it is. */
  readonly mode?: number | undefined;
  readonly owner?: SocketOwner | undefined;
  /** Milliseconds after which an idle client is disconnected when another waits. */
  readonly idleTimeout?: number | undefined;
  readonly namespaces: readonly NamespaceText[];
  /** What hosts make namespaces of: of memory, or of files in a folder, which may know its capacity. Default: they cannot. */
  readonly store?: { readonly folder: string | undefined; readonly capacity: number | undefined } | undefined;
  /** Faults to begin with. */
  readonly faults?: readonly string[];
  /** Where commands are taken while the controller is served: the path of a socket, with the permissions of the other one. */
  readonly control?: string | undefined;
  /** What the controller is told beside its namespaces. What is undefined is as if it were not there. */
  readonly controller: {
    readonly [
      K in Exclude<
        keyof NvmeControllerOptions,
        'namespaces' | 'namespaceStore' | 'backend' | 'blockSize' | 'onFault' | 'onWarning'
      >
    ]?: NvmeControllerOptions[K] | undefined;
  };
}

/** An emulated NVMe controller that is being served. */
export interface NvmeServer extends ControlledNvme {
  readonly socket: string;
}

/** All controllers that this process serves. */
export interface NvmeServers {
  /** In the order in which they were asked for. */
  readonly servers: readonly NvmeServer[];
  /** Resolves when no client is going to come any more, as all of them were given by their sockets. */
  readonly ended: Promise<unknown>;
  /** Removes the sockets, disconnects the clients, and makes what was written durable. */
  close(): Promise<void>;
}

/**
 * Serves emulated NVMe controllers from this process. Nothing is served before all of them are ready. Errors of single clients go to
 * stderr, a line each.
 *
 * @param signal ends the wait for the servers of backends
 * @throws UsageError when a file is to be the data of two namespaces; what opening a backend, making a controller and listening throw
 */
export async function startNvmeServers(
  wanted: readonly NvmeServerOptions[],
  signal?: AbortSignal,
): Promise<NvmeServers> {
  const made: Controller[] = [];
  const log = new ReportLimit(complain);
  const close = async (): Promise<void> => {
    const ends = await Promise.allSettled(made.map((controller) => controller.close()));
    log.close();
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  };
  try {
    const storage = new Storage(log, signal);
    for (const options of wanted) made.push(await Controller.make(options, storage, log));
    for (const controller of made) await controller.listen();
  } catch (error) {
    await close().catch(() => undefined); // What has failed first is what people have to know.
    throw error;
  }
  return { servers: made, ended: Promise.all(made.map(({ ended }) => ended)), close };
}

/** Opens backends, none of them twice. */
class Storage {
  /** The sockets by the identities of the backends that are open. */
  readonly #users = new Map<string, string>();
  readonly #log: ReportLimit;
  readonly #signal: AbortSignal | undefined;

  constructor(log: ReportLimit, signal: AbortSignal | undefined) {
    this.#log = log;
    this.#signal = signal;
  }

  /** @throws UsageError when the data is that of another namespace; what opening throws */
  async open({ backend }: NamespaceText, socket: string): Promise<Backend> {
    const opened = await openBackend(backend, this.#log, this.#signal);
    const { identity } = opened;
    if (identity === undefined) return opened;
    const other = this.#users.get(identity);
    if (other !== undefined) {
      opened.close();
      throw new UsageError(`${identity} is the data of two namespaces, at ${other} and at ${socket}`);
    }
    this.#users.set(identity, socket);
    return opened;
  }

  /** The backend is closed, and may be opened again. */
  closed({ identity }: Backend): void {
    if (identity !== undefined) this.#users.delete(identity);
  }
}

/** A controller, and its server once it listens. */
class Controller implements NvmeServer {
  readonly socket: string;
  readonly model: NvmeControllerModel;
  readonly #options: NvmeServerOptions;
  readonly #storage: Storage;
  readonly #log: ReportLimit;
  /** By namespace id. */
  readonly #backends: Map<number, Backend>;
  #server: Server | undefined;
  #control: ControlServer | undefined;

  private constructor(
    options: NvmeServerOptions,
    storage: Storage,
    log: ReportLimit,
    backends: Map<number, Backend>,
    model: NvmeControllerModel,
  ) {
    this.socket = options.socket;
    this.model = model;
    this.#options = options;
    this.#storage = storage;
    this.#log = log;
    this.#backends = backends;
  }

  /** Opens the backends. */
  static async make(options: NvmeServerOptions, storage: Storage, log: ReportLimit): Promise<Controller> {
    const { socket, namespaces } = options;
    const backends: Backend[] = [];
    let store: NamespaceStore | undefined;
    try {
      store = await openStore(options.store);
      for (const namespace of namespaces) backends.push(await storage.open(namespace, socket));
      const given = Object.entries(options.controller).filter(([, value]) => value !== undefined);
      const model = new NvmeControllerModel({
        ...(Object.fromEntries(given) as NvmeControllerOptions),
        ...(store !== undefined && { namespaceStore: store }),
        namespaces: namespaces.map((namespace, index) => ({
          ...namespace,
          backend: backends[index] as Backend,
        })),
        onFault: (reason) => {
          log.report(`The controller stopped until it is reset (CSTS.CFS): ${reason}`);
        },
        // It has a limit of its own.
        onWarning: complain,
      });
      for (const fault of options.faults ?? []) model.faults.add(fault);
      return new Controller(options, storage, log, backendsById(model, namespaces, backends, store), model);
    } catch (error) {
      for (const backend of backends) backend.close();
      store?.close?.();
      throw error;
    }
  }

  async addNamespace(text: string): Promise<NvmeNamespaceInfo> {
    const namespace = parseNamespace(text);
    const backend = await this.#storage.open(namespace, this.socket);
    try {
      const info = this.model.addNamespace({ ...namespace, backend });
      this.#backends.set(info.nsid, backend);
      return info;
    } catch (error) {
      backend.close();
      this.#storage.closed(backend);
      throw error;
    }
  }

  async removeNamespace(nsid: number): Promise<void> {
    const backend = this.#backends.get(nsid);
    try {
      await this.model.removeNamespace(nsid);
    } finally {
      this.#backends.delete(nsid);
      if (backend !== undefined) this.#storage.closed(backend);
    }
  }

  async listen(): Promise<void> {
    const { socket, fd, mode, owner, idleTimeout, control } = this.#options;
    this.#server = await serve(fd === undefined ? socket : { fd }, this.model, {
      ...(fd === undefined && mode !== undefined && { mode }),
      ...(fd === undefined && owner !== undefined && { owner }),
      ...(idleTimeout !== undefined && { idleTimeout }),
      onError: (error) => {
        this.#log.report(messageOf(error));
      },
    });
    if (control !== undefined)
      this.#control = new ControlServer(control, { mode, owner }, nvmeControlCommands(this), this.#log);
  }

  /** As that of the server, which there is. */
  get ended(): Promise<void> {
    return this.#server?.ended ?? Promise.resolve();
  }

  async close(): Promise<void> {
    this.#control?.close();
    await this.#server?.close();
    try {
      if (this.#server !== undefined) await this.model.flush();
    } finally {
      this.model.close();
    }
  }
}

async function openStore(wanted: NvmeServerOptions['store']): Promise<NamespaceStore | undefined> {
  const { folder, capacity } = wanted ?? {};
  if (folder !== undefined) return openNamespaceFolder(folder, { capacity });
  return capacity === undefined ? undefined : memoryNamespaceStore(capacity);
}

/** The backends by the ids of their namespaces. Those without an id got the free ones, in their order. */
function backendsById(
  model: NvmeControllerModel,
  namespaces: readonly NamespaceText[],
  backends: readonly Backend[],
  store: NamespaceStore | undefined,
): Map<number, Backend> {
  const given = new Set([...namespaces, ...(store?.namespaces ?? [])].map(({ nsid }) => nsid));
  const free = model.namespaces.map(({ nsid }) => nsid).filter((nsid) => !given.has(nsid));
  return new Map(
    namespaces.map(({ nsid }, index) => [nsid ?? (free.shift() as number), backends[index] as Backend]),
  );
}

function messageOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'message' in error
    ? String(error.message)
    : String(error);
}
