// SPDX-License-Identifier: MIT
import { NvmeControllerModel } from '../nvme/controller';
import { serve, type SocketOwner } from '../server';
import type { BackendText } from './backend-text';
import { openBackend } from './open-backend';
import { complain } from './output';

/** What to serve, and where. */
export interface NvmeServerOptions {
  /** Path of the socket, or `@name`. */
  readonly socket: string;
  /** Permissions of the socket file, and whose it is. */
  readonly mode?: number | undefined;
  readonly owner?: SocketOwner | undefined;
  /** Milliseconds after which an idle client is disconnected when another waits. */
  readonly idleTimeout?: number | undefined;
  readonly backend: BackendText;
  /** Bytes of a logical block. */
  readonly blockSize: 512 | 4096;
  /** Doorbells are `4 << dstrd` bytes apart. Default: the controller's. */
  readonly dstrd?: number | undefined;
  /** I/O queue pairs. Default: the controller's. */
  readonly queuePairs?: number | undefined;
  /** Ends the wait for a backend that is elsewhere. */
  readonly signal?: AbortSignal | undefined;
}

/** An emulated NVMe controller that is being served. */
export interface NvmeServer {
  /** Bytes of the namespace. */
  readonly size: number;
  /** What its backend calls itself. */
  readonly kind: string;
  /** Removes the socket, disconnects the client, and makes what was written durable. */
  close(): Promise<void>;
}

/** Serves an emulated NVMe controller from this process. Errors of single clients go to stderr, a line each. */
export async function startNvmeServer(options: NvmeServerOptions): Promise<NvmeServer> {
  const { socket, mode, owner, idleTimeout, blockSize, dstrd, queuePairs } = options;
  const backend = await openBackend(options.backend, options.signal);
  try {
    const model = new NvmeControllerModel({
      backend,
      blockSize,
      ...(dstrd === undefined ? {} : { dstrd }),
      ...(queuePairs === undefined ? {} : { queuePairs }),
      onFault: (reason) => {
        complain(`The controller stopped until it is reset (CSTS.CFS): ${reason}`);
      },
    });
    const server = await serve(socket, model, {
      ...(mode !== undefined && { mode }),
      ...(owner !== undefined && { owner }),
      ...(idleTimeout !== undefined && { idleTimeout }),
      onError: (error) => {
        complain(messageOf(error));
      },
    });
    return {
      size: backend.size,
      kind: backend.kind,
      close: async () => {
        await server.close();
        await backend.flush();
        model.close();
      },
    };
  } catch (error) {
    backend.close();
    throw error;
  }
}

function messageOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'message' in error
    ? String(error.message)
    : String(error);
}
