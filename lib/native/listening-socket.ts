// SPDX-License-Identifier: MIT
import { type BigIntStats, chmodSync, chownSync, lstatSync, unlinkSync } from 'node:fs';
import { VfioUserError, systemError } from '../errors';
import { addon, checked } from './addon';
import { checkFd, closeFd } from './fd';
import { Socket, checkSocketPath, display, isAbstractPath } from './socket';
import { Ready, Watcher } from './watcher';

const EAGAIN = 11;
const EINVAL = 22;
const EPROTOTYPE = 91;
const EADDRINUSE = 98;
const ECONNABORTED = 103;
const ECONNREFUSED = 111;

/** Whose a socket file is. What is not given stays as it is: of the process that made the file. */
export interface SocketOwner {
  /** User id, 0 to 2^32 - 2. */
  readonly uid?: number;
  /** Group id, 0 to 2^32 - 2. */
  readonly gid?: number;
}

/** Options of {@link ListeningSocket.listen}. */
export interface ListenOptions {
  /** Clients that may wait for {@link ListeningSocket.accept}, less one (listen(2)). Default 1. */
  readonly backlog?: number;
  /** Permissions of the socket file, such as 0o600; without, the umask decides. */
  readonly mode?: number;
  /** Whose the socket file shall be. Another user takes CAP_CHOWN, another group membership in it. */
  readonly owner?: SocketOwner;
}

/** A {@link ListeningSocket} being watched. */
export interface ListeningWatcher {
  readonly closed: boolean;
  /** Keeps the event loop alive; the default. */
  ref(): void;
  unref(): void;
  /** Idempotent; may be called by the handler itself. */
  close(): void;
  [Symbol.dispose](): void;
}

/** A unix stream socket that clients connect to. Owns its descriptor and the socket file that it made. */
export class ListeningSocket {
  /** The path that was given to {@link listen}. */
  readonly path: string;
  readonly #fd: number;
  readonly #file: BigIntStats | undefined;
  #watcher: Watcher | undefined;
  #closed = false;

  private constructor(fd: number, path: string, file: BigIntStats | undefined) {
    this.#fd = fd;
    this.path = path;
    this.#file = file;
  }

  /**
   * Listens at a path. A socket file that nobody listens at, as a crash leaves it, is replaced.
   *
   * @param path of at most 107 bytes; an abstract name starts with `@` or NUL
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`: EADDRINUSE when somebody listens there, or the path is no socket; EPERM
   *   when the file cannot be given to its owner
   */
  static listen(path: string, options: ListenOptions = {}): ListeningSocket {
    checkSocketPath(path);
    const { backlog = 1, mode, owner } = options;
    const what = `Listening at ${display(path)}`;
    let fd = addon().bind(path);
    if (fd === -EADDRINUSE && !isAbstractPath(path) && removeStale(path)) fd = addon().bind(path);
    checked(fd, 'bind', what);
    let file: BigIntStats | undefined;
    try {
      if (!isAbstractPath(path)) {
        file = lstatSync(path, { bigint: true });
        // Nobody can connect before listen(2), so there is no moment with wider permissions. That the file is there until then, and refuses,
        // is the price of a name that ss(8) shows: it is the one of bind(2), also after the file was renamed.
        if (mode !== undefined) chmodSync(path, mode);
        if (owner !== undefined) giveTo(path, owner);
      }
      checked(addon().listen(fd, backlog), 'listen', what);
    } catch (error) {
      closeFd(fd);
      if (file !== undefined) removeIfSame(path, file);
      throw error;
    }
    return new ListeningSocket(fd, path, file);
  }

  /**
   * Takes over a socket that listens, as systemd hands it over. Its socket file stays whose it is.
   *
   * @returns null when the socket does not listen
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`: EPROTOTYPE when it is no unix stream socket, ENOTSOCK, EBADF
   */
  static fromFd(fd: number): ListeningSocket | null {
    const result = addon().adoptSocket(checkFd(fd), 1);
    if (result === -EINVAL) return null;
    const what = `Taking over file descriptor ${fd} as a socket`;
    if (result === -EPROTOTYPE)
      throw systemError('getsockopt', EPROTOTYPE, `${what}, which is no unix stream socket`);
    checked(result, 'getsockopt', what);
    return new ListeningSocket(fd, `fd ${fd}`, undefined);
  }

  /** @throws VfioUserError `ERR_VFIO_USER_CLOSED` */
  get fd(): number {
    if (this.#closed)
      throw new VfioUserError('ERR_VFIO_USER_CLOSED', `No longer listening at ${display(this.path)}`);
    return this.#fd;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * The next client, or null when none waits.
   *
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`: EMFILE
   */
  accept(): Socket | null {
    const fd = addon().accept(this.fd);
    if (fd === -EAGAIN || fd === -ECONNABORTED) return null;
    if (fd < 0) throw systemError('accept4', -fd, `Accepting a client at ${display(this.path)}`);
    return Socket.fromFd(fd);
  }

  /** Calls a function for as long as a client waits; the function should accept or close. Closes an earlier watcher. */
  watch(handler: () => void): ListeningWatcher {
    this.#watcher?.close();
    this.#watcher = new Watcher(this.fd, Ready.read, false, () => {
      handler();
    });
    return this.#watcher;
  }

  /** Closes the socket and its watcher, and removes its file unless it was replaced by another. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher?.close();
    // The file goes first: a client then finds no path rather than a socket that refuses.
    if (this.#file !== undefined) removeIfSame(this.path, this.#file);
    closeFd(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function giveTo(path: string, { uid = -1, gid = -1 }: SocketOwner): void {
  try {
    chownSync(path, uid, gid);
  } catch (error) {
    const { errno } = error as NodeJS.ErrnoException;
    if (errno === undefined) throw error; // An id that is no number.
    const to = [uid < 0 ? '' : ` user ${uid}`, gid < 0 ? '' : ` group ${gid}`].filter(Boolean).join(' and');
    throw systemError('chown', -errno, `Giving the socket ${path} to${to}`);
  }
}

/** Removes a socket file at which nobody listens. */
function removeStale(path: string): boolean {
  const file = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (file === undefined) return true;
  if (!file.isSocket()) return false;
  const fd = addon().connect(path);
  if (fd >= 0) closeFd(fd);
  // A listener whose backlog is full gives EAGAIN. One that has bound but does not listen yet looks stale; two servers
  // that start at the same path at the same moment are not told apart.
  return fd === -ECONNREFUSED && removeIfSame(path, file);
}

/** Removes a file if it still is the one that was seen. */
function removeIfSame(path: string, seen: BigIntStats): boolean {
  const file = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  if (file?.ino !== seen.ino || file.dev !== seen.dev) return false;
  unlinkSync(path);
  return true;
}
