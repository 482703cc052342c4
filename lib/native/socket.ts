// SPDX-License-Identifier: MIT
import { VfioUserError, invalidArgument, outOfRange, systemError } from '../errors';
import { addon, checked } from './addon';
import { checkFd, closeFd } from './fd';
import { MAX_FDS_PER_MESSAGE, messageWindow } from './message-window';
import { Ready, Watcher } from './watcher';

/** Longest path of a unix socket, in bytes (unix(7): `sun_path` has 108, with a NUL at the end). */
const MAX_SOCKET_PATH = 107;
const EAGAIN = 11;
const EINVAL = 22;
const EPROTOTYPE = 91;
const POLLOUT = 4;

/** Who is at the other end, as of connect or listen (unix(7), SO_PEERCRED). */
export interface PeerCredentials {
  /** Process id of who connected or listens; 0 when it is in another process namespace. */
  readonly pid: number;
  /** User id, 0 to 2^32 - 1. */
  readonly uid: number;
  /** Group id, 0 to 2^32 - 1. */
  readonly gid: number;
}

/** True when a path names an abstract socket, which has no file: it starts with `@` or NUL. */
export function isAbstractPath(path: string): boolean {
  return path.startsWith('@') || path.startsWith('\0');
}

/** Throws `ERR_INVALID_ARG_VALUE` for a path that cannot be the address of a unix socket. */
export function checkSocketPath(path: string): void {
  if (typeof path !== 'string' || path.length === 0)
    throw invalidArgument('The path of a unix socket is empty');
  const length = Buffer.byteLength(path);
  if (length > MAX_SOCKET_PATH) {
    throw invalidArgument(
      `The path of a unix socket has at most ${MAX_SOCKET_PATH} bytes, this has ${length}: ${path}. Use a shorter or a relative path.`,
    );
  }
  if (!isAbstractPath(path) && path.includes('\0')) {
    throw invalidArgument('The path of a unix socket has a NUL character in it');
  }
}

/** A {@link Socket} being watched. Reads are watched at first, writes are not. */
export class SocketWatcher {
  readonly #watcher: Watcher;
  #events: number = Ready.read;

  /** @internal */
  constructor(fd: number, handler: (events: number) => void) {
    this.#watcher = new Watcher(fd, this.#events, false, handler);
  }

  get closed(): boolean {
    return this.#watcher.closed;
  }

  /** Whether the handler is called when there is something to receive: data, the end of the stream, or an error. */
  setReadable(on: boolean): void {
    this.#set(Ready.read, on);
  }

  /** Whether the handler is called when the socket takes more bytes. */
  setWritable(on: boolean): void {
    this.#set(Ready.write, on);
  }

  /**
   * For how long after each call of the handler the event loop looks for more to receive instead of sleeping.
   *
   * @param microseconds 0 to Infinity; 0, the default, sleeps at once
   */
  setSpin(microseconds: number): void {
    this.#watcher.setSpin(microseconds);
  }

  /** Keeps the event loop alive; the default. */
  ref(): void {
    this.#watcher.ref();
  }

  unref(): void {
    this.#watcher.unref();
  }

  /** Idempotent; may be called by the handler itself. */
  close(): void {
    this.#watcher.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #set(event: number, on: boolean): void {
    const events = on ? this.#events | event : this.#events & ~event;
    if (events === this.#events) return;
    this.#watcher.setEvents(events);
    this.#events = events;
  }
}

/**
 * A connected unix stream socket that passes file descriptors along. Never blocks unless a time-out is given.
 * Owns its descriptor, and those that were received and not yet taken.
 */
export class Socket {
  readonly #fd: number;
  #received: number[] = [];
  #fdsTruncated = false;
  #watcher: SocketWatcher | undefined;
  #closed = false;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Connects to a listening socket.
   *
   * @param path of at most 107 bytes; an abstract name starts with `@` or NUL
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`: ENOENT, EACCES, ECONNREFUSED when nobody listens, EAGAIN when the
   *   listener's backlog is full
   */
  static connect(path: string): Socket {
    checkSocketPath(path);
    return new Socket(checked(addon().connect(path), 'connect', `Connecting to ${display(path)}`));
  }

  /**
   * Takes over a descriptor. The descriptor stays the caller's when this throws.
   *
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`: EPROTOTYPE when it is no unix stream socket, EINVAL when it listens,
   *   ENOTCONN when it is connected to nobody, ENOTSOCK, EBADF
   */
  static fromFd(fd: number): Socket {
    const result = addon().adoptSocket(checkFd(fd), 0);
    const what = `Taking over file descriptor ${fd} as a socket`;
    if (result === -EPROTOTYPE)
      throw systemError('getsockopt', EPROTOTYPE, `${what}, which is no unix stream socket`);
    if (result === -EINVAL) throw systemError('getsockopt', EINVAL, `${what}, which is a listening one`);
    checked(result, 'getsockopt', what);
    return new Socket(fd);
  }

  /** Two sockets that are connected to each other. */
  static pair(): [Socket, Socket] {
    const fds = new Int32Array(2);
    checked(addon().socketPair(fds), 'socketpair', 'Creating a pair of sockets');
    return [new Socket(fds[0] as number), new Socket(fds[1] as number)];
  }

  /** @throws VfioUserError `ERR_VFIO_USER_CLOSED` */
  get fd(): number {
    if (this.#closed) throw new VfioUserError('ERR_VFIO_USER_CLOSED', 'The socket is closed');
    return this.#fd;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Sends `head[0 … headLength)`, then `body[bodyOffset …)`, in one sendmsg(2) for each 64 KiB. Descriptors travel with the first
   * byte, so they are sent when at least one byte was taken. They stay open here.
   *
   * @returns bytes taken, which may be fewer than given; 0 when it would block
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`: EPIPE, ECONNRESET, EBADF when one of `fds` is not open,
   *   ETOOMANYREFS when too many descriptors are in flight
   */
  send(
    head: Uint8Array,
    headLength: number,
    body: Uint8Array | null,
    bodyOffset: number,
    fds: readonly number[] | null,
  ): number {
    const bodyLength = body === null ? 0 : body.length - bodyOffset;
    if (!(headLength >= 0 && headLength <= head.length) || !(bodyOffset >= 0) || !(bodyLength >= 0)) {
      throw outOfRange('The part to send exceeds its array');
    }
    const count = fds?.length ?? 0;
    if (count > 0 && headLength + bodyLength === 0)
      throw invalidArgument('File descriptors need at least one byte to go with');
    if (count > MAX_FDS_PER_MESSAGE) {
      throw outOfRange(`A message carries at most ${MAX_FDS_PER_MESSAGE} file descriptors, got ${count}`);
    }
    const { fd } = this;
    const total = headLength + bodyLength;
    const window = messageWindow();
    let taken = 0;
    while (taken < total) {
      const length = Math.min(total - taken, window.size);
      const fromHead = Math.max(0, Math.min(headLength - taken, length));
      if (fromHead > 0) window.put(head, taken, fromHead, 0);
      if (body !== null && fromHead < length)
        window.put(body, bodyOffset + taken + fromHead - headLength, length - fromHead, fromHead);
      const result = window.send(fd, length, taken === 0 ? fds : null);
      if (result >= 0) taken += result;
      else if (result !== -EAGAIN && taken === 0)
        throw systemError('sendmsg', -result, 'Sending to the peer');
      // The next call tells what stopped this one.
      if (result < length) break;
    }
    return taken;
  }

  /**
   * Receives into `buffer[offset … offset + length)` with one recvmsg(2) of at most 64 KiB. Descriptors that come along are kept for
   * {@link takeFds}.
   *
   * @param spinMicroseconds time to try again and again when nothing is there, up to a minute
   * @param timeoutMilliseconds time until the call returns empty-handed, counted from its start; sleeps after the spin.
   *   Up to a day
   * @param takesFds false: descriptors that come along are closed, which spares the kernel some work
   * @returns bytes received; 0 when it would block, or nothing came in time; -1 at the end of the stream
   * @throws VfioUserError `ERR_VFIO_USER_SYSTEM`: ECONNRESET
   */
  receive(
    buffer: Uint8Array,
    offset: number,
    length: number,
    spinMicroseconds = 0,
    timeoutMilliseconds = 0,
    takesFds = true,
  ): number {
    if (!(offset >= 0) || !(length > 0) || !(offset + length <= buffer.length)) {
      throw outOfRange(
        `Receiving ${length} bytes at ${offset} needs room, the array has ${buffer.length} bytes`,
      );
    }
    const window = messageWindow();
    const result = window.receive(
      this.fd,
      buffer,
      offset,
      length,
      wholeTime(spinMicroseconds, 60_000_000),
      wholeTime(timeoutMilliseconds, 86_400_000),
      takesFds,
    );
    if (result < 0) {
      if (result === -EAGAIN) return 0;
      throw systemError('recvmsg', -result, 'Receiving from the peer');
    }
    const { fdCount } = window;
    for (let index = 0; index < fdCount; index++) this.#received.push(window.fdAt(index));
    if (window.fdsLost) this.#fdsTruncated = true;
    return result === 0 ? -1 : result;
  }

  /** Number of descriptors received and not yet taken. */
  get pendingFds(): number {
    return this.#received.length;
  }

  /**
   * Whether descriptors were lost since the last {@link takeFds}: the process may have no more of them (EMFILE).
   */
  get fdsTruncated(): boolean {
    return this.#fdsTruncated;
  }

  /** The descriptors received since the last call. They belong to the caller. Resets {@link fdsTruncated}. */
  takeFds(): number[] {
    const fds = this.#received;
    if (fds.length > 0) this.#received = [];
    this.#fdsTruncated = false;
    return fds;
  }

  /**
   * Waits in poll(2) until the socket takes bytes, or until sending would fail.
   *
   * @returns false after the time-out
   */
  waitWritable(timeoutMilliseconds: number): boolean {
    const result = addon().wait(this.fd, POLLOUT, wholeTime(timeoutMilliseconds, 86_400_000));
    return checked(result, 'poll', 'Waiting for the peer') !== 0;
  }

  /** Asks for a send buffer; the kernel doubles the value and keeps it within its limits (socket(7), SO_SNDBUF). */
  setSendBuffer(bytes: number): void {
    checked(addon().setSendBuffer(this.fd, bytes), 'setsockopt', 'Setting the size of the send buffer');
  }

  /** Who is at the other end. */
  peerCredentials(): PeerCredentials {
    const out = new Int32Array(3);
    checked(addon().peerCredentials(this.fd, out), 'getsockopt', "Reading the peer's credentials");
    // User and group ids are unsigned.
    return { pid: out[0] as number, uid: (out[1] as number) >>> 0, gid: (out[2] as number) >>> 0 };
  }

  /**
   * Calls a function with a mask of {@link Ready} whenever the socket is ready, for as long as it is. A socket has one
   * watcher at a time; this closes the one before. An exception of the handler is an uncaught exception of the process.
   */
  watch(handler: (events: number) => void): SocketWatcher {
    this.#watcher?.close();
    this.#watcher = new SocketWatcher(this.fd, handler);
    return this.#watcher;
  }

  /** Closes the socket, its watcher, and the descriptors that were received and not taken. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher?.close();
    for (const fd of this.takeFds()) closeFd(fd);
    closeFd(this.#fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** A path as people write it: an abstract name with `@`. */
export function display(path: string): string {
  return path.startsWith('\0') ? `@${path.slice(1)}` : path;
}

/** A time as the addon takes it: whole, rounded up so that a wait is not cut short, and within its limits. */
function wholeTime(time: number, maximum: number): number {
  return Math.min(Math.max(Math.ceil(time), 0), maximum);
}
