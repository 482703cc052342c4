// SPDX-License-Identifier: MIT
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { type ServerResponse, createServer } from 'node:http';
import { type Socket, connect } from 'node:net';
import { resolve } from 'node:path';
import { UsageError } from './option-spec';
import { statOf } from './output-file';
import { checkSocketFile } from './socket-permissions';

/** Where metrics are served: a unix socket, or a port of this machine's loopback interface. */
export type MetricsAddress =
  { readonly path: string } | { readonly port: number; readonly host: '127.0.0.1' };

const PAGE = '/metrics';
const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
/** Most connections at a time: some scrapers, and no more. */
const CONNECTIONS = 16;
/** Milliseconds for a request, and for the next one on the same connection. */
const PATIENCE = 5000;
/** Most bytes of the head of a request. */
const HEAD_BYTES = 8192;

/**
 * Reads an address: a port, or the path of a unix socket. Whoever may reach it learns what the metrics tell, so that other addresses
 * are left to a proxy.
 *
 * @throws UsageError
 */
export function parseMetricsAddress(text: string): MetricsAddress {
  if (!/^\d+$/.test(text)) {
    checkSocketFile('--metrics', text);
    const path = resolve(text);
    checkSocketFile('--metrics', path);
    return { path };
  }
  const port = Number(text);
  if (port < 1 || port > 65535)
    throw new UsageError(
      `Option --metrics does not accept '${text}'; it takes a port from 1 to 65535, or a path`,
    );
  return { port, host: '127.0.0.1' };
}

/** Serves a text at /metrics until it is closed. */
export class MetricsServer {
  readonly #server;

  private constructor(text: () => string) {
    this.#server = createServer(
      {
        maxHeaderSize: HEAD_BYTES,
        headersTimeout: PATIENCE,
        requestTimeout: PATIENCE,
        keepAliveTimeout: PATIENCE,
      },
      ({ method = '', url = '' }, response) => {
        if (url.split('?')[0] !== PAGE) answer(response, 404, `There is only ${PAGE}\n`);
        else if (method !== 'GET' && method !== 'HEAD') answer(response, 405, 'Metrics can only be read\n');
        else answer(response, 200, text());
      },
    );
    this.#server.maxConnections = CONNECTIONS;
    // Metrics keep no process alive.
    this.#server.unref();
  }

  /** Begins to listen. The socket of a process that is gone is replaced. Rejects with the error of the system. */
  static async listen(address: MetricsAddress, text: () => string): Promise<MetricsServer> {
    if ('path' in address && (await isDeserted(address.path))) rmSync(address.path, { force: true });
    const metrics = new MetricsServer(text);
    metrics.#server.listen(address);
    await once(metrics.#server, 'listening');
    return metrics;
  }

  /** Stops listening, and ends all connections. */
  async close(): Promise<void> {
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}

function answer(response: ServerResponse, status: number, text: string): void {
  response
    .writeHead(status, { 'Content-Type': CONTENT_TYPE, 'Content-Length': Buffer.byteLength(text) })
    .end(text);
}

/** Whether there is a socket where nobody listens. */
async function isDeserted(path: string): Promise<boolean> {
  if (statOf(path)?.isSocket() !== true) return false;
  const socket: Socket = connect(path);
  try {
    await once(socket, 'connect');
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED';
  } finally {
    socket.destroy();
  }
}
