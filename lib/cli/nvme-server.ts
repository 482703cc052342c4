// SPDX-License-Identifier: MIT
import type { Backend } from '../nvme/backends';
import { NvmeControllerModel, type NvmeControllerOptions } from '../nvme/controller';
import { type Server, serve, type SocketOwner } from '../server';
import type { NamespaceText } from './namespace-text';
import { openBackend } from './open-backend';
import { UsageError } from './option-spec';
import { complain } from './output';

/** A controller to serve, and where. */
export interface NvmeServerOptions {
  /** Path of the socket, or `@name`. */
  readonly socket: string;
  /** Permissions of the socket file, and whose it is. */
  readonly mode?: number | undefined;
  readonly owner?: SocketOwner | undefined;
  /** Milliseconds after which an idle client is disconnected when another waits. */
  readonly idleTimeout?: number | undefined;
  readonly namespaces: readonly NamespaceText[];
  /** What the controller is told beside its namespaces. What is undefined is as if it were not there. */
  readonly controller: {
    readonly [
      K in Exclude<
        keyof NvmeControllerOptions,
        'namespaces' | 'backend' | 'blockSize' | 'onFault' | 'onWarning'
      >
    ]?: NvmeControllerOptions[K] | undefined;
  };
}

/** An emulated NVMe controller that is being served. */
export interface NvmeServer {
  readonly socket: string;
  readonly model: NvmeControllerModel;
}

/** All controllers that this process serves. */
export interface NvmeServers {
  /** In the order in which they were asked for. */
  readonly servers: readonly NvmeServer[];
  /** Removes the sockets, disconnects the clients, and makes what was written durable. */
  close(): Promise<void>;
}

/**
 * Serves emulated NVMe controllers from this process. Nothing is served before all of them are ready. Errors of single clients go to
 * stderr, a line each.
 *
 * @throws UsageError when a file is to be the data of two namespaces; what opening a backend, making a controller and listening throw
 */
export async function startNvmeServers(wanted: readonly NvmeServerOptions[]): Promise<NvmeServers> {
  const made: Controller[] = [];
  const close = async (): Promise<void> => {
    const ends = await Promise.allSettled(made.map((controller) => controller.close()));
    for (const end of ends) if (end.status === 'rejected') throw end.reason;
  };
  try {
    const files = new Map<string, string>();
    for (const options of wanted) {
      made.push(await Controller.make(options, files));
    }
    for (const controller of made) await controller.listen();
  } catch (error) {
    await close().catch(() => undefined); // What has failed first is what people have to know.
    throw error;
  }
  return { servers: made, close };
}

/** A controller, and its server once it listens. */
class Controller implements NvmeServer {
  readonly socket: string;
  readonly model: NvmeControllerModel;
  readonly #options: NvmeServerOptions;
  readonly #backends: readonly Backend[];
  #server: Server | undefined;

  private constructor(options: NvmeServerOptions, backends: readonly Backend[], model: NvmeControllerModel) {
    this.socket = options.socket;
    this.model = model;
    this.#options = options;
    this.#backends = backends;
  }

  /**
   * Opens the backends.
   * @param files the sockets by the identities of the backends that are open
   */
  static async make(options: NvmeServerOptions, files: Map<string, string>): Promise<Controller> {
    const { socket, namespaces } = options;
    const backends: Backend[] = [];
    try {
      for (const { backend } of namespaces) {
        const opened = await openBackend(backend);
        backends.push(opened);
        const { identity } = opened;
        const other = identity === undefined ? undefined : files.get(identity);
        if (other !== undefined)
          throw new UsageError(
            `${String(identity)} is the data of two namespaces, at ${other} and at ${socket}`,
          );
        if (identity !== undefined) files.set(identity, socket);
      }
      const given = Object.entries(options.controller).filter(([, value]) => value !== undefined);
      const model = new NvmeControllerModel({
        ...(Object.fromEntries(given) as NvmeControllerOptions),
        namespaces: namespaces.map((namespace, index) => ({
          ...namespace,
          backend: backends[index] as Backend,
        })),
        onFault: (reason) => {
          complain(`The controller stopped until it is reset (CSTS.CFS): ${reason}`);
        },
        onWarning: complain,
      });
      return new Controller(options, backends, model);
    } catch (error) {
      for (const backend of backends) backend.close();
      throw error;
    }
  }

  async listen(): Promise<void> {
    const { socket, mode, owner, idleTimeout } = this.#options;
    this.#server = await serve(socket, this.model, {
      ...(mode !== undefined && { mode }),
      ...(owner !== undefined && { owner }),
      ...(idleTimeout !== undefined && { idleTimeout }),
      onError: (error) => {
        complain(messageOf(error));
      },
    });
  }

  async close(): Promise<void> {
    await this.#server?.close();
    try {
      if (this.#server !== undefined) await Promise.all(this.#backends.map((backend) => backend.flush()));
    } finally {
      this.model.close();
    }
  }
}

function messageOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'message' in error
    ? String(error.message)
    : String(error);
}
