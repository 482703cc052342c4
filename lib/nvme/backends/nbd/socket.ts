// SPDX-License-Identifier: MIT
import { existsSync, readFileSync } from 'node:fs';
import { type Socket, connect, isIP } from 'node:net';
import { connect as connectTls } from 'node:tls';
import type { NbdAddress, NbdTls } from './uri';

/** How long a quiet connection may be before the kernel asks whether the server is still there, in milliseconds. */
const KEEP_ALIVE = 30_000;

/** Begins to connect to a server. */
export function openSocket({ transport }: NbdAddress): Socket {
  const socket =
    transport.kind === 'unix'
      ? connect({ path: transport.path })
      : connect({ host: transport.host, port: transport.port });
  socket.setNoDelay(true);
  socket.setKeepAlive(true, KEEP_ALIVE);
  return socket;
}

/**
 * Goes on with TLS on a socket.
 *
 * @returns resolves with the socket to use from now on; rejects when the server is not whom it should be
 */
export async function startTls(socket: Socket, tls: NbdTls): Promise<Socket> {
  const { hostname, verifyPeer, caFile, certificateFile, keyFile } = tls;
  const readable = (file: string | undefined): Buffer | undefined =>
    file !== undefined && existsSync(file) ? readFileSync(file) : undefined;
  const ca = caFile === undefined ? undefined : readFileSync(caFile);
  const cert = readable(certificateFile);
  const key = readable(keyFile);
  // Its errors come by the other one.
  socket.on('error', () => undefined);
  return new Promise((resolve, reject) => {
    const secure = connectTls({
      socket,
      rejectUnauthorized: verifyPeer,
      minVersion: 'TLSv1.2',
      ...(hostname !== undefined && (isIP(hostname) === 0 ? { servername: hostname } : { host: hostname })),
      ...(ca !== undefined && { ca }),
      ...(cert !== undefined && { cert }),
      ...(key !== undefined && { key }),
    });
    const settle = (): void => {
      secure.off('secureConnect', done);
      secure.off('error', fail);
      secure.off('close', closed);
    };
    const done = (): void => {
      settle();
      resolve(secure);
    };
    const fail = (error: Error): void => {
      settle();
      reject(error);
    };
    const closed = (): void => {
      fail(new Error('the server closed the connection'));
    };
    secure.once('secureConnect', done);
    secure.once('error', fail);
    secure.once('close', closed);
  });
}
