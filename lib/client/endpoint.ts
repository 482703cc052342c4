// SPDX-License-Identifier: MIT
import { statSync, type Stats } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { VfioUserError, errnoName } from '../errors';
import { Socket, isAbstractPath } from '../native';
import { Errno } from '../transport';

/** An address that {@link connect} takes: a socket path, SPDK's directory with a socket `cntrl`, `@abstract`, or a descriptor. */
export type Endpoint =
  | string
  | {
      /** A connected unix stream socket, which belongs to the package from then on. */
      readonly fd: number;
    };

/** How long to wait between attempts while the listener's backlog is full. */
const RETRY_MILLISECONDS = 10;

/** An endpoint's name, for messages. */
export function endpointName(endpoint: Endpoint): string {
  return typeof endpoint === 'string' ? endpoint : `fd ${endpoint.fd}`;
}

/**
 * The socket path of an endpoint: SPDK's listener address is a directory that holds the socket `cntrl`.
 *
 * @throws VfioUserError ERR_VFIO_USER_CONNECT when there is no such path, or it is no socket
 */
function resolveSocketPath(path: string): string {
  if (isAbstractPath(path)) return path;
  const info = statOrExplain(path);
  if (info === undefined) {
    throw new VfioUserError(
      'ERR_VFIO_USER_CONNECT',
      `no such path: ${path}. Is the server running, and is this the address that it listens on?`,
      { errno: Errno.ENOENT, syscall: 'stat' },
    );
  }
  if (info.isSocket()) return path;
  if (!info.isDirectory()) {
    throw new VfioUserError(
      'ERR_VFIO_USER_CONNECT',
      `${path} is not a socket; name the socket that the device's server listens on`,
    );
  }
  const inside = join(path, 'cntrl');
  if (statOrExplain(inside)?.isSocket() === true) return inside;
  throw new VfioUserError(
    'ERR_VFIO_USER_CONNECT',
    `${path} is a directory without a socket "cntrl" in it; SPDK makes one when a VFIOUSER listener with this address is added`,
  );
}

/**
 * Connects, and keeps trying while the listener's backlog is full: libvfio-user listens with a backlog of 0.
 *
 * @param deadline time of `performance.now()` in milliseconds
 */
export async function openSocket(
  endpoint: Endpoint,
  deadline: number,
  signal?: AbortSignal,
): Promise<Socket> {
  if (typeof endpoint !== 'string') return Socket.fromFd(endpoint.fd);
  const path = resolveSocketPath(endpoint);
  for (;;) {
    signal?.throwIfAborted();
    try {
      return Socket.connect(path);
    } catch (error) {
      const errno = error instanceof VfioUserError ? error.errnoName : undefined;
      if (errno !== 'EAGAIN') throw explain(path, error);
      if (performance.now() + RETRY_MILLISECONDS > deadline) throw busyError(endpoint);
    }
    // An abort ends the sleep; its reason is thrown above.
    await sleep(RETRY_MILLISECONDS, undefined, signal === undefined ? {} : { signal }).catch(() => undefined);
  }
}

/** The error for an endpoint that takes connections, but does not answer. */
export function busyError(endpoint: string, cause?: unknown): VfioUserError {
  return new VfioUserError(
    'ERR_VFIO_USER_BUSY',
    `${endpoint} accepts connections but does not answer: an endpoint serves one client at a time, so another client ` +
      'may hold it (or its server hangs). Close the other client, or wait longer with a larger connect time-out',
    { cause },
  );
}

/** What is at a path; undefined when there is nothing. */
function statOrExplain(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch (error) {
    const errno = Math.abs((error as NodeJS.ErrnoException).errno ?? 0);
    // The option `throwIfNoEntry: false` would hide ENOTDIR too, from Node 22 on.
    if (errno === Errno.ENOENT) return undefined;
    const text =
      errno === Errno.EACCES
        ? `permission denied: ${path}. Run as a user who may enter its directories`
        : `${path}: ${errnoName(errno)}`;
    throw new VfioUserError('ERR_VFIO_USER_CONNECT', text, { errno, syscall: 'stat', cause: error });
  }
}

function explain(path: string, error: unknown): Error {
  if (!(error instanceof VfioUserError)) return error as Error;
  if (error.code !== 'ERR_VFIO_USER_SYSTEM') return error;
  const text =
    error.errnoName === 'ECONNREFUSED'
      ? isAbstractPath(path)
        ? `nobody listens on ${path}. Is the server running, and in the same network namespace (container) as this process?`
        : `nobody listens on ${path}: its server has stopped and left the socket behind. Start the server again`
      : error.errnoName === 'EACCES'
        ? `permission denied: ${path}. Run as the owner of the socket, or have the server widen its mode`
        : error.errnoName === 'ENOENT'
          ? `no such socket: ${path}. Is the server running, and is this the address that it listens on?`
          : error.errnoName === 'EPROTOTYPE'
            ? `${path} is not a stream socket; name the socket that the device's server listens on`
            : `cannot connect to ${path}: ${error.errnoName ?? error.message}`;
  return new VfioUserError('ERR_VFIO_USER_CONNECT', text, {
    errno: error.errno,
    syscall: 'connect',
    cause: error,
  });
}
